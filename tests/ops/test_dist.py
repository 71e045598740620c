"""What is handed out, as `make release` makes it: for each machine the static binary in a tarball, in a Debian package and in an
RPM, its bill of materials, and the checksums.

CI builds those for ARM in the dev profile (CROSS_PROFILE), which changes what the compiler does and nothing of the packing."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

from tools import PATIENCE, ROOT, run

BUILD = 1500.0  # seconds for a release build on a machine with other things to do
LARGEST = 5.0  # MiB
# All but the build's own folder must not change what comes out.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in ("CARGO_TARGET_DIR", "RUSTFLAGS")}
ENVIRONMENT.setdefault("CROSS_PROFILE", "dev")
VERSION, = re.findall(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[:1]
# How the formats call a machine, and what `readelf` says of its binaries.
MACHINES = {
    "amd64": ("x86_64-unknown-linux-gnu", "x86_64", "X86-64"),
    "arm64": ("aarch64-unknown-linux-gnu", "aarch64", "AArch64"),
    "armhf": ("armv7-unknown-linux-gnueabihf", "armv7hl", "ARM"),
}
# What a package has beside documents and examples.
INSTALLED = {
    "/usr/bin/ai-proxy", "/etc/logrotate.d/ai-proxy", "/etc/ai-proxy/env.example",
    "/usr/share/bash-completion/completions/ai-proxy", "/usr/share/fish/vendor_completions.d/ai-proxy.fish",
    "/usr/share/doc/ai-proxy/config.json.example",
}


def setUpModule():
    global epoch, files, tarball, unpacked
    epoch = run("git", "log", "-1", "--format=%ct", cwd=ROOT).strip()
    files = release(ROOT, *MACHINES)
    tarball = files / tarball_of(MACHINES["amd64"][0])
    folder = Path(unittest.enterModuleContext(tempfile.TemporaryDirectory()))
    with tarfile.open(tarball) as archive:
        archive.extractall(folder, filter="data")
    unpacked, = folder.iterdir()


def release(folder, *machines):
    """Makes a release and returns the folder of its files."""
    run("make", "--no-print-directory", "release", "MACHINES=" + " ".join(machines), cwd=folder,
        env={**ENVIRONMENT, "SOURCE_DATE_EPOCH": epoch}, patience=BUILD)
    return folder / "target/dist"


def tarball_of(target):
    return "ai-proxy-%s-%s.tar.gz" % (VERSION, target)


def deb_of(machine):
    return "ai-proxy_%s-1_%s.deb" % (VERSION, machine)


def rpm_of(machine):
    return "ai-proxy-%s-1.%s.rpm" % (VERSION, machine)


class Release(unittest.TestCase):
    def test_it_has_the_same_files_for_each_machine_and_their_checksums(self):
        expected = {"SHA256SUMS"}
        for debian, (target, redhat, _) in MACHINES.items():
            expected |= {tarball_of(target), tarball_of(target).replace(".tar.gz", ".cdx.json"), deb_of(debian), rpm_of(redhat)}
        self.assertEqual({path.name for path in files.iterdir()}, expected)
        checked = run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=files).splitlines()
        self.assertEqual({line.removesuffix(": OK") for line in checked}, expected - {"SHA256SUMS"})

    def test_each_package_has_the_binary_of_its_machine(self):
        for debian, (target, redhat, machine) in MACHINES.items():
            folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
            run("tar", "-xzf", files / tarball_of(target), "--strip-components=1", "-C", folder)
            run("dpkg-deb", "--extract", files / deb_of(debian), folder / "deb")
            run("sh", "-euc", 'mkdir rpm && cd rpm && rpm2cpio "$0" | cpio -idm --quiet', files / rpm_of(redhat), cwd=folder)
            binary = (folder / "ai-proxy").read_bytes()
            self.assertEqual((folder / "deb/usr/bin/ai-proxy").read_bytes(), binary)
            self.assertEqual((folder / "rpm/usr/bin/ai-proxy").read_bytes(), binary)
            self.assertRegex(run("readelf", "--file-header", "--program-headers", folder / "ai-proxy"), r"Machine:.*\b%s\n" % machine)
            self.assertNotIn("INTERP", run("readelf", "--program-headers", "--wide", folder / "ai-proxy"))
            self.assertEqual(run("dpkg-deb", "--field", files / deb_of(debian), "Architecture").strip(), debian)
            self.assertEqual(run("rpm", "--query", "--package", "--queryformat", "%{ARCH}", files / rpm_of(redhat)), redhat)

    def test_another_folder_gives_the_same_bytes(self):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "somewhere" / "else"
            for name in run("git", "ls-files", "-z", cwd=ROOT).split("\0")[:-1]:
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
            again = [path for path in release(copy, "arm64").iterdir() if path.name != "SHA256SUMS"]
            self.assertEqual(len(again), 4)
            for path in again:
                self.assertEqual(path.read_bytes(), (files / path.name).read_bytes(), path.name)

    def test_a_missing_tool_is_named_before_anything_is_built(self):
        with tempfile.TemporaryDirectory() as home:
            for goal, tool in (("deb", "cargo-deb"), ("rpm", "cargo-generate-rpm"), ("release", "cargo-deb")):
                done = subprocess.run(["make", "--no-print-directory", goal, "CRATES=" + home], cwd=ROOT, env={**ENVIRONMENT, "PATH": "/usr/bin:/bin"},
                                      capture_output=True, text=True, timeout=PATIENCE, check=False)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertIn("%s is missing: make install-%s" % (tool, tool), done.stderr)
                self.assertEqual(done.stdout, "")


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

    def rpm(self, *words):
        return run("rpm", "--root", self.root, "--dbpath", "/var/lib/rpm", "--nodeps", *words)

    def check_installed(self, case):
        for path in INSTALLED:
            case.assertTrue((self.root / path.lstrip("/")).exists(), path)
        case.assertRegex(run("chroot", self.root, "/usr/bin/ai-proxy", "--version"), r"^ai-proxy ")
        case.assertIn("ai-proxy:", (self.root / "etc/passwd").read_text())
        case.assertEqual((self.root / "etc/ai-proxy").stat().st_mode & 0o777, 0o750)
        case.assertEqual((self.root / "etc/ai-proxy/env.example").stat().st_mode & 0o777, 0o640)
        for unit in ("service", "socket"):
            case.assertTrue(list(self.root.glob("**/systemd/system/ai-proxy.%s" % unit)))


class DebianPackage(unittest.TestCase):
    def test_it_is_installed_removed_and_purged(self):
        with tempfile.TemporaryDirectory() as folder:
            tree = TestTree(folder)
            tree.dpkg("--install", files / deb_of("amd64"))
            tree.check_installed(self)
            self.assertTrue(list(tree.root.glob("usr/share/man/man1/ai-proxy.1*")))
            self.assertTrue((tree.root / "usr/share/zsh/vendor-completions/_ai-proxy").exists())
            self.assertIn("/etc/logrotate.d/ai-proxy", tree.dpkg("--status", "ai-proxy"))
            # What an operator puts there is not removed with the package.
            folder = tree.root / "etc/ai-proxy"
            (folder / "config.json").write_text("{}")
            tree.dpkg("--remove", "ai-proxy")
            self.assertFalse((tree.root / "usr/bin/ai-proxy").exists())
            self.assertTrue((folder / "config.json").exists())
            tree.dpkg("--purge", "ai-proxy")
            self.assertFalse(folder.exists())
            self.assertFalse((tree.root / "etc/logrotate.d/ai-proxy").exists())


class Rpm(unittest.TestCase):
    def test_it_is_installed_and_erased(self):
        with tempfile.TemporaryDirectory() as folder:
            tree = TestTree(folder)
            package = files / rpm_of("x86_64")
            self.assertEqual(set(run("rpm", "--query", "--package", "--configfiles", package).split()),
                             {"/etc/logrotate.d/ai-proxy", "/etc/ai-proxy/env.example"})
            tree.rpm("--install", package)
            tree.check_installed(self)
            self.assertTrue((tree.root / "usr/share/man/man1/ai-proxy.1").exists())
            self.assertTrue((tree.root / "usr/share/zsh/site-functions/_ai-proxy").exists())
            tree.rpm("--verify", "ai-proxy")
            config = tree.root / "etc/ai-proxy/config.json"
            config.write_text("{}")
            tree.rpm("--erase", "ai-proxy")
            self.assertFalse((tree.root / "usr/bin/ai-proxy").exists())
            self.assertTrue(config.exists())
