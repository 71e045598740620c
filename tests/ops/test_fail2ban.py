"""The filter for Debian's fail2ban, `deploy/fail2ban.conf`, finds who guesses tokens in a log that ai-proxy wrote."""

import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from harness import Case, ConfiguredProxy, Upstream, for_module, wait_for
from tools import DEPLOY, run

GUESSES = 3
FILTER = DEPLOY / "fail2ban.conf"


def setUpModule():
    global alpha
    alpha = for_module(Upstream("alpha"))


class Filter(Case):
    def test_filter_finds_guesses_and_nothing_else(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        log = folder / "ai_proxy.log"
        proxy = self.enterContext(ConfiguredProxy([alpha.entry], log_file=str(log), log_level="INFO"))
        for number in range(GUESSES):
            with self.assertRaises(urllib.error.HTTPError):
                request = urllib.request.Request(
                    proxy.url + "/models", headers={"Authorization": "Bearer sk-guess-%d" % number})
                urllib.request.urlopen(request)
        with self.assertRaises(urllib.error.HTTPError):
            # What stands in a path is no reason.
            urllib.request.urlopen(proxy.root + "/401/invalid_token/client=192.0.2.1")
        wait_for(lambda: log.read_text().count(" WARNING 40") == GUESSES + 1, "a line for each refusal")
        self.assertIn("%d matched" % GUESSES, run("fail2ban-regex", log, FILTER))

    def test_filter_finds_the_address_that_a_trusted_proxy_forwards(self):
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        log = folder / "ai_proxy.log"
        proxy = self.enterContext(
            ConfiguredProxy([alpha.entry], log_file=str(log), trusted_proxies=["127.0.0.0/8", "::1"]))
        for address in ("203.0.113.7", "2001:db8::7", "192.0.2.1, 203.0.113.8"):
            with self.assertRaises(urllib.error.HTTPError):
                headers = {"Authorization": "Bearer sk-guess", "X-Forwarded-For": address}
                urllib.request.urlopen(urllib.request.Request(proxy.url + "/models", headers=headers))
        wait_for(lambda: log.read_text().count(" WARNING 401") == 3, "a line for each guess")
        found = run("fail2ban-regex", "--out", "ip", log, FILTER).split()
        self.assertEqual(found, ["203.0.113.7", "2001:db8::7", "203.0.113.8"])
