"""A reload and a stop, as an application in the middle of its work sees them."""

import signal
import urllib.error

import openai

from harness import Case, ConfiguredProxy, Upstream, ask, fetch, for_module, text_of, wait_for


def setUpModule():
    global alpha, beta
    alpha, beta = for_module(Upstream("alpha")), for_module(Upstream("beta"))


class LifeCase(Case):
    def setUp(self):
        self.proxy = self.enterContext(ConfiguredProxy([alpha.entry]))
        self.openai = self.client(self.proxy)

    def create(self, model, **options):
        return self.openai.chat.completions.create(model=model, messages=ask(), **options)

    def stream_in_flight(self, gate):
        """A stream that has begun and will go on when `gate` is opened."""
        chunks = iter(self.create("alpha/gated-" + gate, stream=True))
        next(chunks)
        self.addCleanup(alpha.open_gate, gate)
        return chunks

    def finish(self, chunks, gate):
        alpha.open_gate(gate)
        rest = list(chunks)
        self.assertEqual(text_of(rest), "alpha: hello there")
        self.assertEqual(rest[-1].choices[0].finish_reason, "stop")


class Reload(LifeCase):
    def test_a_new_provider_serves_and_a_stream_in_flight_goes_on(self):
        with self.assertRaises(openai.NotFoundError):
            self.create("beta/ok")
        chunks = self.stream_in_flight("reload")

        self.proxy.write([alpha.entry, beta.entry])
        told = self.proxy.reload()
        self.assertEqual((told["providers_count"], told["restart_required"]), (2, []))

        self.assertEqual(self.create("beta/ok").choices[0].message.content, "beta: hello there")
        wait_for(lambda: "beta/ok" in [model.id for model in self.openai.models.list()],
                 "the new provider's models to be listed")
        self.finish(chunks, "reload")

    def test_a_provider_that_is_gone_is_refused_and_its_stream_goes_on(self):
        chunks = self.stream_in_flight("gone")
        self.proxy.write([beta.entry])
        self.proxy.reload()
        with self.assertRaises(openai.NotFoundError):
            self.create("alpha/ok")
        self.assertNotIn("alpha/ok", [model.id for model in self.openai.models.list()])
        self.finish(chunks, "gone")

    def test_a_new_token_counts_at_once(self):
        self.proxy.write([alpha.entry], tokens=["e2e|sk-another-token-9876543210"])
        self.proxy.reload()
        with self.assertRaises(openai.AuthenticationError):
            self.create("alpha/ok")
        self.openai = self.client(self.proxy, "sk-another-token-9876543210")
        self.assertTrue(self.create("alpha/ok").choices)

    def test_a_bad_config_changes_nothing(self):
        self.proxy.write([], tokns=[])
        with self.assertRaises(openai.UnprocessableEntityError):
            self.openai.post("/reload", cast_to=object)
        self.assertTrue(self.create("alpha/ok").choices)

    def test_sighup_reloads_too(self):
        self.proxy.write([alpha.entry, beta.entry])
        self.proxy.signal(signal.SIGHUP)

        def serves_beta():
            try:
                return self.create("beta/ok").choices
            except openai.NotFoundError:
                return False
        wait_for(serves_beta, "the signal to be heeded")


class Stop(LifeCase):
    def turned_away(self):
        """True when a new caller finds no listener, or is told to come again."""
        try:
            fetch(self.proxy.root + "/healthz")
        except urllib.error.HTTPError as answer:
            with answer:
                return answer.code == 503
        except TimeoutError:
            raise
        except OSError:  # refused, or closed while it was being accepted
            return True
        return False

    def drained(self, number):
        gate = "drain-%d" % number
        chunks = self.stream_in_flight(gate)
        self.proxy.signal(number)
        wait_for(self.turned_away, "the signal to be heeded")
        self.assertIsNone(self.proxy.child.poll(), "a stream is in flight")
        self.finish(chunks, gate)
        self.assertEqual(self.proxy.exit_code(), 0)

    def test_sigterm_lets_a_stream_finish(self):
        self.drained(signal.SIGTERM)

    def test_sigint_lets_a_stream_finish(self):
        self.drained(signal.SIGINT)

    def test_idle_connections_do_not_hold_it_up(self):
        self.create("alpha/ok")  # leaves a kept-alive connection behind
        self.proxy.terminate()
        self.assertEqual(self.proxy.exit_code(), 0)

    def test_a_second_signal_ends_it_at_once(self):
        chunks = self.stream_in_flight("second")
        self.proxy.terminate()
        wait_for(self.turned_away, "the signal to be heeded")
        self.proxy.terminate()
        self.proxy.exit_code()
        with self.assertRaises(openai.APIError):
            list(chunks)
