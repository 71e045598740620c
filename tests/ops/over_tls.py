"""A provider that speaks TLS, with a certificate that an authority of its own has signed."""

import json
import ssl
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from harness import provider_key
from in_front import Certificates


class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send({"object": "list", "data": [{"id": "ok", "object": "model"}]})

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send({"choices": [], "said": "over TLS"})

    def send(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class OverTls:
    """Serves on loopback, as `host`."""

    def __init__(self, host):
        self.host = host

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        certificates = Certificates(self.folder.name, self.host)
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates.chain, certificates.key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.entry = {"name": "tls", "url": "https://%s:%d/v1" % (self.host, self.server.server_address[1]),
                      "key": provider_key("tls"), "ca_file": str(certificates.authority)}
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
        self.folder.cleanup()
