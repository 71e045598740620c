"""`GET /metrics`, as Prometheus's own checker reads it."""

import subprocess

import openai

from harness import Case, ConfiguredProxy, Upstream, ask, fetch, for_module, wait_for
from tools import PATIENCE


def setUpModule():
    global proxy
    alpha = for_module(Upstream("alpha"))
    # A name of a token is the operator's own: nothing in it may break the format.
    token = {"name": 'tests "of" \\ ops 测试', "token": "sk-client-token-0123456789"}
    proxy = for_module(ConfiguredProxy([alpha.entry], tokens=[token], models={"fast": "alpha/ok"}))


def check(text):
    """What promtool finds wrong."""
    done = subprocess.run(["promtool", "check", "metrics"], input=text, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=PATIENCE, check=False)
    return (done.returncode, done.stdout.decode())


class Metrics(Case):
    def test_the_checker_finds_nothing_to_say(self):
        self.assertEqual(check(fetch(proxy.root + "/metrics")), (0, ""), "before the first call")
        client = self.client(proxy)
        client.chat.completions.create(model="fast", messages=ask())
        list(client.chat.completions.create(model="alpha/ok", messages=ask(), stream=True))
        for model in ("alpha/status-400", "nowhere/x", "alpha/break-mid-stream"):
            with self.assertRaises(openai.OpenAIError):
                list(client.chat.completions.create(model=model, messages=ask(), stream=True))
        counted = wait_for(lambda: all_counted(fetch(proxy.root + "/metrics")), "three relayed calls")
        self.assertEqual(check(counted), (0, ""))

    def test_the_checker_would_say_something(self):
        self.assertNotEqual(check(b"# TYPE a counter\na{b=\"c} 1\n")[0], 0)
        self.assertNotEqual(check(b"# TYPE requests counter\nrequests 1\n")[0], 0, "a counter ends in _total")


def all_counted(text):
    counts = [line.split()[-1] for line in text.decode().splitlines() if line.startswith("ai_proxy_requests_total{")]
    return text if sum(map(int, counts)) >= 4 else None
