"""The SDK over a Unix socket, as a sidecar of an application has it."""

import tempfile
from pathlib import Path

import httpx2  # what the SDK is built on
import openai

from harness import CLIENT_TOKEN, DEADLINE, Case, ConfiguredProxy, Upstream, ask, for_module, text_of


def setUpModule():
    global alpha
    alpha = for_module(Upstream("alpha"))


class UnixSocket(Case):
    def setUp(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.path = str(Path(folder) / "proxy.sock")

    def serve(self):
        return self.enterContext(ConfiguredProxy([alpha.entry], host="unix:" + self.path))

    def answers(self):
        http = openai.DefaultHttpx2Client(transport=httpx2.HTTPTransport(uds=self.path))
        client = self.enterContext(openai.OpenAI(
            base_url="http://localhost/v1", api_key=CLIENT_TOKEN, http_client=http, max_retries=0, timeout=DEADLINE))
        whole = client.chat.completions.create(model="alpha/ok", messages=ask())
        self.assertEqual(whole.choices[0].message.content, "alpha: hello there")
        streamed = client.chat.completions.create(model="alpha/ok", messages=ask(), stream=True)
        self.assertEqual(text_of(streamed), "alpha: hello there")
        self.assertEqual(client.models.retrieve("alpha/ok").id, "alpha/ok")

    def test_it_serves(self):
        self.serve()
        self.answers()

    def test_a_socket_left_by_a_killed_process_is_taken_over(self):
        self.serve().stop()
        self.assertTrue(Path(self.path).exists(), "a killed process cleans nothing up")
        self.serve()
        self.answers()
