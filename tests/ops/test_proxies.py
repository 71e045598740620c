"""A provider behind a forward proxy: Debian's tinyproxy (HTTP CONNECT) and microsocks (SOCKS5), named by the provider or by the
environment, with a password and without."""

import os
import socket
import subprocess
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import openai

from harness import Case, ConfiguredProxy, Upstream, ask, for_module, provider_key, text_of, wait_for

USER = "proxy-user"
# The password, and how it stands in a URL; tinyproxy takes letters, digits, dots and dashes alone.
PASSWORDS = {"http": ("pass-word.5ecret", "pass-word.5ecret"),
             "socks5": ("pass/w%rd:5ecret", "pass%2Fw%25rd%3A5ecret"),
             "socks5h": ("pass/w@rd 5ecret", "pass%2Fw%40rd%205ecret")}


def setUpModule():
    global upstream
    upstream = for_module(Upstream("alpha"))


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


class Forward:
    """A forward proxy in the foreground; what it says of its connections goes to a file."""

    def __init__(self, folder, scheme, login):
        self.scheme, self.password = scheme, PASSWORDS[scheme][0]
        self.login = "%s:%s@" % (USER, PASSWORDS[scheme][1]) if login else ""
        self.port = free_port()
        self.log = Path(folder) / ("%s-%d.log" % (scheme, self.port))
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(self.command(Path(folder), login), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_for(self.is_up, "%s to listen" % scheme)

    def command(self, folder, login):
        if self.scheme != "http":
            return ["microsocks", "-i", "127.0.0.1", "-p", str(self.port),
                    *(["-u", USER, "-P", self.password] if login else [])]
        config = folder / ("tinyproxy-%d.conf" % self.port)
        # Without a ConnectPort line it connects to any port.
        lines = ["Port %d" % self.port, "Listen 127.0.0.1", "Timeout 60", "MaxClients 50", "LogLevel Info"]
        if login:
            lines.append('BasicAuth %s %s' % (USER, self.password))
        config.write_text("\n".join(lines) + "\n")
        return ["tinyproxy", "-d", "-c", str(config)]

    def is_up(self):
        if self.child.poll() is not None:
            raise AssertionError(self.log.read_text())
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def url(self, login=None):
        return "%s://%s127.0.0.1:%d" % (self.scheme, self.login if login is None else login, self.port)

    def went_through(self):
        """Whether it says that it has connected somebody to the provider."""
        port = upstream.root.rsplit(":", 1)[1]
        return any(port in line for line in self.log.read_text(errors="replace").splitlines())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.terminate()
        self.child.wait()


class Proxies(Case):
    def setUp(self):
        self.folder = self.enterContext(tempfile.TemporaryDirectory())

    def with_each(self, act):
        for scheme in ("http", "socks5", "socks5h"):
            for login in (False, True):
                with self.subTest(scheme, login=login), Forward(self.folder, scheme, login) as forward:
                    act(forward)

    def provider(self, **more):
        return {"name": "alpha", "url": upstream.root + "/v1", "key": provider_key("alpha"), **more}

    def serves(self, provider, **environment):
        with mock.patch.dict(os.environ, environment):
            started = ConfiguredProxy([provider], log_level="INFO")
        with started as proxy:
            client = self.client(proxy)
            whole = client.chat.completions.create(model="alpha/m", messages=ask())
            self.assertTrue(whole.choices[0].message.content)
            stream = client.chat.completions.create(model="alpha/m", messages=ask(), stream=True)
            self.assertTrue(text_of(stream))
            self.assertIn("alpha/", client.models.list().data[0].id)

    def assert_no_password(self):
        said = Path(os.environ["E2E_LOG"]).read_text()
        for secret in {secret for forms in PASSWORDS.values() for secret in forms}:
            self.assertNotIn(secret, said)

    def test_the_providers_own(self):
        def act(forward):
            self.serves(self.provider(proxy=forward.url()))
            wait_for(forward.went_through, "a line of its log")

        self.with_each(act)
        self.assert_no_password()

    def test_the_environments(self):
        def act(forward):
            self.serves(self.provider(), ALL_PROXY=forward.url())
            wait_for(forward.went_through, "a line of its log")

        self.with_each(act)
        self.assert_no_password()

    def test_the_exceptions(self):
        with Forward(self.folder, "http", True) as forward:
            self.serves(self.provider(), http_proxy=forward.url(), no_proxy="example.com,127.0.0.1")
            self.serves(self.provider(proxy="direct"), http_proxy=forward.url())
            self.assertFalse(forward.went_through())

    def test_a_wrong_password_is_told_and_not_shown(self):
        def act(forward):
            if not forward.login:
                return
            wrong = forward.url(login=forward.login.replace("5ecret", "5ecre7"))
            with ConfiguredProxy([self.provider(proxy=wrong)], max_retries=0, language="en") as proxy:
                with self.assertRaises(openai.APIStatusError) as raised:
                    self.client(proxy).chat.completions.create(model="alpha/m", messages=ask())
                self.assertEqual(raised.exception.status_code, 502)
                self.assertEqual(raised.exception.body["reason"], "upstream_unreachable")

        self.with_each(act)
        self.assertNotIn("5ecre7", Path(os.environ["E2E_LOG"]).read_text())
