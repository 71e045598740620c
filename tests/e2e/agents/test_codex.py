"""Codex by its recipe, on a provider that speaks chat completions alone: it runs tools, edits a file and resumes a session, at
the first try."""

import base64
import json
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

from codex_provider import Provider
from harness import CLIENT_TOKEN, ConfiguredProxy, provider_key

RECIPE = (Path(__file__).resolve().parent / "recipes/codex.sh").read_text()
CODEX = "codex exec --skip-git-repo-check --sandbox workspace-write"
# The sandbox needs more of a system than those have that run tests.
OPENED = "codex exec --json --skip-git-repo-check --dangerously-bypass-approvals-and-sandbox"
TASK = '"Write hello into hello.txt"'
LIMIT = 120.0  # seconds: far above what a task takes
PATCH = "*** Begin Patch\n*** Add File: hello.txt\n+Grüße, \"world\"\n*** End Patch\n"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TEXT = "Grüße, \"world\"\n"


def results(messages):
    """What the tools gave since the user last spoke."""
    last = max(at for at, message in enumerate(messages) if message["role"] == "user")
    return [message["content"] for message in messages[last:] if message["role"] == "tool"]


def edits_by_patch(messages):
    done = len(results(messages))
    return [("apply_patch", {"input": PATCH}), ("exec_command", {"cmd": "cat hello.txt"}), "All done."][done]


def edits_by_shell(messages):
    done = len(results(messages))
    return [("exec_command", {"cmd": "echo 'Grüße, \"world\"' > hello.txt && cat hello.txt"}), "All done."][done]


def looks_at_a_picture(messages):
    # The picture stands behind the results of the tools, as what the user says.
    is_first = all(message["role"] != "tool" for message in messages)
    return ("view_image", {"path": "picture.png"}) if is_first else "All done."


class Codex(unittest.TestCase):
    def setUp(self):
        # Codex links its own tools beside its settings, but not below the folder for temporary files.
        beside = Path(os.environ["E2E_AGENTS_BIN"]).parents[1]
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory(dir=beside)))
        self.work = self.folder / "work"
        self.work.mkdir()

    def provider(self, script, *troubles):
        provider = self.enterContext(Provider(script, troubles))
        entry = "script|%s|%s" % (provider.url, provider_key("script"))
        self.proxy = self.enterContext(ConfiguredProxy([entry], max_retries=0, stream_heartbeat=0.3))
        return provider

    def run_codex(self, model, task, may_reconnect=False):
        """Runs the recipe with another task, to its end; its events. `may_reconnect`: not every answer came at the first try."""
        text = RECIPE
        for old, new in {"zhipu/glm-4.6": "script/" + model, "http://127.0.0.1:8080": self.proxy.root,
                         "sk-of-a-client": CLIENT_TOKEN, CODEX: OPENED, TASK: task}.items():
            self.assertIn(old, text)
            text = text.replace(old, new)
        environment = {**os.environ, "HOME": str(self.folder),
                       "PATH": "%s:%s" % (os.environ["E2E_AGENTS_BIN"], os.environ["PATH"])}
        ran = subprocess.run(["bash", "-eu", "-c", text], cwd=self.work, env=environment, capture_output=True, text=True,
                             timeout=LIMIT, stdin=subprocess.DEVNULL, check=False)
        self.assertEqual(ran.returncode, 0, ran.stdout + ran.stderr)
        events = [json.loads(line) for line in ran.stdout.splitlines()]
        kinds = [event["type"] for event in events]
        self.assertEqual(kinds[-1], "turn.completed", ran.stdout)
        self.assertEqual("error" in kinds, may_reconnect, ran.stdout)
        return events

    def items(self, events, kind):
        completed = (event["item"] for event in events if event["type"] == "item.completed")
        return [item for item in completed if item["type"] == kind]

    def test_a_patch_a_command_and_a_resumed_session(self):
        provider = self.provider(edits_by_patch)
        events = self.run_codex("gpt-5.5", TASK)
        self.assertEqual((self.work / "hello.txt").read_text(), TEXT)
        self.assertEqual([item["text"] for item in self.items(events, "agent_message")], ["All done."])
        self.assertEqual([item["status"] for item in self.items(events, "file_change")], ["completed"])
        usage = events[-1]["usage"]
        self.assertEqual((usage["input_tokens"], usage["output_tokens"]), (300, 60))
        self.assertEqual(len(provider.asked), 3, "each answer was taken at the first try")
        call, result = provider.asked[1]["messages"][-2:]
        self.assertEqual(json.loads(call["tool_calls"][0]["function"]["arguments"]), {"input": PATCH})
        self.assertEqual((call["tool_calls"][0]["id"], result["tool_call_id"]), ("call_1", "call_1"))
        self.assertIn(TEXT, results(provider.asked[2]["messages"])[1])

        (self.work / "hello.txt").unlink()
        events = self.run_codex("gpt-5.5", 'resume --last "Once more."')
        self.assertEqual([item["text"] for item in self.items(events, "agent_message")], ["All done."])
        self.assertEqual((self.work / "hello.txt").read_text(), TEXT)
        roles = [message["role"] for message in provider.asked[-1]["messages"]]
        self.assertEqual(roles.count("tool"), 4, "the session before is there")
        self.assertEqual(len(provider.asked), 6)
        self.assertLessEqual(len(provider.refused), 1, "the path that is not there is asked once")

    def test_a_model_that_codex_does_not_know(self):
        provider = self.provider(edits_by_shell)
        events = self.run_codex("open-model", TASK)
        self.assertEqual((self.work / "hello.txt").read_text(), TEXT)
        self.assertEqual([item["text"] for item in self.items(events, "agent_message")], ["All done."])
        self.assertEqual([item["exit_code"] for item in self.items(events, "command_execution")], [0])
        self.assertEqual(len(provider.asked), 2)

    def test_a_picture(self):
        provider = self.provider(looks_at_a_picture)
        (self.work / "picture.png").write_bytes(base64.b64decode(PIXEL))
        events = self.run_codex("gpt-5.5", '"Look at picture.png."')
        self.assertEqual([item["text"] for item in self.items(events, "agent_message")], ["All done."])
        self.assertEqual(len(provider.asked), 2)
        self.assertIn("data:image/png;base64,", json.dumps(provider.asked[1]["messages"]))

    def test_trouble_is_gone_through(self):
        for trouble in ("busy", "broken", "silent"):
            with self.subTest(trouble):
                provider = self.provider(edits_by_shell, trouble)
                events = self.run_codex("gpt-5.5", TASK, may_reconnect=trouble != "silent")
                self.assertEqual((self.work / "hello.txt").read_text(), TEXT)
                self.assertEqual([item["text"] for item in self.items(events, "agent_message")], ["All done."])
                self.assertEqual(len(provider.asked), 2 if trouble == "silent" else 3)


if __name__ == "__main__":
    unittest.main()
