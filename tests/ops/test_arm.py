"""The static binaries for ARM, each run by qemu: it serves, relays, streams, reloads, drains, and speaks TLS to a provider.

`make arm` builds them with Debian's cross-compilers; CI does so in the dev profile, which also checks arithmetic on 32 bits."""

import http.client
import json
import os
import signal
import tempfile
import unittest
from pathlib import Path

from harness import CLIENT_TOKEN, DEADLINE, Process, Upstream, ask, fetch, for_module, wait_for
from over_tls import OverTls
from tools import ROOT, run

BUILD = 2000.0  # seconds for two builds on a machine with other things to do
# What `file` says of the binary: 64 bits or 32, and the machine.
MACHINES = {
    "aarch64-unknown-linux-gnu": ("qemu-aarch64-static", "ELF64", "AArch64"),
    "armv7-unknown-linux-gnueabihf": ("qemu-arm-static", "ELF32", "ARM"),
}


def setUpModule():
    global alpha, tls
    environment = {name: value for name, value in os.environ.items() if name not in ("CARGO_TARGET_DIR", "RUSTFLAGS")}
    run("make", "--no-print-directory", "arm", cwd=ROOT, env={"CROSS_PROFILE": "dev", **environment}, patience=BUILD)
    alpha, tls = for_module(Upstream("alpha")), for_module(OverTls("localhost"))


class Machine:
    """What holds on each machine; `target` names it."""

    def setUp(self):
        qemu, *_ = MACHINES[self.target]
        self.binary = ROOT / "target/static" / self.target / "ai-proxy"
        self.config = Path(self.enterContext(tempfile.TemporaryDirectory())) / "config.json"
        self.write(models={"usual": "alpha/ok"})
        command = [qemu, str(self.binary), "--config", str(self.config)]
        self.proxy = self.enterContext(Process(command, r"listening on http://([^/\s]+)"))

    def write(self, **changes):
        self.config.touch(mode=0o600)
        self.config.write_text(json.dumps({
            "host": "127.0.0.1", "port": 0, "log_file": None, "language": "en", "tokens": ["e2e|" + CLIENT_TOKEN],
            "providers": [alpha.entry, tls.entry], **changes}))

    def ask(self, model, **more):
        """The response to a call, its body unread."""
        connection = http.client.HTTPConnection(self.proxy.match[1], timeout=DEADLINE)
        self.addCleanup(connection.close)
        body = json.dumps({"model": model, "messages": ask(), **more})
        connection.request("POST", "/v1/chat/completions", body, {"Authorization": "Bearer " + CLIENT_TOKEN})
        return connection.getresponse()

    def chat(self, model):
        response = self.ask(model)
        return response.status, json.load(response)

    def test_the_binary_is_static_and_of_that_machine(self):
        _, bits, machine = MACHINES[self.target]
        head = run("readelf", "--file-header", "--program-headers", "--wide", self.binary)
        self.assertRegex(head, r"Class: +%s\n" % bits)
        self.assertRegex(head, r"Machine: +%s\n" % machine)
        self.assertNotIn("INTERP", head)

    def test_it_relays_a_buffered_response_and_an_error(self):
        status, answer = self.chat("alpha/ok")
        self.assertEqual((status, answer["object"]), (200, "chat.completion"), answer)
        status, answer = self.chat("alpha/status-429")
        self.assertEqual(status, 429, answer)
        status, answer = self.chat("nobody/ok")
        self.assertEqual((status, answer["error"]["type"]), (404, "http_error"), answer)

    def test_an_event_arrives_before_the_next_is_sent(self):
        response = self.ask("alpha/gated-" + self.target, stream=True)
        self.assertEqual(response.status, 200)
        self.assertTrue(response.readline().startswith(b"data: {"))
        alpha.open_gate(self.target)
        rest = response.read()
        self.assertTrue(rest.endswith(b"data: [DONE]\n\n"), rest[-100:])

    def test_it_speaks_tls_to_a_provider(self):
        status, answer = self.chat("tls/ok")
        self.assertEqual((status, answer.get("said")), (200, "over TLS"), answer)

    def test_a_reload_changes_the_config(self):
        self.assertEqual(self.chat("usual")[0], 200)
        self.assertEqual(self.chat("other")[0], 404)
        self.write(models={"other": "alpha/ok"})
        self.assertEqual(json.loads(fetch("http://%s/v1/reload" % self.proxy.match[1], b""))["restart_required"], [])
        self.assertEqual(self.chat("other")[0], 200)
        self.write(models={"usual": "alpha/ok"})
        self.proxy.child.send_signal(signal.SIGHUP)
        wait_for(lambda: self.chat("usual")[0] == 200, "the reload by signal")

    def test_a_stream_ends_before_the_drained_process_does(self):
        gate = "drained-" + self.target
        response = self.ask("alpha/gated-" + gate, stream=True)
        self.assertTrue(response.readline().startswith(b"data: {"))
        self.proxy.child.terminate()
        alpha.open_gate(gate)
        self.assertTrue(response.read().endswith(b"data: [DONE]\n\n"))
        self.assertEqual(self.proxy.child.wait(DEADLINE), 0)


class Arm64(Machine, unittest.TestCase):
    target = "aarch64-unknown-linux-gnu"


class ArmHardFloat(Machine, unittest.TestCase):
    target = "armv7-unknown-linux-gnueabihf"
