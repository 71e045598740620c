"""`GET /metrics` as Prometheus reads it: its checker, a scrape with a token, `deploy/alerts.yml`, `deploy/grafana.json`."""

import json
import socket
import subprocess
import tempfile
import urllib.error
import urllib.parse
from pathlib import Path

import openai

from harness import CLIENT_TOKEN, Case, ConfiguredProxy, Upstream, ask, fetch, for_module, wait_for
from tools import DEPLOY, PATIENCE, run


def setUpModule():
    global proxy
    alpha = for_module(Upstream("alpha"))
    # A name of a token is the operator's own: nothing in it may break the format.
    token = {"name": 'tests "of" \\ ops 测试', "token": CLIENT_TOKEN}
    proxy = for_module(ConfiguredProxy([alpha.entry], tokens=[token], models={"fast": "alpha/ok"}))


def check(text):
    """What promtool finds wrong."""
    done = subprocess.run(["promtool", "check", "metrics"], input=text, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=PATIENCE, check=False)
    return (done.returncode, done.stdout.decode())


class Metrics(Case):
    def call_in_every_way(self):
        client = self.client(proxy)
        client.chat.completions.create(model="fast", messages=ask())
        list(client.chat.completions.create(model="alpha/ok", messages=ask(), stream=True))
        for model in ("alpha/status-503", "nowhere/x", "alpha/break-mid-stream"):
            with self.assertRaises(openai.OpenAIError):
                list(client.chat.completions.create(model=model, messages=ask(), stream=True))

    def test_the_checker_finds_nothing_to_say(self):
        self.assertEqual(check(fetch(proxy.root + "/metrics")), (0, ""), "before the first call")
        self.call_in_every_way()
        counted = wait_for(lambda: all_counted(fetch(proxy.root + "/metrics")), "four relayed calls")
        self.assertEqual(check(counted), (0, ""))

    def test_the_checker_would_say_something(self):
        self.assertNotEqual(check(b"# TYPE a counter\na{b=\"c} 1\n")[0], 0)
        self.assertNotEqual(check(b"# TYPE requests counter\nrequests 1\n")[0], 0, "a counter ends in _total")

    def test_the_alerts_are_rules(self):
        self.assertIn("SUCCESS", run("promtool", "check", "rules", DEPLOY / "alerts.yml"))

    def test_prometheus_scrapes_it_evaluates_the_alerts_and_finds_a_series_for_every_panel(self):
        with Prometheus() as prometheus:
            def missing():
                self.call_in_every_way()  # each window of a rate must see something grow
                return [query for query in panels() if not prometheus.ask("query", query=query)["result"]]
            wait_for(lambda: not missing(), "a series for each panel", within=60)

            def rules():
                return [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
            wait_for(lambda: all(rule["health"] != "unknown" for rule in rules()), "the rules' first turn")
            self.assertEqual([rule for rule in rules() if rule["health"] != "ok"], [])
            self.assertEqual(len(rules()), (DEPLOY / "alerts.yml").read_text().count("- alert:"))


class Prometheus:
    """Debian's Prometheus, with a token as docs/operations.md has it; in front, it would not be on loopback."""

    def __enter__(self):
        folder = tempfile.TemporaryDirectory()
        self.folder, path = folder, Path(folder.name)
        (path / "token").write_text(CLIENT_TOKEN)
        (path / "prometheus.yml").write_text(json.dumps({  # JSON is YAML
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(DEPLOY / "alerts.yml")],
            "scrape_configs": [{"job_name": "ai-proxy", "authorization": {"credentials_file": str(path / "token")},
                                "static_configs": [{"targets": [proxy.root.removeprefix("http://")]}]}]}))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = "127.0.0.1:%d" % free.getsockname()[1]
        self.url = "http://%s/api/v1/" % address
        self.log = open(path / "log", "w+", encoding="utf-8")
        self.child = subprocess.Popen(
            ["prometheus", "--config.file", path / "prometheus.yml", "--storage.tsdb.path", path / "data",
             "--web.listen-address", address, "--log.level", "warn"], stdout=self.log, stderr=self.log)
        try:
            wait_for(self.is_ready, "Prometheus to start", within=60)
        except AssertionError:
            self.__exit__()
            raise
        return self

    def is_ready(self):
        try:
            return self.ask("query", query="1")
        except (urllib.error.URLError, ConnectionError):
            return self.child.poll() is not None and self.fail()

    def fail(self):
        self.log.seek(0)
        raise AssertionError("Prometheus ended: " + self.log.read())

    def ask(self, what, **parameters):
        answer = json.loads(fetch(self.url + what + "?" + urllib.parse.urlencode(parameters)))
        assert answer["status"] == "success", answer
        return answer["data"]

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()
        self.log.close()
        self.folder.cleanup()


def all_counted(text):
    counts = [line.split()[-1] for line in text.decode().splitlines() if line.startswith("ai_proxy_requests_total{")]
    return text if sum(map(int, counts)) >= 4 else None


def panels():
    """What the dashboard asks, its variables set as for everything."""
    board = json.loads((DEPLOY / "grafana.json").read_text())
    found = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    set_to = {"$__rate_interval": "30s", "$instance": ".*", "$provider": ".*"}
    for name, value in set_to.items():
        found = [query.replace(name, value) for query in found]
    assert found and not [query for query in found if "$" in query], found
    return found
