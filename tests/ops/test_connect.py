"""A provider whose name has an IPv6 and an IPv4 address, the IPv6 one a black hole, as behind many home routers. `test_connect` runs
itself once more on a network of its own, where it can say what the name means."""

import json
import os
import socket
import sys
import tempfile
import threading
import time
import unittest
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from harness import CLIENT_TOKEN, ConfiguredProxy, fetch, provider_key
from tools import run

INSIDE = "AI_PROXY_NETWORK_OF_ITS_OWN"
NAME = "two-families.example"
# A neighbour that the kernel sends to and that nobody is: no connection to it is refused.
HOLE = "2001:db8::2"
SETUP = """set -e
ip link set lo up
ip link add near type veth peer name far
ip link set near up
ip link set far up
ip -6 address add 2001:db8::1/64 dev near nodad
ip -6 neighbour add %s lladdr 02:00:00:00:00:02 dev near nud permanent
mount --bind "$1" /etc/hosts
exec "$0" -m unittest test_connect
""" % HOLE


class Provider(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send(b'{"data":[{"id":"m"}]}')

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send(b'{"choices":[]}')

    def send(self, body):
        # HTTP/1.0: each request is a new connection.
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def call(proxy):
    headers = {"Authorization": "Bearer " + CLIENT_TOKEN, "Content-Type": "application/json"}
    return urllib.request.Request(proxy.url + "/chat/completions", headers=headers)


@unittest.skipIf(INSIDE in os.environ, "outside")
class Outside(unittest.TestCase):
    def test_on_a_network_of_its_own(self):
        with tempfile.NamedTemporaryFile("w") as hosts:
            hosts.write("%s %s\n127.0.0.1 %s\n" % (HOLE, NAME, NAME))
            hosts.flush()
            said = run("unshare", "--net", "--mount", "sh", "-c", SETUP, sys.executable, hosts.name,
                       cwd=Path(__file__).parent, env={**os.environ, INSIDE: "1"})
            self.assertRegex(said, r"OK \(skipped=1\)")


@unittest.skipUnless(INSIDE in os.environ, "inside")
class Inside(unittest.TestCase):
    def test_silent_address_costs_the_first_connection_a_moment_and_the_others_nothing(self):
        self.assertEqual({family for family, *_ in socket.getaddrinfo(NAME, 80)}, {socket.AF_INET, socket.AF_INET6})
        server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        with self.assertRaises(TimeoutError):
            socket.create_connection((HOLE, port), timeout=1)
        provider = "p|http://%s:%d/v1|%s" % (NAME, port, provider_key("p"))
        with ConfiguredProxy([provider]) as proxy:
            begun = time.monotonic()
            self.assertEqual(json.loads(fetch(proxy.root + "/health"))["status"], "healthy")
            self.assertLess(time.monotonic() - begun, 3, "the check took seconds")
            begun = time.monotonic()
            for _ in range(20):
                self.assertEqual(json.loads(fetch(call(proxy), b'{"model":"p/m"}'))["choices"], [])
            self.assertLess(time.monotonic() - begun, 20 * 0.2, "the address that connected was not remembered")
        server.shutdown()
