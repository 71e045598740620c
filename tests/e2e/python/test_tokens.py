"""Limits that an operator sets on a token or on the models, as the application meets them."""

import openai

from harness import Case, ConfiguredProxy, Upstream, ask, for_module

NARROW = {"name": "narrow", "token": "sk-narrow-0123456789", "models": ["^alpha/meta/"]}
SINGLE = {"name": "single", "token": "sk-single-0123456789", "max_parallel": 1}
SLOW = {"name": "slow", "token": "sk-slow-0123456789", "rpm": 2}


def setUpModule():
    global alpha, proxy
    alpha = for_module(Upstream("alpha"))
    proxy = for_module(ConfiguredProxy([alpha.entry], tokens=[NARROW, SINGLE, SLOW],
                                       supported_models=["ok$", "llama", "gated"]))


class Tokens(Case):
    def setUp(self):
        alpha.forget()

    def create(self, token, model, **options):
        return self.client(proxy, token["token"]).chat.completions.create(model=model, messages=ask(), **options)

    def limited(self, token):
        with self.assertRaises(openai.RateLimitError) as raised:
            self.create(token, "alpha/ok")
        self.assertEqual(raised.exception.body["reason"], "rate_limited")
        self.assertGreater(int(raised.exception.response.headers["retry-after"]), 0)

    def test_models_of_a_token(self):
        self.assertTrue(self.create(NARROW, "alpha/meta/llama-3").choices)
        with self.assertRaises(openai.NotFoundError):
            self.create(NARROW, "alpha/ok")

    def test_supported_models(self):
        self.assertTrue(self.create(SINGLE, "alpha/ok").choices)
        with self.assertRaises(openai.NotFoundError):
            self.create(SINGLE, "alpha/mixed:7b")
        self.assertEqual([model.id for model in self.client(proxy, SINGLE["token"]).models.list()],
                         ["alpha/meta/llama-3", "alpha/ok"])

    def test_one_at_a_time(self):
        stream = self.create(SINGLE, "alpha/gated-single", stream=True)
        self.limited(SINGLE)
        alpha.open_gate("single")
        list(stream)
        self.assertTrue(self.create(SINGLE, "alpha/ok").choices)

    def test_so_many_a_minute(self):
        for _ in range(SLOW["rpm"]):
            self.assertTrue(self.create(SLOW, "alpha/ok").choices)
        self.limited(SLOW)
