"""The man page by Debian's `man`, and the completions by the shells themselves. `tests/it/generated.rs` holds what they say."""

import os
import subprocess
import unittest

from tools import DEPLOY, PATIENCE, ROOT, run

COMPLETIONS = DEPLOY / "completions"


class ManPage(unittest.TestCase):
    def test_it_renders_without_a_warning(self):
        done = subprocess.run(["man", "--warnings", "--local-file", str(ROOT / "docs/ai-proxy.1")], capture_output=True,
                              text=True, timeout=PATIENCE, check=False,
                              env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80"})
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("SYNOPSIS", done.stdout)
        self.assertIn("ai-proxy check", done.stdout)


class Completions(unittest.TestCase):
    def test_bash_registers_them(self):
        said = run("bash", "--norc", "-euc", 'source "$0"; complete -p ai-proxy', COMPLETIONS / "ai-proxy.bash")
        self.assertEqual(said, "complete -F _ai_proxy ai-proxy\n")

    def test_zsh_registers_and_loads_them(self):
        said = run("zsh", "-fc", 'fpath=("$0" $fpath); autoload -U compinit; compinit -D -u; print $_comps[ai-proxy]; autoload +X _ai-proxy',
                   COMPLETIONS)
        self.assertEqual(said, "_ai-proxy\n")

    def test_fish_completes_commands_and_options(self):
        def complete(words):
            said = run("fish", "--no-config", "-c", 'source $argv[1]; complete -C $argv[2]', COMPLETIONS / "ai-proxy.fish", words,
                       env={**os.environ, "LC_ALL": "C.UTF-8"})
            return [line.split("\t")[0] for line in said.splitlines()]

        self.assertEqual(complete("ai-proxy ch"), ["check"])
        self.assertEqual(complete("ai-proxy demo --p"), ["--port"])
