"""What the pages tell people to paste does what they say."""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema  # which litellm brings

from harness import BINARY, DEADLINE, Case, Demo, for_module

ROOT = Path(__file__).resolve().parents[3]
LANGUAGES = ("md", "zh.md")
PAGES = ("README", "docs/api", "docs/config")
DEMO = "http://127.0.0.1:8001"  # where the pages have it; the test's own is on a free port


def setUpModule():
    global demo
    demo = for_module(Demo())


def blocks(end, language):
    pages = "\n".join((ROOT / f"{page}.{end}").read_text() for page in PAGES)
    # An example may be in more than one page.
    return list(dict.fromkeys(re.findall(r"^```%s\n(.*?)^```$" % language, pages, re.M | re.S)))


class Pages(Case):
    def examples(self, language):
        """The examples that call the demo, and in which pages they are: at least one in each language."""
        for end in LANGUAGES:
            found = [block.replace(DEMO, demo.root) for block in blocks(end, language) if DEMO in block]
            self.assertTrue(found, "no %s example for the demo in the pages *.%s" % (language, end))
            for block in found:
                yield end, block

    def output(self, *command, **options):
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, **options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_python(self):
        for end, example in self.examples("python"):
            with self.subTest(end):
                self.assertEqual(self.output(sys.executable, "-c", example).count("one two three"), 2)

    def test_javascript(self):
        # Beside the packages, as after `npm install openai`.
        beside = Path(os.environ["E2E_NODE_MODULES"]).parent
        for end, example in self.examples("js"):
            with self.subTest(end), tempfile.NamedTemporaryFile("w", suffix=".mjs", dir=beside) as file:
                file.write(example)
                file.flush()
                self.assertEqual(self.output("node", file.name).count("one two three"), 2)

    def test_curl(self):
        for end, example in self.examples("sh"):
            with self.subTest(end):
                said = self.output("bash", "-euc", example)
                self.assertIn("data: [DONE]" if "stream" in example else "chat.completion", said)

    def test_configs(self):
        for end in LANGUAGES:
            configs = [block for block in blocks(end, "json") if '"providers"' in block and '"tokens"' in block]
            self.assertTrue(configs, end + " has no config")
            for config in [*configs, (ROOT / "config.json.example").read_text()]:
                with self.subTest(end):
                    self.check(config)

    def test_schema(self):
        schema = json.loads((ROOT / "docs/config.schema.json").read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        validator = jsonschema.Draft202012Validator(schema)
        blocks_of_json = [block for end in LANGUAGES for block in blocks(end, "json") if '"providers"' in block]
        for config in map(json.loads, [*blocks_of_json, (ROOT / "config.json.example").read_text()]):
            with self.subTest(config):
                self.assertEqual([], [error.message for error in validator.iter_errors(config)])
                for wrong in ({"prot": 8080}, {"port": "8080"}, {"log_level": "LOUD"}, {"providers": [{"name": "p"}]}):
                    self.assertFalse(validator.is_valid({**config, **wrong}), wrong)

    def check(self, config):
        variables = {name: "sk-of-the-environment-" + name for name in re.findall(r"\$\{(\w+)\}", config)}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "config.json"
            path.write_text(config)
            said = self.output(BINARY, "check", "--config", str(path), env={**os.environ, **variables}, cwd=folder)
        for provider in json.loads(config)["providers"]:
            name = provider["name"] if isinstance(provider, dict) else provider.split("|")[0]
            self.assertIn(name, said)
        self.assertNotIn("sk-of-the-environment", said)
