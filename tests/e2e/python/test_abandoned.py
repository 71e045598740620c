"""A client that goes away frees its provider within a second, also while the provider is silent."""

import openai

from harness import Case, ConfiguredProxy, Upstream, ask, for_module, wait_for


def setUpModule():
    global alpha, proxy
    alpha = for_module(Upstream("alpha"))
    # The default limits are far above the second, so that none of them can do the proxy's work.
    proxy = for_module(ConfiguredProxy([alpha.entry]))


class Abandoned(Case):
    def setUp(self):
        alpha.forget()

    def provider_is_freed(self):
        wait_for(lambda: alpha.seen()[0]["gone"], "the connection to the provider to be closed", within=1.0)

    def test_stream_closed_early(self):
        stream = self.client(proxy).chat.completions.create(model="alpha/stalled", messages=ask("a b c d"), stream=True)
        next(iter(stream))
        stream.close()
        self.provider_is_freed()

    def test_client_timed_out(self):
        for stream in (False, True):
            with self.subTest(stream=stream):
                alpha.forget()
                with self.assertRaises(openai.APITimeoutError):
                    self.client(proxy, timeout=0.3).chat.completions.create(
                        model="alpha/silent", messages=ask(), stream=stream)
                self.provider_is_freed()
