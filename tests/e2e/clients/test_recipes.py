"""The recipes of `docs/clients.md`: each client's few lines do what they say, and the page has them as they are here."""

import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from harness import Demo, for_module, wait_for

ROOT = Path(__file__).resolve().parents[3]
RECIPES = ROOT / "tests/e2e/recipes"
PAGE = ROOT / "docs/clients.md"
DEMO = "http://127.0.0.1:8001"  # where the recipes have it; the test's own is on a free port
PATIENCE = 300.0  # seconds: far above what any takes, some of which is loading its packages
LANGUAGES = {".py": "python", ".mjs": "js", ".sh": "sh"}
# What shows that the answer came in pieces, where the client shows it.
PIECES = {"curl.sh": '"content":"two "', "llm.sh": ""}
# Clients that have no call for a list of models.
WITHOUT_MODELS = {"anthropic.py", "langchain.py", "ai-sdk.mjs", "llm.sh"}
# What the client says of an error: of a token that is wrong, and of a model that is not there.
ERRORS = {
    "openai.py": ("AuthenticationError", "NotFoundError"),
    "openai.mjs": ("AuthenticationError", "NotFoundError"),
    "anthropic.py": ("AuthenticationError", "NotFoundError"),
    "litellm.py": ("AuthenticationError", "NotFoundError"),
    "langchain.py": ("AuthenticationError", "NotFoundError"),
    "ai-sdk.mjs": ("statusCode: 401", "statusCode: 404"),
    "llm.sh": ("Error code: 401", "Error code: 404"),
    "curl.sh": ("error: 401", "error: 404"),
    "httpx.py": ("401 Unauthorized", "404 Not Found"),
}


def setUpModule():
    global demo
    demo = for_module(Demo())


class Recipes(unittest.TestCase):
    def run_recipe(self, name, **changes):
        """Runs a recipe against the demo, some words of it changed; what it did and said."""
        text = (RECIPES / name).read_text()
        for old, new in {DEMO: demo.root, **changes}.items():
            self.assertIn(old, text)
            text = text.replace(old, new)
        # JavaScript looks for its packages beside the file, as after `npm install`.
        beside = Path(os.environ["E2E_NODE_MODULES"]).parent
        with tempfile.TemporaryDirectory(dir=beside) as folder:
            path = Path(folder) / name
            # A name of its own: `litellm.py` would import itself.
            path = path.with_name("recipe" + path.suffix)
            path.write_text(text)
            command = {".py": [sys.executable], ".mjs": ["node"], ".sh": ["bash", "-eu"]}[path.suffix]
            environment = {**os.environ, "LLM_USER_PATH": folder, "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                           "PATH": "%s:%s" % (Path(sys.executable).parent, os.environ["PATH"])}
            return subprocess.run([*command, str(path)], capture_output=True, text=True, timeout=PATIENCE, cwd=folder,
                                  env=environment, stdin=subprocess.DEVNULL, check=False)

    def logged(self, kind):
        """How many relayed requests of that kind the proxy has logged, all of the suite together."""
        return Path(os.environ["E2E_LOG"]).read_text(errors="replace").count(" %s bytes=" % kind)

    def test_each_asks_streams_and_lists(self):
        for name in ERRORS:
            with self.subTest(name):
                before = {kind: self.logged(kind) for kind in ("stream=false", "stream=true")}
                done = self.run_recipe(name)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("one two three", done.stdout)
                for kind, count in before.items():
                    wait_for(lambda: self.logged(kind) == count + 1, "one more request with " + kind)
                self.assertIn(PIECES.get(name, "one |two |three|"), done.stdout)
                self.assertEqual("demo/echo" in done.stdout, name not in WITHOUT_MODELS, done.stdout)

    def test_each_tells_a_wrong_token_and_a_wrong_model(self):
        for name, (token, model) in ERRORS.items():
            for said, changes in ((token, {"sk-demo": "sk-wrong"}), (model, {"demo/echo": "nobody/nothing"})):
                with self.subTest(name, said=said):
                    done = self.run_recipe(name, **changes)
                    self.assertNotEqual(done.returncode, 0, done.stdout)
                    self.assertIn(said, done.stderr)

    def test_the_page_has_each_recipe_as_it_is_here(self):
        page = PAGE.read_text()
        found = {path.name for path in RECIPES.iterdir()}
        self.assertEqual(set(ERRORS), found)
        for name in found:
            text = (RECIPES / name).read_text()
            self.assertIn("```%s\n%s```\n" % (LANGUAGES[Path(name).suffix], text), page, name)

    def test_the_page_names_the_versions_that_are_tested(self):
        page = PAGE.read_text()
        pins = re.findall(r"^([\w-]+)==([\w.]+)$", (RECIPES.parent / "requirements.txt").read_text(), re.M)
        node = re.findall(r'"((?:@[\w-]+/)?[\w-]+)": "(\d[\w.]*)"', (RECIPES.parent / "package.json").read_text())
        for package, version in [*pins, *node]:
            self.assertIn("`%s` %s" % (package, version), page)
