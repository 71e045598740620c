"""`docs/openapi.json` says what the proxy does: schemathesis makes calls from it, some of which it forbids, and compares."""

import json
import subprocess
import sys
import tempfile
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from harness import CLIENT_TOKEN, ConfiguredProxy, provider_key

PAGE = Path(__file__).resolve().parents[3] / "docs/openapi.json"
SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"
# The same calls in every run, about a second for each operation.
SEED, EXAMPLES = 1, 4
LIMIT = 280.0  # seconds: far above what it takes
# Without a rule of ours: a provider decides what it accepts beside `model`, and what a call without a body means.
UNCHECKED = "negative_data_rejection"


class Provider(BaseHTTPRequestHandler):
    """Takes every call, whatever stands beside `model`."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send("application/json", {"object": "list", "data": [{"id": "ok", "object": "model"}]})

    do_DELETE = do_GET

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.endswith("/audio/speech"):
            self.send("audio/mpeg", b"sound")
        elif self.is_streamed(body):
            self.send("text/event-stream", b'event: response.completed\ndata: {"type":"response.completed"}\n\n')
        else:
            self.send("application/json", {"id": "resp_1"})

    def is_streamed(self, body):
        if self.headers.get_content_type() == "application/json":
            return json.loads(body or b"{}").get("stream") is True
        return b'name="stream"\r\n\r\ntrue' in body

    def send(self, kind, content):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Description(unittest.TestCase):
    def test_every_call_is_responded_to_as_described(self):
        description = json.loads(PAGE.read_text())
        # Every second call names a model that is there: the others get no farther than its name.
        for name in ("Named", "NamedForm", "MaybeNamed"):
            members = description["components"]["schemas"][name]["properties"]
            members["model"] = {"anyOf": [{"enum": ["alpha/ok", "usual"]}, members["model"]]}
        server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        url = "http://127.0.0.1:%d/v1" % server.server_address[1]
        # One that speaks all APIs: what translation demands of a body is not in the description.
        alpha = {"name": "alpha", "url": url, "anthropic_url": url, "responses": "native", "key": provider_key("alpha")}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "openapi.json"
            path.write_text(json.dumps(description))
            with ConfiguredProxy([alpha], models={"usual": "alpha/ok"}) as proxy:
                done = subprocess.run(
                    [SCHEMATHESIS, "run", path, "--url", proxy.root, "--header", "Authorization: Bearer " + CLIENT_TOKEN,
                     "--seed", str(SEED), "--max-examples", str(EXAMPLES), "--exclude-checks", UNCHECKED, "--no-color",
                     "--generation-database", "none"],
                    cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("Tested: %d" % sum(map(len, description["paths"].values())), done.stdout)
