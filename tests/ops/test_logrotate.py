"""Rotation by Debian's logrotate while requests come: `deploy/logrotate.conf`, and copytruncate."""

import getpass
import grp
import os
import tempfile
import threading
from pathlib import Path

from harness import Case, ConfiguredProxy, Upstream, ask, for_module, wait_for
from tools import DEPLOY, run

ROTATIONS = 5


def setUpModule():
    global alpha
    alpha = for_module(Upstream("alpha"))


class Rotation(Case):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.folder.chmod(0o700)  # logrotate refuses to work where others may write
        self.log = self.folder / "ai_proxy.log"
        self.proxy = self.enterContext(ConfiguredProxy([alpha.entry], log_file=str(self.log), log_level="INFO"))

    def ours(self, *changes):
        """`deploy/logrotate.conf` for this log and this process; logrotate wants to own it alone."""
        user, group = getpass.getuser(), grp.getgrgid(os.getgid()).gr_name
        text = (DEPLOY / "logrotate.conf").read_text()
        for there, here in [("/var/log/ai-proxy/*.log", self.log), ("ai-proxy ai-proxy", "%s %s" % (user, group)),
                            ("systemctl kill --signal=HUP ai-proxy.service", "kill -HUP %d" % self.proxy.child.pid), *changes]:
            self.assertIn(there, text)
            text = text.replace(there, str(here))
        path = self.folder / "logrotate.conf"
        path.write_text(text)
        path.chmod(0o600)
        return path

    def rotate(self, path):
        run("logrotate", "--force", "--state", self.folder / "state", path)

    def lines(self):
        """Every line there is, of all files."""
        texts = []
        for file in self.folder.glob("ai_proxy.log*"):
            texts.append(run("zcat", file) if file.suffix == ".gz" else file.read_text())
        return [line for text in texts for line in text.splitlines()]

    def under_load(self, act):
        """Ids of all requests that were answered while `act` ran, and a while before and after."""
        answered, over = [], threading.Event()

        def call(number):
            with self.client(self.proxy) as client:
                while not over.is_set():
                    ident = "rotated-%d-%d" % (number, len(answered))
                    client.chat.completions.create(model="alpha/ok", messages=ask(),
                                                   extra_headers={"x-request-id": ident})
                    answered.append(ident)

        threads = [threading.Thread(target=call, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(ROTATIONS):
            mark = len(answered)
            wait_for(lambda: len(answered) >= mark + 20, "calls")
            act()
        wait_for(lambda: len(answered) >= mark + 40, "calls behind the last rotation")
        over.set()
        for thread in threads:
            thread.join()
        return answered

    def logged(self, lines):
        calls = [line for line in lines if "耗时:" in line]
        return [word.partition("=")[2] for line in calls for word in line.split() if word.startswith("request_id=")]

    def test_by_signal_no_line_is_lost_or_doubled(self):
        path = self.ours()
        answered = self.under_load(lambda: self.rotate(path))
        # The line is written behind the answer.
        wait_for(lambda: len(self.logged(self.lines())) >= len(answered), "the last lines")
        self.assertEqual(sorted(self.logged(self.lines())), sorted(answered))
        self.assertEqual(len(list(self.folder.glob("ai_proxy.log.*"))), ROTATIONS)
        self.assertTrue(list(self.folder.glob("ai_proxy.log.*.gz")), "older ones are compressed")
        # The new file is the one in use, and the old one is let go.
        targets = {os.readlink(link) for link in Path("/proc/%d/fd" % self.proxy.child.pid).iterdir()}
        self.assertIn(str(self.log), targets)
        self.assertEqual([target for target in targets if "ai_proxy.log." in target], [])

    def test_copytruncate_keeps_whole_lines_and_leaves_no_hole(self):
        script = "postrotate\n\t\tkill -HUP %d\n\tendscript" % self.proxy.child.pid
        path = self.ours(("\tcreate ", "\tcopytruncate\n\t#create "), ("\tsharedscripts\n\t" + script, ""),
                         ("\tdelaycompress\n", ""))
        answered = self.under_load(lambda: self.rotate(path))
        wait_for(lambda: answered[-1] in self.log.read_text(), "the last line")
        self.assertNotIn(b"\0", self.log.read_bytes(), "appended, so no hole where the file was cut")
        found = self.logged(self.lines())
        # Lines between copy and cut may be lost; none is torn, doubled or made up.
        self.assertLessEqual(set(found), set(answered))
        self.assertEqual(len(found), len(set(found)))
        self.assertGreater(len(found), len(answered) // 2)
