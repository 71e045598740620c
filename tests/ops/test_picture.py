"""The pictures of the status page that README shows, taken in a real browser: see `picture.mjs`.

They are left in target/ops; with PICTURE_SECONDS=100 they are fit for the pages: `cp target/ops/status-*.png docs/`."""

import threading

from browser import WORK, passes
from harness import CLIENT_TOKEN, Case, ConfiguredProxy, Upstream, for_module, provider_key, unreachable_url
from in_front import Plain
from tools import ROOT

NIGHTLY = "sk-client-token-of-nightly-jobs"
LARGEST = 150_000  # bytes of a picture in docs


def setUpModule():
    global proxy
    provider = for_module(Upstream("alpha"))
    held, nowhere = unreachable_url()
    for_module(held)

    def entry(name, url, *models):
        return {"name": name, "url": url, "key": provider_key(name), "models": list(models)}

    alive = provider.root + "/v1"
    proxy = for_module(ConfiguredProxy(
        [entry("zhipu", alive, "glm-4.6", "glm-4.5-air"), entry("deepseek", alive, "deepseek-chat"),
         entry("openai", alive, "gpt-5.5"), entry("ollama", nowhere, "qwen3:8b")],
        tokens=[{"name": "web app", "token": CLIENT_TOKEN, "rpm": 60000, "tokens_per_day": 2000000},
                {"name": "nightly jobs", "token": NIGHTLY, "max_parallel": 4}],
        models={"fast": "zhipu/glm-4.5-air", "best": ["deepseek/deepseek-chat", "zhipu/glm-4.6"]}, max_retries=0, language="en"))


class Clients:
    """Two clients at work while the pictures are taken."""

    def __enter__(self):
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.call, args=each)
                        for each in ((CLIENT_TOKEN, 0.04), (NIGHTLY, 0.11))]
        for thread in self.threads:
            thread.start()

    def call(self, token, pause):
        connection = Plain(proxy.root.removeprefix("http://"), token)
        models = ["best", "fast", "zhipu/glm-4.6", "openai/gpt-5.5", "fast", "best", "fast"] * 4 + ["ollama/qwen3:8b"]
        while not self.ended.is_set():
            for number, model in enumerate(models):
                connection.chat(model, stream=number % 2 == 0).read()
                if self.ended.wait(pause):
                    break
        connection.close()

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()


class Picture(Case):
    def test_the_status_page_in_light_and_dark(self):
        with Clients():
            passes("picture.mjs", PAGE=proxy.root, PICTURES=str(WORK))
        for scheme in ("light", "dark"):
            name = "status-%s.png" % scheme
            for folder in (WORK, ROOT / "docs"):
                with self.subTest(folder / name):
                    picture = (folder / name).read_bytes()
                    self.assertEqual(picture[:8], b"\x89PNG\r\n\x1a\n")
                    self.assertLess(len(picture), LARGEST)
