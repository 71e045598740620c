"""llama.cpp's server of the `llama-cpp-python` package, over a model of noise that the test makes: a server that nobody here wrote."""

import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

import openai

from harness import Case, ConfiguredProxy, ask, fetch
from provider import PATIENCE, Provider

KEY = "sk-provider-key-of-llama"
HERE = Path(__file__).resolve().parent


def setUpModule():
    global llama
    folder = unittest.enterModuleContext(tempfile.TemporaryDirectory())
    python, model = os.environ["LLAMA_PYTHON"], Path(folder) / "tiny.gguf"
    subprocess.run([python, HERE / "tiny_gguf.py", model], stdin=subprocess.DEVNULL, timeout=PATIENCE, check=True)
    llama = Provider([python, "-m", "llama_cpp.server", "--model", str(model), "--model_alias", "tiny", "--api_key", KEY,
                      "--n_ctx", "512", "--chat_format", "chatml"], "/v1/models", folder)


class AsProvider(Case):
    def setUp(self):
        entry = "llama.cpp|%s/v1|%s" % (llama.root, KEY)
        self.proxy = self.enterContext(ConfiguredProxy([entry], language="en", non_stream_timeout=60))
        self.ours = self.client(self.proxy, timeout=60)

    def test_models_and_health(self):
        self.assertEqual([model.id for model in self.ours.models.list()], ["llama.cpp/tiny"])
        self.assertEqual(json.loads(fetch(self.proxy.root + "/health"))["status"], "healthy")

    def test_whole(self):
        answer = self.ours.chat.completions.create(model="llama.cpp/tiny", messages=ask(), max_tokens=8)
        self.assertIn(answer.choices[0].finish_reason, ("length", "stop"))
        self.assertGreater(answer.usage.prompt_tokens, 0)
        completion = self.ours.completions.create(model="llama.cpp/tiny", prompt="hello", max_tokens=4)
        self.assertEqual(completion.object, "text_completion")

    def test_streamed_as_it_is_said_directly(self):
        """With one seed and no chance: what comes through is what the server says to a client of its own."""
        def said(client, model):
            chunks = client.chat.completions.create(model=model, messages=ask(), max_tokens=12, temperature=0, seed=1, stream=True)
            return [(choice.delta.content, choice.finish_reason) for chunk in chunks for choice in chunk.choices]
        direct = self.enterContext(openai.OpenAI(base_url=llama.root + "/v1", api_key=KEY, max_retries=0, timeout=60))
        through = said(self.ours, "llama.cpp/tiny")
        self.assertGreater(len(through), 3)
        self.assertEqual(through, said(direct, "tiny"))

    def test_errors(self):
        with self.assertRaises(openai.BadRequestError) as too_long:
            self.ours.chat.completions.create(model="llama.cpp/tiny", messages=ask("hello " * 500))
        self.assertIn("context", str(too_long.exception))
        with ConfiguredProxy(["llama.cpp|%s/v1|sk-provider-key-that-is-wrong" % llama.root]) as proxy:
            with self.assertRaises(openai.AuthenticationError) as refused:
                self.client(proxy, timeout=60).chat.completions.create(model="llama.cpp/tiny", messages=ask())
        self.assertEqual(refused.exception.response.json(), {"detail": "Invalid API key"})
