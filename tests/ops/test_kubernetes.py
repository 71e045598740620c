"""deploy/kubernetes.yaml against Kubernetes' own schemas, and what its parts promise each other."""

import json
import re
import tempfile
import unittest
from pathlib import Path

import kubernetes_validate
import yaml

from harness import BINARY
from tools import DEPLOY, run


class Kubernetes(unittest.TestCase):
    def setUp(self):
        self.objects = {o["kind"]: o for o in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}
        self.config = json.loads(self.objects["ConfigMap"]["data"]["config.json"])
        self.pod = self.objects["Deployment"]["spec"]["template"]["spec"]
        self.container, = self.pod["containers"]

    def test_every_object_is_valid(self):
        for kind, described in self.objects.items():
            with self.subTest(kind):
                # Strict: a key that the schema does not know is an error.
                kubernetes_validate.validate(described, "1.30", strict=True)

    def test_the_config_is_valid_and_fits(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "config.json"
            path.write_text(json.dumps(self.config))
            path.chmod(0o600)
            names = re.findall(r"\$\{(\w+)}", path.read_text())
            run(BINARY, "check", "--config", path, env={name: "value-of-twelve" for name in names})
        port, = self.container["ports"]
        self.assertEqual((self.config["host"], self.config["port"]), ("0.0.0.0", port["containerPort"]))

    def test_probes_ask_what_they_should_and_the_drain_has_its_time(self):
        paths = {kind: self.container[kind + "Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
        self.assertEqual(paths, {"startup": "/health", "readiness": "/healthz", "liveness": "/healthz"})
        sleep = self.container["lifecycle"]["preStop"]["sleep"]["seconds"]
        self.assertGreater(self.pod["terminationGracePeriodSeconds"], sleep + self.config["shutdown_timeout"])
