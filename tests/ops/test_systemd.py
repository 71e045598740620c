"""The systemd unit, as systemd itself reads it."""

import json
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

from harness import BINARY, ConfiguredProxy, Upstream, fetch, wait_for
from in_front import own_address
from tools import DEPLOY, run

UNIT = DEPLOY / "ai-proxy.service"
SOCKET = DEPLOY / "ai-proxy.socket"
# Of 10; `systemd-analyze security` names what is left: the network itself, and files others may read.
MOST_EXPOSURE = 1.8


class Unit(unittest.TestCase):
    def test_every_line_is_understood(self):
        with tempfile.TemporaryDirectory() as folder:
            unit = Path(folder) / UNIT.name
            # `verify` wants the program to be there.
            unit.write_text(UNIT.read_text().replace("=ai-proxy ", "=%s " % BINARY))
            socket = Path(folder) / SOCKET.name
            socket.write_text(SOCKET.read_text())
            self.assertEqual(run("systemd-analyze", "verify", "--man=no", unit, socket), "")

    def test_the_sandbox_is_tight(self):
        said = run("systemd-analyze", "security", "--offline=true", "--no-pager", UNIT)
        exposure = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)[1])
        self.assertLessEqual(exposure, MOST_EXPOSURE)


class Reload(unittest.TestCase):
    """The unit's ExecReload lines, one after the other as systemd runs them: the first that fails ends the reload."""

    def reload(self, config, pid):
        """How the reload ends, and its output."""
        lines = [line.partition("=")[2] for line in UNIT.read_text().splitlines() if line.startswith("ExecReload=")]
        said = ""
        for line in lines:
            line = line.replace("$MAINPID", str(pid)).replace("/etc/ai-proxy/config.json", str(config))
            command = [BINARY if word == "ai-proxy" else word for word in line.split()]
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
            said += done.stdout
            if done.returncode != 0:
                return done.returncode, said
        return 0, said

    def test_a_bad_config_fails_the_reload_and_changes_nothing(self):
        with Upstream("alpha") as upstream, tempfile.TemporaryDirectory() as folder, \
                ConfiguredProxy([upstream.entry]) as proxy:
            config = Path(folder) / "config.json"

            def reloads():
                """How often the process has got SIGHUP."""
                text = fetch(proxy.root + "/metrics").decode()
                return sum(float(line.split()[-1]) for line in text.splitlines()
                           if line.startswith("ai_proxy_config_reloads_total"))
            config.write_text(json.dumps({"language": "en", "providers": [upstream.entry], "port": "wrong"}))
            code, said = self.reload(config, proxy.child.pid)
            self.assertEqual(code, 2, said)
            self.assertIn('"wrong" is not allowed', said)
            self.assertEqual(reloads(), 0)
            config.write_text(json.dumps({"language": "en", "providers": [upstream.entry]}))
            self.assertEqual(self.reload(config, proxy.child.pid)[0], 0)
            wait_for(lambda: reloads() == 1, "the reload")


class Activation(unittest.TestCase):
    """systemd's own tool for handing a socket over."""

    def test_a_socket_of_systemds_is_served(self):
        address = own_address() + ":8080"
        with Upstream("alpha") as upstream, tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "config.json"
            # Its own address could not be bound: the socket counts.
            config.write_text(json.dumps({"host": "192.0.2.1", "log_file": None, "providers": [upstream.entry]}))
            command = ["systemd-socket-activate", "--listen=" + address, BINARY, "--config", str(config)]
            with open(os.environ["E2E_LOG"], "ab") as log:
                child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            self.addCleanup(child.wait)
            self.addCleanup(child.terminate)

            def answered():
                try:
                    return fetch("http://%s/healthz" % address)
                except OSError:
                    return None
            self.assertEqual(json.loads(wait_for(answered, "the socket to be there")), {"status": "ok"})
