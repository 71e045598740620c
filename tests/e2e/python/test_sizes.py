"""Large requests, long streams, large events, and a provider that is quick to close."""

import openai

from harness import Case, ConfiguredProxy, Counter, Upstream, ask, for_module, text_of

MIB = 1 << 20


def setUpModule():
    global alpha, proxy
    alpha = for_module(Upstream("alpha"))
    proxy = for_module(ConfiguredProxy([alpha.entry], max_request_size=8 * MIB))


class Sizes(Case):
    def setUp(self):
        alpha.forget()
        self.counter = Counter()
        self.openai = self.client(proxy, http_client=self.counter.http)

    def stream(self, text):
        return text_of(self.openai.chat.completions.create(model="alpha/ok", messages=ask(text), stream=True))

    def test_a_large_request_passes_unchanged(self):
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "iVBORw0K" * (6 * MIB // 8)}}
        self.openai.chat.completions.create(
            model="alpha/ok", messages=[{"role": "system", "content": [image]}, *ask()])
        sent, = self.counter.bodies()
        self.assertGreater(len(sent), 6 * MIB)
        self.assertEqual(alpha.seen()[0]["body"], sent.replace(b'"alpha/ok"', b'"ok"'))

    def test_too_large_a_request_is_told_so(self):
        # The refusal comes while the client still sends: it must get to read it all the same.
        for _ in range(5):
            with self.assertRaises(openai.APIStatusError) as raised:
                self.openai.chat.completions.create(model="alpha/ok", messages=ask("x" * 12 * MIB))
            self.assertEqual(raised.exception.status_code, 413)
            self.assertEqual(raised.exception.body["reason"], "body_too_large")
        self.assertEqual(alpha.seen(), [])

    def test_a_wrong_token_with_a_large_request_is_told_so(self):
        for _ in range(5):
            with self.assertRaises(openai.AuthenticationError):
                self.client(proxy, "sk-wrong").chat.completions.create(model="alpha/ok", messages=ask("x" * 4 * MIB))

    def test_a_long_stream(self):
        text = " ".join(map(str, range(3000)))
        self.assertEqual(self.stream(text), "alpha: " + text)

    def test_a_large_event(self):
        text = "上" * MIB
        self.assertEqual(self.stream(text), "alpha: " + text)


class QuickToClose(Case):
    def test_kept_connections_that_the_provider_closed(self):
        client = self.client(proxy)
        for _ in range(50):
            self.assertTrue(client.chat.completions.create(model="alpha/close-after", messages=ask()).choices)
