"""LiteLLM's proxy as a provider, with its mock answers: a server that nobody here wrote."""

import json
import os
import socket
import subprocess
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path

import openai

from harness import Case, ConfiguredProxy, ask, fetch, text_of

PATIENCE = 240.0  # seconds: it takes half a minute to start on a busy machine
KEY = "sk-provider-key-of-litellm"
SAID = "Hello from the mock of LiteLLM"


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


class LiteLlm:
    def __init__(self, folder):
        self.port = free_port()
        self.root = "http://127.0.0.1:%d" % self.port
        config = Path(folder) / "config.yaml"
        # Its config is YAML, which JSON is.
        config.write_text(json.dumps({
            "model_list": [
                {"model_name": "mock", "litellm_params": {"model": "openai/mock", "api_key": "none", "mock_response": SAID}},
                {"model_name": "limited", "litellm_params": {"model": "openai/limited", "api_key": "none",
                                                             "mock_response": "litellm.RateLimitError"}},
            ],
            "general_settings": {"master_key": KEY},
        }))
        environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False",
                       "PATH": "%s:%s" % (Path(os.environ["LITELLM_BIN"]).parent, os.environ["PATH"])}
        # Apart from the proxies' log, in which no key may stand.
        self.log = os.environ["E2E_LOG"] + ".provider"
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(
                [os.environ["LITELLM_BIN"], "--config", str(config), "--host", "127.0.0.1", "--port", str(self.port)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=folder)
        until = time.monotonic() + PATIENCE
        while not self.is_up():
            if self.child.poll() is not None or time.monotonic() > until:
                self.stop()
                raise AssertionError("LiteLLM did not start; its log is in %s" % self.log)
            time.sleep(0.5)

    def is_up(self):
        try:
            with urllib.request.urlopen(self.root + "/health/liveliness", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def stop(self):
        self.child.kill()
        self.child.wait()


def setUpModule():
    global litellm
    folder = unittest.enterModuleContext(tempfile.TemporaryDirectory())
    litellm = LiteLlm(folder)
    unittest.addModuleCleanup(litellm.stop)


class AsProvider(Case):
    def setUp(self):
        entry = "litellm|%s/v1|%s" % (litellm.root, KEY)
        self.proxy = self.enterContext(ConfiguredProxy([entry], language="en", non_stream_timeout=60))
        self.ours = self.client(self.proxy, timeout=60)

    def test_models_and_health(self):
        self.assertEqual([model.id for model in self.ours.models.list()], ["litellm/limited", "litellm/mock"])
        self.assertEqual(json.loads(fetch(self.proxy.root + "/health"))["status"], "healthy")

    def test_whole(self):
        answer = self.ours.chat.completions.create(model="litellm/mock", messages=ask())
        self.assertEqual(answer.choices[0].message.content, SAID)
        self.assertGreater(answer.usage.total_tokens, 0)

    def test_streamed(self):
        chunks = list(self.ours.chat.completions.create(model="litellm/mock", messages=ask(), stream=True))
        self.assertGreater(len(chunks), 2)
        self.assertEqual(text_of(chunks), SAID)

    def test_errors(self):
        with self.assertRaises(openai.RateLimitError) as limited:
            self.ours.chat.completions.create(model="litellm/limited", messages=ask())
        self.assertIn("litellm.RateLimitError", str(limited.exception))
        # In LiteLLM's own words, and with its status.
        with self.assertRaises(openai.APIStatusError) as unknown:
            self.ours.chat.completions.create(model="litellm/nothing", messages=ask())
        self.assertEqual(unknown.exception.status_code, 400)
        self.assertIn("nothing", str(unknown.exception))
        with ConfiguredProxy(["litellm|%s/v1|sk-provider-key-that-is-wrong" % litellm.root]) as proxy:
            with self.assertRaises(openai.APIStatusError) as refused:
                self.client(proxy, timeout=60).chat.completions.create(model="litellm/mock", messages=ask())
            self.assertEqual(refused.exception.status_code, 400)
