"""What docs/operations.md has an operator do while the proxy serves, and what it promises of that."""

import re
import signal
import unittest

from harness import CLIENT_TOKEN, ConfiguredProxy, Upstream, provider_key, wait_for
from in_front import Plain
from load import Load
from tools import DEPLOY, ROOT

PAGE = ROOT / "docs" / "operations.md"
NEW_KEY = "sk-provider-key-of-alpha-new"
NEW_TOKEN = "sk-client-token-new-9876543210"


class Rotation(unittest.TestCase):
    def setUp(self):
        self.upstream = self.enterContext(Upstream("alpha"))
        self.proxy = self.enterContext(ConfiguredProxy([self.upstream.entry]))

    def connect(self, token=CLIENT_TOKEN):
        return Plain(self.proxy.root.removeprefix("http://"), token)

    def keys(self):
        return {request["headers"]["authorization"].removeprefix("Bearer ") for request in self.upstream.seen()}

    def test_a_providers_key_is_changed_and_no_request_is_lost(self):
        with Load(self.connect) as load:
            load.goes_on()
            self.assertEqual(self.keys(), {provider_key("alpha")})
            self.proxy.write([self.upstream.entry.replace(provider_key("alpha"), NEW_KEY)])
            self.assertEqual(self.proxy.reload()["restart_required"], [])
            # What is in flight ends with the old key; what begins has the new one.
            load.goes_on()
            self.upstream.forget()
            load.goes_on()
            self.assertEqual(self.keys(), {NEW_KEY})
            # And back, by the signal.
            self.proxy.write([self.upstream.entry])
            self.proxy.signal(signal.SIGHUP)
            wait_for(lambda: provider_key("alpha") in self.keys(), "the old key to be back")
            load.goes_on()
        self.assertEqual((load.lost, load.cut), ([], []))

    def test_a_clients_token_is_changed_and_no_request_is_lost(self):
        both = ["old|" + CLIENT_TOKEN, "new|" + NEW_TOKEN]
        with Load(self.connect) as load:
            load.goes_on()
            self.proxy.write([self.upstream.entry], tokens=both)
            self.proxy.reload()
            with self.connect(NEW_TOKEN) as client:
                self.assertEqual(client.chat("alpha/ok").status, 200)
            load.goes_on()
        self.assertEqual((load.lost, load.cut), ([], []))
        self.proxy.write([self.upstream.entry], tokens=both[1:])
        self.proxy.reload()
        with self.connect() as client:
            self.assertEqual(client.chat("alpha/ok").status, 401)


class Page(unittest.TestCase):
    def test_it_has_every_alert(self):
        alerts = set(re.findall(r"alert: (\w+)", (DEPLOY / "alerts.yml").read_text()))
        self.assertEqual(alerts, set(re.findall(r"^\| (AiProxy\w+) \|", PAGE.read_text(), re.MULTILINE)))
