"""Names that stand for other models, and the next one when one fails."""

import openai

from harness import Case, ConfiguredProxy, Upstream, ask, for_module, text_of, unreachable_url

MODELS = {
    "fast": "beta/ok",
    "after-unreachable": ["down/ok", "beta/ok"],
    "after-hang-up": ["alpha/break-before-head", "beta/ok"],
    "after-429": ["alpha/status-429", "beta/ok"],
    "after-two": ["down/ok", "alpha/status-503", "beta/ok"],
    "never": ["alpha/status-500", "beta/status-503"],
    "refused": ["alpha/status-400", "beta/ok"],
    "too-late": ["alpha/break-mid-stream", "beta/ok"],
}


def setUpModule():
    global alpha, beta, down
    alpha, beta = for_module(Upstream("alpha")), for_module(Upstream("beta"))
    held, url = unreachable_url()
    for_module(held)
    down = "down|%s|sk-of-no-use-to-anybody" % url


class VirtualModels(Case):
    def setUp(self):
        alpha.forget()
        beta.forget()
        # One for each test: a provider that failed in one would come last in the next, while it cools down.
        self.openai = self.client(self.enterContext(ConfiguredProxy([alpha.entry, beta.entry, down], models=MODELS)))

    def create(self, model, **options):
        return self.openai.chat.completions.create(model=model, messages=ask("one two three"), **options)

    def test_listed_and_retrieved(self):
        listed = {model.id for model in self.openai.models.list()}
        self.assertLessEqual(set(MODELS), listed)
        self.assertEqual(self.openai.models.retrieve("fast").id, "fast")

    def test_the_first_that_answers(self):
        for model in ("fast", "after-unreachable", "after-hang-up", "after-429", "after-two"):
            with self.subTest(model):
                whole = self.openai.chat.completions.with_raw_response.create(model=model, messages=ask())
                self.assertEqual(whole.headers["x-ai-proxy-provider"], "beta")
                self.assertEqual(whole.parse().choices[0].message.content, "beta: hello there")
                self.assertEqual(text_of(self.create(model, stream=True)), "beta: one two three")

    def test_the_provider_is_asked_for_its_own_model(self):
        self.create("fast")
        self.assertIn(b'"model":"ok"', beta.seen()[0]["body"])

    def test_the_last_answer_when_none_is_good(self):
        with self.assertRaises(openai.InternalServerError) as raised:
            self.create("never")
        self.assertEqual(raised.exception.code, "scripted_503")

    def test_a_refusal_is_final(self):
        with self.assertRaises(openai.BadRequestError):
            self.create("refused")
        self.assertEqual(beta.seen(), [])

    def test_nothing_is_tried_again_once_events_have_left(self):
        with self.assertRaises(openai.APIError):
            list(self.create("too-late", stream=True))
        self.assertEqual(beta.seen(), [])
