"""Many at once, and the async client."""

import asyncio
import unittest
from concurrent.futures import ThreadPoolExecutor

import openai

from harness import CLIENT_TOKEN, DEADLINE, Case, ConfiguredProxy, Upstream, ask, for_module, text_of

STREAMS = 32


def setUpModule():
    global alpha, beta, proxy
    alpha, beta = for_module(Upstream("alpha")), for_module(Upstream("beta"))
    proxy = for_module(ConfiguredProxy([alpha.entry, beta.entry]))


def questions():
    """As many different ones as streams, so that no answer can stand for another."""
    return [(("alpha", "beta")[at % 2], "question number %d of many" % at) for at in range(STREAMS)]


class Threads(Case):
    def test_streams_side_by_side(self):
        client = self.client(proxy)

        def stream(question):
            provider, text = question
            return text_of(client.chat.completions.create(
                model=provider + "/paced", messages=ask(text), stream=True))

        with ThreadPoolExecutor(STREAMS) as pool:
            answers = list(pool.map(stream, questions()))
        self.assertEqual(answers, ["%s: %s" % question for question in questions()])


class Async(unittest.IsolatedAsyncioTestCase):
    def setUp(self):
        # unittest turns this on, and on a busy machine it complains of every slow step.
        asyncio.get_event_loop().set_debug(False)

    async def asyncSetUp(self):
        self.openai = await self.enterAsyncContext(openai.AsyncOpenAI(
            base_url=proxy.url, api_key=CLIENT_TOKEN, max_retries=0, timeout=DEADLINE))

    async def stream(self, model, text):
        stream = await self.openai.chat.completions.create(model=model, messages=ask(text), stream=True)
        return text_of([chunk async for chunk in stream])

    async def test_whole(self):
        answer = await self.openai.chat.completions.create(model="alpha/ok", messages=ask())
        self.assertEqual(answer.choices[0].message.content, "alpha: hello there")

    async def test_streams_side_by_side(self):
        # All of them start before any may go on: that many are in flight at the same time for certain.
        streams = [asyncio.create_task(self.stream(provider + "/gated-crowd", text)) for provider, text in questions()]
        while len(alpha.seen()) + len(beta.seen()) < STREAMS:
            await asyncio.sleep(0.01)
        alpha.open_gate("crowd")
        beta.open_gate("crowd")
        self.assertEqual(await asyncio.gather(*streams), ["%s: %s" % question for question in questions()])

    async def asyncTearDown(self):
        alpha.forget()
        beta.forget()

    async def test_models(self):
        self.assertIn("beta/ok", [model.id async for model in self.openai.models.list()])

    async def test_broken_stream(self):
        with self.assertRaises(openai.APIError):
            await self.stream("alpha/break-mid-stream", "one two three four")

    async def test_error_class(self):
        with self.assertRaises(openai.RateLimitError):
            await self.openai.chat.completions.create(model="alpha/status-429", messages=ask())
