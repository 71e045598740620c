"""The static binary in a root directory with nothing else in it; `test_dist.py` runs this on a network of its own, where port
53 is free. Without /etc the C library asks 127.0.0.1 for names, as resolv.conf(5) has it."""

import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

from harness import CLIENT_TOKEN, DEADLINE, Process, ask, wait_for
from in_front import HOST
from over_tls import OverTls

STATIC = os.environ["AI_PROXY_STATIC"]


class Names(threading.Thread):
    """A name server that knows HOST alone, by its IPv4 address."""

    def __init__(self):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 53))
        self.asked = set()

    def run(self):
        while True:
            query, client = self.socket.recvfrom(512)
            labels, at = [], 12
            while query[at]:
                labels.append(query[at + 1:at + 1 + query[at]].decode())
                at += 1 + query[at]
            name, kind = ".".join(labels).lower(), struct.unpack("!H", query[at + 1:at + 3])[0]
            self.asked.add(name)
            answers = [b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + b"\x7f\0\0\1"] if (name, kind) == (HOST, 1) else []
            flags = 0x8180 if name == HOST else 0x8183  # NXDOMAIN
            head = query[:2] + struct.pack("!HHHHH", flags, 1, len(answers), 0, 0)
            self.socket.sendto(head + query[12:at + 5] + b"".join(answers), client)


class EmptyRoot(unittest.TestCase):
    def setUp(self):
        self.root = Path(self.enterContext(tempfile.TemporaryDirectory()))
        subprocess.run(["install", "-D", STATIC, self.root / "ai-proxy"], check=True)
        (self.root / "log").mkdir()
        self.names = Names()
        self.names.start()
        server = self.enterContext(OverTls(HOST))
        (self.root / "ca.pem").write_bytes(Path(server.entry["ca_file"]).read_bytes())
        provider = {**server.entry, "ca_file": "/ca.pem"}
        config = {
            "host": "127.0.0.1", "port": 0, "log_file": "/log/ai_proxy.log", "log_level": "INFO", "language": "en",
            "tokens": ["e2e|" + CLIENT_TOKEN],
            "providers": [provider, {**provider, "name": "lost", "url": "https://nowhere.example/v1"},
                          {"name": "stranger", "url": provider["url"], "key": ""}],
        }
        (self.root / "config.json").write_text(json.dumps(config))
        self.proxy = self.enterContext(
            Process(["chroot", str(self.root), "/ai-proxy", "--config", "/config.json"], r"listening on http://(\S+)"))

    def chat(self, model):
        connection = http.client.HTTPConnection(self.proxy.match[1], timeout=DEADLINE)
        self.addCleanup(connection.close)
        body = {"model": model, "messages": ask()}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Authorization": "Bearer " + CLIENT_TOKEN})
        answer = connection.getresponse()
        return answer.status, json.load(answer)

    def logged(self, words):
        return wait_for(lambda: [line for line in (self.root / "log/ai_proxy.log").read_text().splitlines() if words in line],
                        "a line with " + words)

    def test_names_tls_and_the_log(self):
        self.assertEqual(sorted(path.name for path in self.root.iterdir()), ["ai-proxy", "ca.pem", "config.json", "log"])
        status, answer = self.chat("tls/ok")
        self.assertEqual((status, answer.get("said")), (200, "over TLS"), answer)
        self.assertIn(HOST, self.names.asked)
        self.logged("provider=tls model=tls/ok status=200")
        # A name that does not exist, and a certificate that nobody vouches for.
        for model in ("lost/ok", "stranger/ok"):
            status, answer = self.chat(model)
            self.assertEqual((status, answer["error"]["reason"]), (502, "upstream_unreachable"), model)

        # A rotated log.
        (self.root / "log/ai_proxy.log").rename(self.root / "log/old")
        self.proxy.child.send_signal(signal.SIGHUP)
        wait_for((self.root / "log/ai_proxy.log").exists, "the log to be opened anew")
        self.chat("tls/ok")
        self.logged("status=200")

        self.proxy.child.terminate()
        self.assertEqual(self.proxy.child.wait(DEADLINE), 0)
