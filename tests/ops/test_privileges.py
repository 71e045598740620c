"""Least privilege: as a user who may do nothing, with no capability, it serves; and it writes nothing but its log."""

import json
import os
import re
import shutil
import signal
import tempfile
from pathlib import Path

from harness import BINARY, CLIENT_TOKEN, Case, Process, Upstream, ask, for_module, wait_for

NOBODY = 65534
CHANGES = ("open", "openat", "creat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir",
           "link", "linkat", "symlink", "symlinkat", "truncate", "ftruncate", "mknod", "mknodat", "chmod", "fchmod",
           "fchmodat", "chown", "fchown", "fchownat", "setuid", "setgid", "capset", "execve")


def setUpModule():
    global alpha
    alpha = for_module(Upstream("alpha"))


class Traced(Process):
    """The proxy under strace, as nobody where we are root."""

    def __init__(self, folder):
        self.log, self.trace = folder / "ai_proxy.log", folder / "trace"
        binary = Path(shutil.copy(BINARY, folder))
        config = folder / "config.json"
        config.write_text(json.dumps({"host": "127.0.0.1", "port": 0, "log_file": str(self.log), "log_level": "INFO",
                                      "providers": [alpha.entry], "tokens": ["e2e|" + CLIENT_TOKEN]}))
        config.chmod(0o600)
        drop = []
        if os.geteuid() == 0:
            for path in (folder, config):
                os.chown(path, NOBODY, NOBODY)
            drop = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--no-new-privs",
                    "--bounding-set=-all"]
        strace = ["strace", "-f", "-qq", "-o", str(self.trace), "-e", "trace=" + ",".join("?" + c for c in CHANGES)]
        super().__init__([*drop, *strace, str(binary), "--config", str(config)], r"listening on (\S+)")
        self.root = self.match[1]
        self.url = self.root + "/v1"

    def signal(self, number):
        children = Path("/proc/%d/task/%d/children" % (self.child.pid, self.child.pid)).read_text().split()
        os.kill(int(children[0]), number)

    def changes(self):
        """The calls that changed something, but for those that failed; the first is its own start."""
        calls = re.findall(r"^\d+\s+(\w+)\((?:AT_FDCWD, )?\"?([^\",]*)(.*)$", self.trace.read_text(), re.MULTILINE)
        for call, path, rest in calls[1:]:
            reads = call in ("open", "openat") and not re.search(r"O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", rest)
            if not reads and not re.search(r"= -1 E", rest):
                yield call, path


class Privileges(Case):
    def test_nobody_is_enough_and_the_log_is_all_it_writes(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        proxy = self.enterContext(Traced(folder))
        client = self.client(proxy)
        self.assertTrue(client.chat.completions.create(model="alpha/ok", messages=ask()).choices)
        for _ in client.chat.completions.create(model="alpha/ok", messages=ask(), stream=True):
            pass
        before = proxy.log.read_text()
        proxy.log.rename(folder / "rotated")
        proxy.signal(signal.SIGHUP)
        wait_for(proxy.log.exists, "a log anew")
        self.assertTrue(client.models.list().data)
        proxy.signal(signal.SIGTERM)
        self.assertEqual(proxy.child.wait(30), 0)
        self.assertIn("alpha", before)
        self.assertEqual(list(proxy.changes()), [("openat", str(proxy.log))] * 2)
