"""The scripts for runit, s6 and OpenWrt under the programs that run them; for OpenWrt's procd a stand-in."""

import json
import os
import signal
import socket
import subprocess
import tempfile
import unittest
from pathlib import Path

from harness import BINARY, Upstream, fetch, for_module, wait_for
from in_front import own_address
from tools import DEPLOY, replaced, run


def setUpModule():
    global upstream
    upstream = for_module(Upstream("alpha"))


class Supervised(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        (self.folder / "log").mkdir()
        (self.folder / "env").mkdir()
        # A value for the config as these supervisors hand it over: a file of that name.
        (self.folder / "env" / "ALPHA").write_text(upstream.entry + "\n")
        self.config = self.folder / "config.json"
        self.address = own_address()
        self.write(["${ALPHA}"])

    def write(self, providers):
        self.config.write_text(json.dumps({
            "host": self.address, "port": 8080, "log_file": "ai_proxy.log", "log_level": "INFO", "language": "en",
            "providers": providers}))
        self.config.chmod(0o600)

    def service(self, name, tools):
        """The service directory as it would be installed, with this test's places in it."""
        service = self.folder / "service"
        service.mkdir()
        for script in (DEPLOY / name).iterdir():
            changes = {"/usr/local/bin/ai-proxy": BINARY, "/etc/ai-proxy/config.json": str(self.config),
                       "/etc/ai-proxy/env.d": str(self.folder / "env"), "/var/log/ai-proxy": str(self.folder / "log"), **tools}
            text = replaced(script, changes if script.name == "run" else {})
            (service / script.name).write_text(text)
            (service / script.name).chmod(0o755)
        return service

    def supervise(self, *command):
        with open(os.environ["E2E_LOG"], "ab") as log:
            child = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.addCleanup(child.wait)
        self.addCleanup(child.terminate)
        return child

    def serves(self):
        try:
            return json.loads(fetch("http://%s:8080/healthz" % self.address)) == {"status": "ok"}
        except OSError:
            return False

    def is_gone(self):
        with socket.socket() as caller:
            return caller.connect_ex((self.address, 8080)) != 0

    def logged(self, words):
        log = self.folder / "log" / "ai_proxy.log"
        wait_for(lambda: log.exists() and words in log.read_text(), "a line with " + words)

    def hold_to(self, pid, reload, stop, start, is_down):
        wait_for(self.serves, "a first start")
        reload()
        self.logged("configuration reloaded")
        # Killed: started anew.
        first = pid()
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: self.serves() and pid() != first, "a second start")
        stop()
        wait_for(self.is_gone, "the stop")
        # A bad config: tried once, then left down.
        self.write([])
        start()
        wait_for(is_down, "it to be left down")
        self.assertFalse(self.serves())

    def test_runit(self):
        service = self.service("runit", {"-u ai-proxy ": ""})
        runsv = self.supervise("runsv", service)
        self.addCleanup(subprocess.run, ["sv", "force-shutdown", service], stdout=subprocess.DEVNULL, check=False)

        def status():
            return run("sv", "status", service) if runsv.poll() is None else ""
        self.hold_to(pid=lambda: int((service / "supervise/pid").read_text() or 0),
                     reload=lambda: run("sv", "hup", service),
                     stop=lambda: run("sv", "down", service), start=lambda: run("sv", "up", service),
                     is_down=lambda: status().startswith("down:") and "want up" not in status())

    def test_s6(self):
        service = self.service("s6", {"s6-setuidgid ai-proxy ": ""})
        self.supervise("s6-supervise", service)
        self.addCleanup(subprocess.run, ["s6-svc", "-xd", service], check=False)
        self.hold_to(pid=lambda: int(run("s6-svstat", "-o", "pid", service)),
                     reload=lambda: run("s6-svc", "-h", service),
                     stop=lambda: run("s6-svc", "-d", service), start=lambda: run("s6-svc", "-u", service),
                     is_down=lambda: run("s6-svstat", "-o", "up,wantedup,exitcode", service).split() == ["false", "false", "2"])

    def test_openwrt(self):
        """What the script asks of procd, and that the command it names serves. procd itself is not here."""
        self.write([upstream.entry])
        script = self.folder / "openwrt.init"
        script.write_text(replaced(DEPLOY / "openwrt.init", {
            "PROG=/usr/bin/ai-proxy": "PROG=" + BINARY, "CONFIG=/etc/ai-proxy/config.json": "CONFIG=%s" % self.config}))
        stand_in = """
            procd_open_instance() { echo open; }
            procd_set_param() { echo "$@"; }
            procd_close_instance() { echo close; }
            procd_send_signal() { echo signal "$@"; }
            . "$1" && "$2"
        """

        def call(name):
            return run("sh", "-c", stand_in, "sh", script, name).splitlines()
        said = call("start_service")
        self.assertEqual((said[0], said[-1]), ("open", "close"))
        command, = [line.split()[1:] for line in said if line.startswith("command ")]
        self.assertEqual(call("reload_service"), ["signal ai-proxy * HUP"])
        self.supervise(*command)
        wait_for(self.serves, "the command to serve")
        # A bad config is not handed to procd.
        self.write([])
        with self.assertRaises(AssertionError):
            call("start_service")
