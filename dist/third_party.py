#!/usr/bin/env python3
"""What the binary is made of: writes a CycloneDX bill of materials and the licence texts of every crate linked into it.

    dist/third_party.py TARGET SBOM LICENCES

Everything comes from `cargo metadata` and the packages' own files, so that the same sources give the same bytes.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import uuid
from datetime import datetime, timezone
from pathlib import Path

LICENCE_FILE = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|UNLICENSE)", re.IGNORECASE)

CARGO = os.environ.get("CARGO", "cargo")


def metadata(target):
    command = [CARGO, "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def linked(known, target):
    """The packages that end up in the binary, by `cargo tree`: metadata also resolves what only other features would bring."""
    command = [CARGO, "tree", "--locked", "--target", target, "--edges", "normal,no-proc-macro", "--prefix", "none",
               "--format", "{p}"]
    lines = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()
    names = {(words[0], words[1].removeprefix("v")) for words in map(str.split, lines)}
    packages = {package["id"]: package for package in known["packages"]}
    root = packages[known["resolve"]["root"]]
    found = [package for package in packages.values()
             if (package["name"], package["version"]) in names and package is not root]
    nodes = {node["id"]: node for node in known["resolve"]["nodes"]}
    return root, sorted(found, key=lambda package: (package["name"], package["version"])), nodes


def reference(package):
    return "pkg:cargo/%s@%s" % (package["name"], package["version"])


def checksums():
    """What Cargo.lock says each package's archive hashes to."""
    pattern = re.compile(r'name = "([^"]+)"\nversion = "([^"]+)"\n(?:source = "[^"]+"\n)?(?:checksum = "([0-9a-f]+)")?')
    return {(name, version): checksum for name, version, checksum in pattern.findall(Path("Cargo.lock").read_text())}


def bill(root, packages, nodes, epoch):
    known, sums = {package["id"]: reference(package) for package in [root, *packages]}, checksums()

    def component(package, kind):
        described = {"type": kind, "bom-ref": reference(package), "name": package["name"], "version": package["version"],
                     "description": " ".join((package["description"] or "").split()), "purl": reference(package),
                     "licenses": [{"expression": package["license"].replace("/", " OR ")}]}
        checksum = sums.get((package["name"], package["version"]))
        if checksum:
            described["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        if package["repository"]:
            described["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
        return described

    compiler = subprocess.run([os.environ.get("RUSTC", "rustc"), "--version"], stdout=subprocess.PIPE, check=True, text=True).stdout.split()[1]
    components = [component(package, "library") for package in packages]
    components.append({"type": "library", "bom-ref": "rust-std@" + compiler, "name": "rust-std", "version": compiler,
                       "licenses": [{"expression": "MIT OR Apache-2.0"}]})
    edges = [{"ref": reference(package),
              "dependsOn": sorted(known[d["pkg"]] for d in nodes[package["id"]]["deps"] if d["pkg"] in known)}
             for package in [root, *packages]]
    document = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
                "metadata": {"timestamp": datetime.fromtimestamp(epoch, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
                             "component": component(root, "application")},
                "components": components, "dependencies": edges}
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).digest()
    document["serialNumber"] = "urn:uuid:%s" % uuid.UUID(bytes=digest[:16], version=4)
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def licences(packages):
    """Every licence text once, with the crates it stands in; a crate that comes without one is named with its expression."""
    texts, without = {}, []
    for package in packages:
        folder = Path(package["manifest_path"]).parent
        files = sorted(path for path in folder.iterdir() if path.is_file() and LICENCE_FILE.match(path.name))
        if not files:
            without.append(package)
        for path in files:
            text = path.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n").strip()
            texts.setdefault(text, []).append("%s %s (%s)" % (package["name"], package["version"], path.name))
    parts = ["What is linked into ai-proxy beside its own code, and under which licence. The list is also in sbom.cdx.json.\n"]
    parts += ["  %s %s: %s" % (package["name"], package["version"], package["license"]) for package in packages]
    parts += ["\nThe standard library of Rust: MIT OR Apache-2.0, https://github.com/rust-lang/rust",
              "The C library, where the binary is static: musl (MIT), or the GNU C Library (LGPL 2.1 or later), which may be\n"
              "replaced by building ai-proxy from its sources with another one.\n"]
    if without:
        parts.append("Without a text of their own in the package: " + ", ".join(p["name"] for p in without) + "\n")
    for text, holders in sorted(texts.items(), key=lambda item: item[1]):
        parts.append("=" * 100 + "\n" + "\n".join(holders) + "\n" + "=" * 100 + "\n\n" + text + "\n")
    return "\n".join(parts)


def main():
    target, sbom, texts = sys.argv[1:]
    root, packages, nodes = linked(metadata(target), target)
    Path(sbom).write_text(bill(root, packages, nodes, int(os.environ["SOURCE_DATE_EPOCH"])), encoding="utf-8")
    Path(texts).write_text(licences(packages), encoding="utf-8")


main()
