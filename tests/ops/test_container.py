"""The image of `deploy/Containerfile`, built and run by Debian's podman."""

import json
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from harness import BINARY, CLIENT_TOKEN, DEADLINE, Process, Upstream, ask, client
from tools import DEPLOY, PATIENCE, run

FILE = DEPLOY / "Containerfile"


def engine(folder):
    """The words that start podman on a store of its own, by the runtime that needs least of a machine."""
    return ["podman", "--root", folder + "/store", "--runroot", folder + "/run", "--storage-driver", "vfs", "--runtime", "runc",
            "--cgroup-manager", "cgroupfs"]


class File(unittest.TestCase):
    def test_it_holds_the_static_binary_alone_and_no_root(self):
        lines = [line.split(maxsplit=1) for line in FILE.read_text().splitlines() if line and not line.startswith("#")]
        said = {word: rest for word, rest in lines}
        self.assertEqual(len(said), len(lines), "each instruction once")
        self.assertEqual(said["FROM"], "scratch")
        self.assertEqual(said["COPY"], "target/static/ai-proxy /ai-proxy")
        self.assertRegex(said["USER"], r"^[1-9]\d*:[1-9]\d*$")
        self.assertEqual(json.loads(said["ENTRYPOINT"]) + json.loads(said["CMD"]),
                         ["/ai-proxy", "--config", "/etc/ai-proxy/config.json"])
        self.assertEqual(said["STOPSIGNAL"], "SIGTERM")


class Image(unittest.TestCase):
    def setUp(self):
        for tool in ("podman", "runc"):
            if not shutil.which(tool):
                self.skipTest("NOT RUN: no %s here" % tool)
        if "INTERP" in run("readelf", "--program-headers", "--wide", BINARY):
            self.skipTest("NOT RUN: the image needs a static binary (make ops BIN=target/static/ai-proxy)")
        self.folder = self.enterContext(tempfile.TemporaryDirectory())
        self.podman = engine(self.folder)

    def test_it_serves_and_ends_by_its_stop_signal(self):
        context = Path(self.folder) / "context"
        (context / "target/static").mkdir(parents=True)
        shutil.copy2(BINARY, context / "target/static/ai-proxy")
        run(*self.podman, "build", "--file", FILE, "--tag", "ai-proxy", context)
        alpha = self.enterContext(Upstream("alpha"))
        config = Path(self.folder) / "config.json"
        config.write_text(json.dumps({"host": "127.0.0.1", "port": 0, "log_file": None, "tokens": ["e2e|" + CLIENT_TOKEN],
                                      "providers": [alpha.entry]}))
        # On the network of this machine, where the provider is; limits that any machine grants.
        command = [*self.podman, "run", "--rm", "--name", "ai-proxy", "--network", "host", "--ulimit", "nofile=1024:1024",
                   "--ulimit", "nproc=1024:1024", "--volume", "%s:/etc/ai-proxy/config.json:ro" % config, "localhost/ai-proxy"]
        can = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=PATIENCE, check=False)
        if "OCI" in can.stderr:
            self.skipTest("NOT RUN: built, but no container may run here: " + can.stderr.strip())
        self.assertRegex(can.stdout, r"^ai-proxy ")
        with Process(command, r"listening on http://(\S+?)/?$") as proxy:
            proxy.url = "http://%s/v1" % proxy.match[1]
            with client(proxy) as caller:
                answer = caller.chat.completions.create(model="alpha/ok", messages=ask())
            self.assertTrue(answer.choices[0].message.content)
            run(*self.podman, "stop", "ai-proxy")
            self.assertEqual(proxy.child.wait(DEADLINE), 0)
