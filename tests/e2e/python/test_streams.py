"""Streams: each event at once and in order, and never a clean end for one that broke."""

import httpx2  # what the SDK is built on
import openai

from harness import Case, ConfiguredProxy, Upstream, ask, for_module, text_of
from shapes import error

WORDS = "one two three four five"
BEFORE_TROUBLE = ["", "alpha:", " one"]  # the first events of an answer to WORDS


def setUpModule():
    global alpha, proxy
    alpha = for_module(Upstream("alpha"))
    proxy = for_module(ConfiguredProxy([alpha.entry], stream_timeout=1, stream_heartbeat=0.1))


class StreamCase(Case):
    def setUp(self):
        alpha.forget()
        self.openai = self.client(proxy)

    def create(self, model, **options):
        return self.openai.chat.completions.create(model=model, messages=ask(WORDS), stream=True, **options)


class Whole(StreamCase):
    def test_an_event_arrives_before_the_next_is_sent(self):
        chunks = iter(self.create("alpha/gated-first"))
        self.assertEqual(next(chunks).choices[0].delta.role, "assistant")
        alpha.open_gate("first")
        self.assertEqual(text_of(chunks), "alpha: " + WORDS)

    def test_order(self):
        chunks = list(self.create("alpha/paced"))
        self.assertEqual([c.choices[0].delta.content for c in chunks],
                         ["", "alpha:", *(" " + word for word in WORDS.split()), None])
        self.assertEqual(chunks[-1].choices[0].finish_reason, "stop")

    def test_delimited_by_the_close(self):
        self.assertEqual(text_of(self.create("alpha/close-done")), "alpha: " + WORDS)

    def test_heartbeats_are_there_and_the_sdk_passes_over_them(self):
        with self.openai.chat.completions.with_streaming_response.create(
                model="alpha/gated-heart", messages=ask(WORDS), stream=True) as raw:
            lines = raw.iter_lines()
            for line in lines:
                if line == ": keep-alive":
                    break
            alpha.open_gate("heart")
            self.assertIn("data: [DONE]", list(lines))

        # The answer begins with a heartbeat: no byte of the provider is there yet.
        chunks = iter(self.create("alpha/late-heart-of-the-sdk"))
        alpha.open_gate("heart-of-the-sdk")
        self.assertEqual(text_of(chunks), "alpha: " + WORDS)


class Broken(StreamCase):
    def broken(self, model):
        """The error that ended the stream; what came before it must have been delivered."""
        contents = []
        with self.assertRaises(openai.APIError) as raised:
            for chunk in self.create(model):
                contents.append(chunk.choices[0].delta.content)
        self.assertEqual(contents, BEFORE_TROUBLE)
        return raised.exception

    def test_provider_breaks_off(self):
        for model in ("break-mid-stream", "reset-mid-stream"):
            with self.subTest(model):
                raised = self.broken("alpha/" + model)
                self.assertEqual(raised.body["reason"], "upstream_broken")
                self.assertEqual(raised.body["code"], 502)

    def test_provider_closes_without_done(self):
        self.assertEqual(self.broken("alpha/no-done").body["reason"], "upstream_broken")

    def test_provider_falls_silent(self):
        raised = self.broken("alpha/stalled")
        self.assertEqual(raised.body["reason"], "upstream_timeout")
        self.assertEqual(raised.body["code"], 504)

    def test_the_providers_own_error_event_passes(self):
        self.assertEqual(self.broken("alpha/error-event").body, error("the provider gave up")["error"])

    def test_the_connection_is_not_ended_cleanly(self):
        # For clients that know nothing of error events: the body itself is cut short.
        with self.assertRaises(httpx2.RemoteProtocolError):
            with self.openai.chat.completions.with_streaming_response.create(
                    model="alpha/break-mid-stream", messages=ask(WORDS), stream=True) as raw:
                list(raw.iter_lines())

    def test_provider_fails_after_a_heartbeat(self):
        # The status is long gone as 200, so the failure can only be an event.
        chunks = self.create("alpha/fails-late")
        alpha.open_gate("late")
        with self.assertRaises(openai.APIError) as raised:
            list(chunks)
        self.assertIn("scripted 500", raised.exception.message)

    def test_other_calls_are_not_affected(self):
        self.broken("alpha/break-mid-stream")
        self.assertEqual(text_of(self.create("alpha/ok")), "alpha: " + WORDS)
