"""The systemd unit, as systemd itself reads it."""

import re
import tempfile
import unittest
from pathlib import Path

from harness import BINARY
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
            unit.write_text(UNIT.read_text().replace("/usr/local/bin/ai-proxy", BINARY))
            socket = Path(folder) / SOCKET.name
            socket.write_text(SOCKET.read_text())
            self.assertEqual(run("systemd-analyze", "verify", "--man=no", unit, socket), "")

    def test_the_sandbox_is_tight(self):
        said = run("systemd-analyze", "security", "--offline=true", "--no-pager", UNIT)
        exposure = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)[1])
        self.assertLessEqual(exposure, MOST_EXPOSURE)
