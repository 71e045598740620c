"""What the tests of this folder share beside `tests/e2e/python/harness.py`."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
PATIENCE = 120.0  # seconds for a tool to end: far above what one takes


def run(*command, patience=PATIENCE, **options):
    """Runs a tool to its end and returns what it said, stdout and stderr together. It must succeed."""
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, text=True, timeout=patience, check=False, **options)
    if done.returncode != 0:
        raise AssertionError("%s: exit code %d\n%s" % (" ".join(map(str, command)), done.returncode, done.stdout))
    return done.stdout


def replaced(path, changes):
    """A file's text with parts of it replaced, each of which must be there: what is tested is the file itself."""
    text = Path(path).read_text()
    for old, new in changes.items():
        if old not in text:
            raise AssertionError("%s has no %r" % (path, old))
        text = text.replace(old, new)
    return text
