"""`ai-proxy demo`: what somebody sees who has just built it."""

import openai

from harness import Case, Demo, ask, for_module, text_of

MODEL = "demo/echo"
TOKEN = "sk-demo"


def setUpModule():
    global demo
    demo = for_module(Demo())


class Chat(Case):
    def setUp(self):
        self.openai = self.client(demo, TOKEN)

    def test_whole(self):
        answer = self.openai.chat.completions.create(model=MODEL, messages=ask("good morning"))
        self.assertEqual(answer.object, "chat.completion")
        self.assertIn("good morning", answer.choices[0].message.content)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertGreater(answer.usage.total_tokens, 0)

    def test_streamed(self):
        chunks = list(self.openai.chat.completions.create(model=MODEL, messages=ask("good morning"), stream=True))
        self.assertGreater(len([c for c in chunks if c.choices and c.choices[0].delta.content]), 1)
        self.assertIn("good morning", text_of(chunks))
        finishes = [c.choices[0].finish_reason for c in chunks if c.choices]
        self.assertEqual(finishes[-1], "stop")
        self.assertEqual(set(finishes[:-1]), {None}, "only the last chunk finishes")

    def test_both_modes_say_the_same(self):
        whole = self.openai.chat.completions.create(model=MODEL, messages=ask("good morning"))
        streamed = self.openai.chat.completions.create(model=MODEL, messages=ask("good morning"), stream=True)
        self.assertEqual(text_of(streamed), whole.choices[0].message.content)

    def test_stream_helper(self):
        with self.openai.chat.completions.stream(model=MODEL, messages=ask("good morning")) as stream:
            deltas = [event.delta for event in stream if event.type == "content.delta"]
            final = stream.get_final_completion()
        self.assertEqual("".join(deltas), final.choices[0].message.content)


class Models(Case):
    def setUp(self):
        self.openai = self.client(demo, TOKEN)

    def test_list(self):
        self.assertIn(MODEL, [model.id for model in self.openai.models.list()])

    def test_retrieve(self):
        # The SDK sends the slash as %2F.
        self.assertEqual(self.openai.models.retrieve(MODEL).id, MODEL)

    def test_retrieve_unknown(self):
        with self.assertRaises(openai.NotFoundError):
            self.openai.models.retrieve("demo/nothing")


class Refusals(Case):
    def test_wrong_token(self):
        with self.assertRaises(openai.AuthenticationError) as raised:
            self.client(demo, "sk-wrong").chat.completions.create(model=MODEL, messages=ask())
        self.assertEqual(raised.exception.body["reason"], "invalid_token")

    def test_unknown_model(self):
        for model in ("nobody/echo", "nothing"):
            with self.subTest(model), self.assertRaises(openai.NotFoundError) as raised:
                self.client(demo, TOKEN).chat.completions.create(model=model, messages=ask())
            self.assertEqual(raised.exception.body["reason"], "model_not_found")
