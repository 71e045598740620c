"""LiteLLM's proxy as a provider, with its mock answers: a server that nobody here wrote."""

import json
import os
import tempfile
import unittest
from pathlib import Path

import openai

from harness import Case, ConfiguredProxy, ask, fetch, text_of
from provider import Provider

KEY = "sk-provider-key-of-litellm"
SAID = "Hello from the mock of LiteLLM"


def setUpModule():
    global litellm
    folder = unittest.enterModuleContext(tempfile.TemporaryDirectory())
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
    litellm = Provider([os.environ["LITELLM_BIN"], "--config", str(config)], "/health/liveliness", folder,
                       LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_TELEMETRY="False")


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
