"""What must hold with any web server in front of ai-proxy that ends TLS; each one's test adds how it is started."""

import http.client
import json
import random
import socket
import ssl
import subprocess
import tempfile
import unittest
from pathlib import Path

from harness import CLIENT_TOKEN, DEADLINE, ConfiguredProxy, Upstream, ask, wait_for
from tools import run

HOST = "ai.example.com"


def own_address():
    """An address of this machine that nobody else here uses, so that a port on it stays ours between two starts."""
    return "127.%d.%d.%d" % (random.randint(1, 254), random.randint(1, 254), random.randint(2, 254))


class Certificates:
    """An authority, and a certificate by it for a host."""

    def __init__(self, folder, host=HOST):
        self.authority, self.key, self.chain = (Path(folder) / name for name in ("ca.pem", "key.pem", "chain.pem"))
        authority_key, request = Path(folder) / "ca.key", Path(folder) / "request.pem"
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=test authority", "-keyout", authority_key, "-out", self.authority)
        run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=" + host,
            "-addext", "subjectAltName=DNS:" + host, "-keyout", self.key, "-out", request)
        run("openssl", "x509", "-req", "-in", request, "-CA", self.authority, "-CAkey", authority_key, "-days", "2",
            "-copy_extensions", "copy", "-out", self.chain)
        self.both = Path(folder) / "both.pem"
        self.both.write_text(self.chain.read_text() + self.key.read_text())


class Server:
    """A web server that runs in the foreground."""

    def __init__(self, log, *command):
        self.log = log
        with open(log, "ab") as out:
            self.child = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=out, stderr=out)

    def wait_until_up(self, connect):
        """Waits until it passes a call on to an ai-proxy."""
        def up():
            if self.child.poll() is not None:
                raise AssertionError(Path(self.log).read_text())
            try:
                with connect() as connection:
                    return connection.get("/healthz").status == 200
            except OSError:
                return False
        wait_for(up, "the server to serve")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.terminate()
        try:
            self.child.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Calls:
    """What a client calls, beside `http.client`; closes itself."""

    token = CLIENT_TOKEN

    def get(self, path):
        self.request("GET", path)
        return self.getresponse()

    def chat(self, model, stream=False, text="hello there"):
        body = {"model": model, "messages": ask(text), "stream": stream}
        self.request("POST", "/v1/chat/completions", json.dumps(body),
                     {"Authorization": "Bearer " + self.token, "Content-Type": "application/json"})
        return self.getresponse()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Plain(Calls, http.client.HTTPConnection):
    """A client's connection to ai-proxy itself."""

    def __init__(self, address, token):
        super().__init__(address, timeout=DEADLINE)
        self.token = token


class Connection(Calls, http.client.HTTPSConnection):
    """A client's connection over TLS to HOST, which is at `address`."""

    def __init__(self, certificates, address, port):
        super().__init__(HOST, port, timeout=DEADLINE, context=ssl.create_default_context(cafile=certificates.authority))
        self.address = address

    def connect(self):
        plain = socket.create_connection((self.address, self.port), self.timeout)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._context.wrap_socket(plain, server_hostname=HOST)


def next_event(answer):
    """The next event of a stream, as soon as it is whole, comments left out; empty at its end."""
    event = b""
    while event.startswith(b":") or not event.endswith(b"\n\n"):
        if event.endswith(b"\n\n"):
            event = b""
        line = answer.readline()
        if not line:
            break
        event += line
    return event


class InFront:
    """The tests; a subclass has `serve(folder, certificates, address, port, upstream)`, which gives a Server."""

    @classmethod
    def setUpClass(cls):
        cls.folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        cls.certificates = Certificates(cls.folder)
        cls.upstream = cls.enterClassContext(Upstream("alpha"))
        cls.proxy = cls.enterClassContext(ConfiguredProxy([cls.upstream.entry], stream_heartbeat=1))
        cls.address, cls.port = own_address(), 8443
        cls.server = cls.enterClassContext(
            cls.serve(Path(cls.folder), cls.certificates, cls.address, cls.port, cls.proxy.root.removeprefix("http://")))

        cls.server.wait_until_up(lambda: Connection(cls.certificates, cls.address, cls.port))

    def connection(self):
        return self.enterContext(Connection(self.certificates, self.address, self.port))

    def test_whole_answers_and_errors_pass(self):
        connection = self.connection()
        answer = connection.chat("alpha/ok")
        self.assertEqual(answer.status, 200)
        self.assertEqual(json.load(answer)["choices"][0]["message"]["content"], "alpha: hello there")
        answer = connection.chat("nobody/ok")
        self.assertEqual(json.load(answer)["error"]["reason"], "model_not_found")
        answer = connection.get("/v1/models/alpha%2Fok")
        self.assertEqual((answer.status, json.load(answer)["id"]), (200, "alpha/ok"))

    def test_an_event_arrives_before_the_next_is_sent(self):
        gate = "front"
        self.addCleanup(self.upstream.open_gate, gate)
        answer = self.connection().chat("alpha/gated-" + gate, stream=True)
        self.assertEqual(answer.getheader("Content-Type").partition(";")[0], "text/event-stream")
        # The provider sends nothing more until the gate opens: with a buffer on the way this would wait in vain.
        self.assertTrue(next_event(answer).startswith(b"data: {"))
        self.upstream.open_gate(gate)
        rest = answer.read()
        self.assertTrue(rest.endswith(b"data: [DONE]\n\n"), rest)

    def test_a_broken_stream_has_its_error_event_and_no_clean_end(self):
        answer = self.connection().chat("alpha/break-mid-stream", stream=True)
        events = [next_event(answer) for _ in range(4)]
        self.assertIn(b'"upstream_broken"', events[-1])
        self.check_end(answer)

    def check_end(self, answer):
        with self.assertRaises((http.client.IncompleteRead, ConnectionError, ssl.SSLError)):
            answer.read()

    def test_a_large_request_passes(self):
        self.assertEqual(self.connection().chat("alpha/ok", text="x" * (4 << 20)).status, 200)

    def test_a_caller_from_outside_is_no_admin(self):
        for path in ("/v1/reload", "/v1/reload/", "//v1/reload", "/v1/%72eload", "/x/../v1/reload"):
            connection = self.connection()
            connection.request("POST", path, "")
            self.assertIn(connection.getresponse().status, (400, 401, 403, 404), path)

    # nginx and HAProxy see it at once, Caddy when the next heartbeat cannot be delivered.
    def test_a_client_that_leaves_closes_the_way_to_the_provider(self):
        self.upstream.forget()
        connection = self.connection()
        answer = connection.chat("alpha/stalled", stream=True)
        next_event(answer)
        answer.close()
        connection.close()
        wait_for(lambda: any(request["gone"] for request in self.upstream.seen()), "the provider to be left too")
