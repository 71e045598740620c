"""The status page in a real browser (Debian's Chromium, driven by playwright-core): see `page.mjs`.

Its pictures are left in target/ops."""

import threading

import openai

from browser import WORK, passes
from harness import CLIENT_TOKEN, Case, ConfiguredProxy, Upstream, ask, for_module, provider_key, unreachable_url

# Names that would run, were they taken for markup.
MARKUP = ["<img src=x onerror=alert(1)>", '"><script>alert(2)</script>']
BATCH_TOKEN = "sk-client-token-of-batch-jobs"


def setUpModule():
    global proxy, alpha
    alpha = for_module(Upstream("alpha"))
    held, nowhere = unreachable_url()
    for_module(held)
    proxy = for_module(ConfiguredProxy(
        [alpha.entry,
         {"name": "<b>bold", "url": alpha.root + "/v1", "key": provider_key("alpha"), "models": MARKUP},
         {"name": "down", "url": nowhere, "key": provider_key("down"), "models": ["x"]}],
        tokens=[{"name": "e2e", "token": CLIENT_TOKEN, "rpm": 100000, "tokens_per_day": 1000000000}, "batch <i>jobs|" + BATCH_TOKEN],
        models={"fast": ["alpha/ok", "down/x"], "<i>italic": "<b>bold/" + MARKUP[0]}, max_retries=0, language="en"))


class Calls:
    """Clients at work while the page is open."""

    def __enter__(self):
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.call, args=(token,)) for token in (CLIENT_TOKEN, BATCH_TOKEN)]
        for thread in self.threads:
            thread.start()

    def call(self, token):
        with openai.OpenAI(base_url=proxy.url, api_key=token, max_retries=0) as client:
            while not self.over.is_set():
                for model in ("fast", "alpha/ok", "<b>bold/" + MARKUP[0], "down/x", "no/such", "no/<img src=x onerror=alert(3)>"):
                    try:
                        client.chat.completions.create(model=model, messages=ask("one two three"))
                    except openai.OpenAIError:
                        pass
                self.over.wait(0.05)

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()


class Page(Case):
    def test_in_a_browser(self):
        with Calls():
            passes("page.mjs", PAGE=proxy.root, TOKEN=CLIENT_TOKEN, PICTURES=str(WORK), CONFIG=str(proxy.config))
