"""Pages of other origins that call the proxy from a real browser: see `cors.mjs`."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from browser import passes
from harness import CLIENT_TOKEN, Case, ConfiguredProxy, Upstream, for_module


class EmptyPage(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>a page</title>")

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def website():
    """The origin of a website that has an empty page."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), EmptyPage)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield "http://127.0.0.1:%d" % server.server_port
    server.shutdown()
    server.server_close()


def setUpModule():
    global alpha, beta
    alpha, beta = for_module(Upstream("alpha")), for_module(Upstream("beta"))


class Pages(Case):
    def test_in_a_browser(self):
        page, other = self.enterContext(website()), self.enterContext(website())
        tokens = ["e2e|" + CLIENT_TOKEN, {"name": "slow", "token": CLIENT_TOKEN + "-slow", "rpm": 1}]
        proxies = [self.enterContext(ConfiguredProxy([alpha.entry, beta.entry], cors_origins=origins, tokens=tokens,
                                                     language="en")) for origins in ([page], ["*"], [])]
        named, any_origin, closed = (proxy.root for proxy in proxies)
        passes("cors.mjs", PAGE=page, OTHER=other, NAMED=named, ANY=any_origin, CLOSED=closed, TOKEN=CLIENT_TOKEN)
