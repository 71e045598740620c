"""Agents as people run them, without a person beside them: each finishes a task with a tool, by the recipe of its page."""

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from harness import CLIENT_TOKEN, ConfiguredProxy, Process, fetch, provider_key

HERE = Path(__file__).resolve().parent
RECIPES = HERE / "recipes"
PAGES = [HERE.parents[2] / "docs" / name for name in ("clients.md", "clients.zh.md")]
PATIENCE = 120.0  # seconds: far above what any takes, most of which is its start
DONE = "All is done now."
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
# Nothing on the way to the proxy, and nothing beside it.
QUIET = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "OPENCODE_DISABLE_MODELS_FETCH": "1",
         "OPENCODE_DISABLE_AUTOUPDATE": "1", "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
         "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def pdf():
    """A page without anything on it."""
    objects = [b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
               b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>"]
    text, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(text))
        text += b"%d 0 obj%sendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    return text + (b"xref\n0 4\n0000000000 65535 f \n%strailer<</Size 4/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n"
                   % (table, len(text)))


class Agents(unittest.TestCase):
    """One provider and one proxy for each test; `plain` is translated, `native` speaks Anthropic's format."""

    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.work = self.folder / "work"
        self.work.mkdir()
        (self.work / "picture.png").write_bytes(base64.b64decode(PIXEL))
        (self.work / "report.pdf").write_bytes(pdf())
        command = [sys.executable, "-B", str(HERE / "provider.py"), str(self.work)]
        provider = self.enterContext(Process(command, r"^(\d+)$", subprocess.PIPE))
        self.provider = "http://127.0.0.1:" + provider.match[1]
        native = {"name": "native", "url": self.provider + "/v1", "anthropic_url": self.provider + "/native/v1",
                  "key": provider_key("native")}
        plain = {"name": "plain", "url": self.provider + "/v1", "key": provider_key("plain")}
        self.log = Path(os.environ["E2E_LOG"])
        self.logged_before = self.log.stat().st_size
        self.proxy = self.enterContext(ConfiguredProxy([native, plain], stream_heartbeat=0.3, max_retries=0))

    def run_recipe(self, name, model, *more, **changes):
        """Runs a recipe with `more` at its end; what it said."""
        text = (RECIPES / name).read_text().rstrip("\n")
        changes = {"http://127.0.0.1:8080": self.proxy.root, "sk-of-a-client": CLIENT_TOKEN, "zhipu/glm-4.6": model,
                   "zhipu/glm-4.5-air": "plain/talk", **changes}
        for old, new in changes.items():
            text = text.replace(old, new)
        path = ":".join(os.environ.get(name, "") for name in ("E2E_AGENTS_BIN", "E2E_AIDER_BIN", "PATH"))
        environment = {**os.environ, **QUIET, "HOME": str(self.folder), "PATH": path}
        done = subprocess.run(["bash", "-eu", "-c", " ".join([text, *more])], capture_output=True, text=True,
                              timeout=PATIENCE, cwd=self.work, env=environment, stdin=subprocess.DEVNULL, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def calls(self):
        """The model and the status of each call of this test, as the proxy logged them."""
        text = self.log.read_bytes()[self.logged_before:].decode(errors="replace")
        return re.findall(r" model=(\S+) status=(\d+)", text)

    def statuses(self):
        return [int(status) for _, status in self.calls()]

    def seen(self):
        return [json.dumps(request["body"]) for request in json.loads(fetch(self.provider + "/_seen"))]

    def written(self):
        return (self.work / "hello.txt").read_text()

    def test_claude_code_finishes_a_task_without_a_refused_call(self):
        for model in ("plain/write", "native/write"):
            with self.subTest(model):
                (self.work / "hello.txt").unlink(missing_ok=True)
                self.assertIn(DONE, self.run_recipe("claude-code.sh", model))
                self.assertEqual(self.written(), "hello\n")
        self.assertEqual(self.statuses(), [200] * 4)
        self.assertIn(DONE, self.run_recipe("claude-code.sh", "plain/talk", "--continue"))
        self.assertIn("tool_calls", self.seen()[-1], "a session begun on one provider continues at another")

    def test_claude_code_goes_on_after_trouble(self):
        for trouble, statuses in (("busy", [200, 429, 200]), ("broken", [200, 200, 200]), ("silent", [200, 200])):
            with self.subTest(trouble):
                self.logged_before = self.log.stat().st_size
                (self.work / "hello.txt").unlink(missing_ok=True)
                self.assertIn(DONE, self.run_recipe("claude-code.sh", "plain/write+" + trouble))
                self.assertEqual((self.written(), self.statuses()), ("hello\n", statuses))

    def test_claude_code_shows_an_image_and_goes_on_without_a_pdf_that_is_refused(self):
        self.assertIn(DONE, self.run_recipe("claude-code.sh", "plain/show"))
        self.assertIn('"type": "image_url"', self.seen()[-1])
        self.assertEqual(self.statuses(), [200, 200])
        self.assertIn(DONE, self.run_recipe("claude-code.sh", "plain/sum-up"))
        self.assertIn('"type": "file"', self.seen()[-2])
        self.assertEqual(self.statuses()[2:], [200, 400, 200])

    def test_claude_code_asks_for_the_small_model_in_a_subagent(self):
        self.assertIn(DONE, self.run_recipe("claude-code.sh", "plain/delegate"))
        self.assertIn(("plain/talk", "200"), self.calls())
        self.assertEqual(set(self.statuses()), {200})

    def test_claude_code_finds_a_tool_whose_loading_is_deferred(self):
        self.assertIn(DONE, self.run_recipe("claude-code.sh", "plain/search"))
        first, second = self.seen()
        self.assertNotIn('"name": "WebFetch"', first)
        self.assertIn('"name": "WebFetch"', second)
        self.assertEqual(self.statuses(), [200, 200])

    def test_the_others_finish_a_task_and_go_on_after_a_429(self):
        for recipe in ("opencode.sh", "qwen-code.sh", "continue.sh"):
            with self.subTest(recipe):
                self.logged_before = self.log.stat().st_size
                (self.work / "hello.txt").unlink(missing_ok=True)
                # The provider refuses once for each model.
                model = "plain/write+busy+" + recipe.removesuffix(".sh")
                self.assertIn(DONE, self.run_recipe(recipe, model))
                self.assertEqual(self.written(), "hello\n")
                self.assertEqual(sorted(self.statuses(), key=lambda status: status != 200)[-1], 429)

    @unittest.skipUnless("E2E_AIDER_BIN" in os.environ, "half a gigabyte of packages: `make e2e-heavy`")
    def test_aider_edits_a_file(self):
        self.run_recipe("aider.sh", "plain/list")
        self.assertEqual((self.written(), self.statuses()), ("hello\n", [200]))


class Page(unittest.TestCase):
    def test_both_have_each_recipe_and_version(self):
        for page in PAGES:
            with self.subTest(page.name):
                self.hold(page.read_text())

    def hold(self, page):
        for recipe in RECIPES.iterdir():
            # What it says of another page is too long to be shown.
            self.assertTrue("```sh\n%s```\n" % recipe.read_text() in page, recipe.name)
        pins = re.findall(r"^([\w-]+)==([\w.]+)$", (HERE / "requirements.txt").read_text(), re.M)
        node = re.findall(r'"((?:@[\w-]+/)?[\w-]+)": "(\d[\w.]*)"', (HERE / "package.json").read_text())
        for package, version in [*pins, *node]:
            self.assertTrue("`%s` %s" % (package, version) in page, package)
