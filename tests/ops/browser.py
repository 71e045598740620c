"""A real browser for the tests of this folder: Debian's Chromium, driven by playwright-core from Node."""

import os
import shutil
import subprocess
from pathlib import Path

from tools import PATIENCE, ROOT, run

HERE = Path(__file__).resolve().parent
WORK = ROOT / "target" / "ops"


def playwright():
    """The folder with playwright-core, installed anew only when its pin changed."""
    folder, pin = WORK / "node", HERE / "package.json"
    done = folder / "installed.json"
    if not done.exists() or done.read_bytes() != pin.read_bytes():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(pin, folder)
        run("npm", "install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error", cwd=folder)
        shutil.copy(pin, done)
    return folder


def passes(script, **environment):
    """Runs a script of Node's tests, which finds what it is to look at in its environment. It must pass."""
    environment = {**os.environ, "NODE_MODULES": str(playwright() / "node_modules"), **environment}
    done = subprocess.run(["node", "--test", str(HERE / script)], env=environment, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=3 * PATIENCE, check=False)
    if done.returncode != 0:
        raise AssertionError(done.stdout)
