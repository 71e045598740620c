"""A server of somebody else's, as a provider: started, waited for, stopped."""

import os
import socket
import subprocess
import time
import unittest
import urllib.error
import urllib.request
from pathlib import Path

PATIENCE = 240.0  # seconds: one takes half a minute to start on a busy machine


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


class Provider:
    """`command` gets `--host` and `--port` behind it; `alive` is a path that answers once it serves."""

    def __init__(self, command, alive, folder, **environment):
        port = free_port()
        self.root = "http://127.0.0.1:%d" % port
        # Apart from the proxies' log, in which no key may stand.
        log = os.environ["E2E_LOG"] + ".provider"
        beside = "%s:%s" % (Path(command[0]).parent, os.environ["PATH"])
        with open(log, "wb") as out:
            self.child = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)], stdin=subprocess.DEVNULL,
                                          stdout=out, stderr=out, cwd=folder, env={**os.environ, "PATH": beside, **environment})
        unittest.addModuleCleanup(self.stop)
        until = time.monotonic() + PATIENCE
        while not self.answers(alive):
            if self.child.poll() is not None or time.monotonic() > until:
                raise AssertionError("%s did not start; its log is %s" % (command[0], log))
            time.sleep(0.5)

    def answers(self, path):
        try:
            with urllib.request.urlopen(self.root + path, timeout=5):
                return True
        except urllib.error.HTTPError:
            return True  # it serves, and wants a key
        except OSError:
            return False

    def stop(self):
        self.child.kill()
        self.child.wait()
