"""The SDK retries what a retry can mend, and obeys `x-should-retry: false` for what it cannot."""

import threading

import openai

from harness import Case, ConfiguredProxy, Counter, Upstream, ask, for_module, unreachable_url, wait_for


def setUpModule():
    global alpha, proxy
    alpha = for_module(Upstream("alpha"))
    held, url = unreachable_url()
    for_module(held)
    proxy = for_module(ConfiguredProxy([alpha.entry, "down|%s|sk-of-no-use-to-anybody" % url],
                                       max_connections=1, queue_timeout=0.1))


class RetryCase(Case):
    def setUp(self):
        alpha.forget()
        self.counter = Counter()
        self.openai = self.client(proxy, max_retries=2, http_client=self.counter.http)

    def create(self, model, **options):
        return self.openai.chat.completions.create(model=model, messages=ask(), **options)


class NotRetried(RetryCase):
    def final(self, error, call):
        with self.assertRaises(error) as raised:
            call()
        self.assertEqual(raised.exception.response.headers["x-should-retry"], "false")
        self.assertEqual(len(self.counter.sent), 1)

    def test_wrong_token(self):
        self.openai.api_key = "sk-wrong"
        self.final(openai.AuthenticationError, lambda: self.create("alpha/ok"))

    def test_unknown_model(self):
        self.final(openai.NotFoundError, lambda: self.create("nobody/ok"))

    def test_invalid_json(self):
        self.final(openai.BadRequestError, lambda: self.openai.post(
            "/chat/completions", content=b'{"model":', cast_to=object,
            options={"headers": {"Content-Type": "application/json"}}))


class Retried(RetryCase):
    def test_an_unreachable_provider(self):
        self.openai.max_retries = 1
        with self.assertRaises(openai.InternalServerError) as raised:
            self.create("down/ok")
        self.assertEqual(raised.exception.status_code, 502)
        self.assertNotIn("x-should-retry", raised.exception.response.headers)
        self.assertEqual(len(self.counter.sent), 2)

    def test_a_provider_that_fails_once(self):
        self.assertTrue(self.create("alpha/flaky-503-retries").choices)
        self.assertEqual((len(self.counter.sent), len(alpha.seen())), (2, 2))

    def test_a_stream_that_fails_before_it_began(self):
        self.assertTrue(list(self.create("alpha/flaky-503-streamed-retries", stream=True)))
        self.assertEqual((len(self.counter.sent), len(alpha.seen())), (2, 2))

    def test_an_overloaded_proxy(self):
        # One worker, and it waits at a gate: the next call finds none, and comes again after `Retry-After`.
        busy = self.client(proxy)
        holder = threading.Thread(target=lambda: busy.chat.completions.create(
            model="alpha/gated-overload", messages=ask()))
        holder.start()
        self.addCleanup(holder.join)
        self.addCleanup(alpha.open_gate, "overload")
        wait_for(alpha.seen, "the first call to reach the provider")

        with self.assertRaises(openai.InternalServerError) as raised:
            self.client(proxy).chat.completions.create(model="alpha/ok", messages=ask())
        self.assertEqual(raised.exception.status_code, 503)
        self.assertEqual(raised.exception.body["reason"], "overloaded")
        self.assertEqual(raised.exception.response.headers["retry-after"], "1")
        self.assertNotIn("x-should-retry", raised.exception.response.headers)

        opener = threading.Timer(0.5, alpha.open_gate, ["overload"])
        opener.start()
        self.addCleanup(opener.join)
        self.assertTrue(self.create("alpha/ok").choices)
        self.assertEqual(len(self.counter.sent), 2)
