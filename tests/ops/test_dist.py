"""What is handed out: the static binary, the tarball, the Debian package."""

import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

from tools import ROOT, run

BUILD = 1500.0  # seconds for a release build on a machine with other things to do
LARGEST = 5.0  # MiB
# All but the build's own folder must not change what comes out.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("CARGO_TARGET_DIR", "RUSTFLAGS")}


def setUpModule():
    global epoch, tarball, unpacked
    epoch = run("git", "log", "-1", "--format=%ct", cwd=ROOT).strip()
    tarball = pack(ROOT)
    folder = Path(unittest.enterModuleContext(tempfile.TemporaryDirectory()))
    with tarfile.open(tarball) as archive:
        archive.extractall(folder, filter="data")
    unpacked, = folder.iterdir()


def pack(folder):
    said = run("make", "--no-print-directory", "dist", cwd=folder, env={**ENVIRONMENT, "SOURCE_DATE_EPOCH": epoch},
               patience=BUILD)
    return folder / "target/dist" / said.split()[-1]


class Tarball(unittest.TestCase):
    def test_everything_is_in_it(self):
        names = {path.name for path in unpacked.iterdir()}
        self.assertLessEqual({"ai-proxy", "README.md", "README.zh.md", "LICENSE", "CHANGELOG.md", "DEPENDENCIES.md", "SECURITY.md", "CONTRIBUTING.md",
                              "deploy", "docs", "config.json.example", "THIRD-PARTY-LICENSES.txt", "sbom.cdx.json"}, names)
        self.assertIn("ai-proxy.service", {path.name for path in (unpacked / "deploy").iterdir()})
        self.assertRegex(run(unpacked / "ai-proxy", "--version"), r"^ai-proxy \d+\.\d+\.\d+\n$")
        checked = run(unpacked / "ai-proxy", "check", "--config", unpacked / "config.json.example", env={
            name: "the-value-of-" + name for name in re.findall(r"\$\{(\w+)}", (unpacked / "config.json.example").read_text())})
        self.assertIn("openai", checked)

    def test_the_bill_of_materials_is_the_list_of_dependencies(self):
        bill = json.loads((unpacked / "sbom.cdx.json").read_text())
        self.assertEqual((bill["bomFormat"], bill["specVersion"]), ("CycloneDX", "1.5"))
        self.assertRegex(bill["serialNumber"], r"^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
        listed = (ROOT / "DEPENDENCIES.md").read_text().split("\n## ")[1]
        rows = re.findall(r"^\| \[([^]]+)]\S+ \| (\S+) \|", listed, re.MULTILINE)
        components = {(c["name"], c["version"]): c for c in bill["components"]}
        self.assertEqual(set(rows), {key for key in components if key[0] != "rust-std"})
        self.assertTrue(all(c.get("hashes") for key, c in components.items() if key[0] != "rust-std"))
        references = {c["bom-ref"] for c in [*bill["components"], bill["metadata"]["component"]]}
        for edge in bill["dependencies"]:
            self.assertLessEqual({edge["ref"], *edge["dependsOn"]}, references)
        texts = (unpacked / "THIRD-PARTY-LICENSES.txt").read_text()
        for name, version in rows:
            self.assertIn("%s %s" % (name, version), texts)
        self.assertIn("Permission is hereby granted, free of charge", texts)

    def test_the_binary_is_static_stripped_small_and_names_no_folder_of_this_machine(self):
        binary = unpacked / "ai-proxy"
        self.assertNotIn("INTERP", run("readelf", "--program-headers", "--wide", binary))
        self.assertNotIn("NEEDED", run("readelf", "--dynamic", binary))
        self.assertNotIn(".symtab", run("readelf", "--sections", "--wide", binary))
        self.assertLess(binary.stat().st_size / (1 << 20), LARGEST)
        content = binary.read_bytes()
        for place in (str(ROOT), os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))):
            self.assertNotIn(place.encode() + b"/", content)

    def test_another_folder_gives_the_same_bytes(self):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "somewhere" / "else"
            for name in run("git", "ls-files", "-z", cwd=ROOT).split("\0")[:-1]:
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
            self.assertEqual(pack(copy).read_bytes(), tarball.read_bytes())

    def test_it_needs_nothing_but_itself(self):
        inner = "ip link set lo up && exec \"$0\" -m unittest in_chroot"
        said = run("unshare", "--net", "sh", "-c", inner, sys.executable,
                   env={**os.environ, "AI_PROXY_STATIC": str(unpacked / "ai-proxy")})
        self.assertIn("Ran 1 test", said)


class TestTree:
    """A root directory with just what a package's scripts call."""

    COMMANDS = ("sh", "useradd", "getent", "install", "rm", "chown", "true")
    FILES = ("/etc/login.defs", "/etc/nsswitch.conf")

    def __init__(self, root):
        self.root = Path(root)
        for name in ("etc", "var/lib/dpkg/info", "var/lib/dpkg/updates", "tmp", "var/log", "usr/bin", "dev"):
            (self.root / name).mkdir(parents=True)
        for name in ("var/lib/dpkg/status", "var/lib/dpkg/available", "dev/null"):
            (self.root / name).touch()
        for name in ("bin", "sbin", "lib", "lib64"):
            (self.root / "usr" / name).mkdir(exist_ok=True)
            (self.root / name).symlink_to("usr/" + name)
        for command in self.COMMANDS:
            found = shutil.which(command)
            libraries = re.findall(r"(/\S+) \(0x", run("ldd", found))
            for path in (found, *libraries):
                self.copy(path)
        for path in self.FILES:
            self.copy(path)
        for name, line in (("passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("group", "root:x:0:\n"), ("shadow", "root:*:::::::\n"),
                           ("gshadow", "root:*::\n")):
            (self.root / "etc" / name).write_text(line)

    def copy(self, path):
        to = self.root / path.lstrip("/")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, to)

    def dpkg(self, *words):
        # It depends on what is copied here without being installed.
        return run("dpkg", "--root=%s" % self.root, "--force-depends", *words)


class DebianPackage(unittest.TestCase):
    def test_it_is_installed_removed_and_purged(self):
        run("make", "--no-print-directory", "deb", cwd=ROOT, env=ENVIRONMENT, patience=BUILD)
        package, = (ROOT / "target/debian").glob("ai-proxy_*.deb")
        with tempfile.TemporaryDirectory() as folder:
            tree = TestTree(folder)
            tree.dpkg("--install", package)
            self.assertRegex(run("chroot", tree.root, "/usr/bin/ai-proxy", "--version"), r"^ai-proxy ")
            self.assertIn("ai-proxy:", (tree.root / "etc/passwd").read_text())
            folder = tree.root / "etc/ai-proxy"
            self.assertEqual(folder.stat().st_mode & 0o777, 0o750)
            self.assertTrue((tree.root / "usr/share/doc/ai-proxy/config.json.example").exists())
            self.assertTrue(list(tree.root.glob("usr/share/man/man1/ai-proxy.1*")))
            for completion in ("bash-completion/completions/ai-proxy", "zsh/vendor-completions/_ai-proxy",
                               "fish/vendor_completions.d/ai-proxy.fish"):
                self.assertTrue((tree.root / "usr/share" / completion).exists(), completion)
            self.assertTrue(list(tree.root.glob("**/systemd/system/ai-proxy.service")))
            # What an operator puts there is not removed with the package.
            (folder / "config.json").write_text("{}")
            tree.dpkg("--remove", "ai-proxy")
            self.assertFalse((tree.root / "usr/bin/ai-proxy").exists())
            self.assertTrue((folder / "config.json").exists())
            tree.dpkg("--purge", "ai-proxy")
            self.assertFalse(folder.exists())
