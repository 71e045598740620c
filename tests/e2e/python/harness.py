"""Starts what a test talks to, on free loopback ports, and stops it: the scripted upstream and the proxy."""

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.request
from pathlib import Path

import openai

BINARY = os.environ["AI_PROXY_BIN"]
UPSTREAM = Path(__file__).resolve().parent.parent / "upstream.py"
CLIENT_TOKEN = "sk-client-token-0123456789"
DEADLINE = 15.0  # seconds: nothing here takes as long unless it is broken


def wait_for(condition, what, within=DEADLINE):
    """Waits for an event that nothing announces; the answer is what `condition` returned."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError("waited %g s in vain: %s" % (within, what))


def provider_key(name):
    return "sk-provider-key-of-%s" % name


class Process:
    """A child whose first line of stdout tells where it listens."""

    def __init__(self, command, first_line, stdin=subprocess.DEVNULL):
        self.stdout = []
        # What the children log goes to one file, which the run shows when something failed.
        with open(os.environ["E2E_LOG"], "ab") as log:
            self.child = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=log)
        self.announced = threading.Event()
        self.match = None
        self.reader = threading.Thread(target=self.read_stdout, args=(re.compile(first_line),), daemon=True)
        self.reader.start()
        if not self.announced.wait(DEADLINE) or not self.match:
            self.stop()
            raise AssertionError("%s never said where it listens, but %s" % (command, self.stdout))

    def read_stdout(self, first_line):
        # Reads on to the end: a child that fills an unread pipe would stop.
        with self.child.stdout as lines:
            for raw in lines:
                line = raw.decode().rstrip("\n")
                self.stdout.append(line)
                if not self.match:
                    self.match = first_line.search(line)
                    if self.match:
                        self.announced.set()
        self.announced.set()

    def stop(self):
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait()
        if self.child.stdin:
            self.child.stdin.close()
        self.reader.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Upstream(Process):
    def __init__(self, name):
        super().__init__([sys.executable, "-B", str(UPSTREAM), "--name", name], r"^(\d+)$", subprocess.PIPE)
        self.name = name
        self.root = "http://127.0.0.1:" + self.match[1]
        self.entry = "%s|%s/v1|%s" % (name, self.root, provider_key(name))

    def forget(self):
        fetch(self.root + "/_forget", b"")

    def open_gate(self, name):
        fetch(self.root + "/_open/" + name, b"")

    def seen(self, method="POST"):
        """The requests to this provider since `forget`, with bodies as bytes and headers as a dict."""
        requests = json.loads(fetch(self.root + "/_seen"))
        return [{**r, "body": base64.b64decode(r["body"]), "headers": {k.lower(): v for k, v in r["headers"]}}
                for r in requests if r["method"] == method]


class Proxy(Process):
    def __init__(self, *arguments):
        super().__init__([BINARY, *arguments], r"listening on (\S+)")
        self.root = self.match[1].rstrip("/")
        self.url = self.root + "/v1"

    def signal(self, number):
        self.child.send_signal(number)

    def terminate(self):
        self.signal(signal.SIGTERM)

    def exit_code(self):
        return self.child.wait(DEADLINE)


class Demo(Proxy):
    def __init__(self):
        super().__init__("demo", "--port", "0")


class ConfiguredProxy(Proxy):
    """The proxy with a config file as an operator writes it. `settings` come on top of what every test needs."""

    def __init__(self, providers, **settings):
        self.folder = tempfile.TemporaryDirectory()
        self.config = Path(self.folder.name) / "config.json"
        self.settings = {"host": "127.0.0.1", "port": 0, "log_file": None, "log_level": "DEBUG",
                         "tokens": ["e2e|" + CLIENT_TOKEN], **settings}
        self.write(providers)
        super().__init__("--config", str(self.config))

    def write(self, providers, **changes):
        self.config.touch(mode=0o600)  # it holds keys; the proxy warns when others can read it
        self.config.write_text(json.dumps({**self.settings, **changes, "providers": providers}))

    def reload(self):
        return json.loads(fetch(self.root + "/v1/reload", b""))

    def stop(self):
        super().stop()
        self.folder.cleanup()


def fetch(url, body=None):
    """A call past the SDK: to the upstream's controls, and to what the SDK has no name for."""
    with urllib.request.urlopen(url, body, timeout=DEADLINE) as answer:
        return answer.read()


def unreachable_url():
    """The URL of a port that refuses connections, held so that nobody else gets it; keep the socket."""
    held = socket.socket()
    held.bind(("127.0.0.1", 0))
    return held, "http://127.0.0.1:%d/v1" % held.getsockname()[1]


class Counter:
    """An HTTP client for the SDK that keeps what was really sent, retries included."""

    def __init__(self):
        self.sent = []
        self.http = openai.DefaultHttpx2Client(event_hooks={"request": [self.sent.append]})

    def bodies(self):
        return [request.content for request in self.sent]


def client(proxy, token=CLIENT_TOKEN, **options):
    """Without retries unless asked for: a retry would hide what a test wants to see."""
    return openai.OpenAI(base_url=proxy.url, api_key=token, **{"max_retries": 0, "timeout": DEADLINE, **options})


def ask(text="hello there"):
    return [{"role": "user", "content": text}]


def text_of(chunks):
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


class Case(unittest.TestCase):
    """Closes what `enter` and `client` opened, also when the test failed."""

    def client(self, *arguments, **options):
        return self.enterContext(client(*arguments, **options))


def for_module(context):
    """Enters `context` for the tests of the calling module; to be used in its setUpModule."""
    return unittest.enterModuleContext(context)
