//! The crates of the binary: `DEPENDENCIES.md` agrees with `cargo tree`, and `deny.toml` allows them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Crate and version to licence.
type Crates = BTreeMap<(String, String), String>;

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The crates of the release build on this system, along these edges.
fn tree(edges: &str) -> Crates {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--prefix", "none", "--format", "{p}|{l}", "--edges", edges])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo tree");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).expect("text");
    let crates = lines.lines().filter_map(|line| {
        let (package, licence) = line.split_once('|')?;
        let mut words = package.split(' ');
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        let licence = licence.trim_end_matches(" (*)").replace('/', " OR ");
        (name != env!("CARGO_PKG_NAME")).then(|| ((name.to_owned(), version.to_owned()), licence))
    });
    crates.collect()
}

/// The rows under a heading of the page.
fn listed(page: &str, heading: &str) -> Crates {
    let section = page.split("\n## ").find(|section| section.starts_with(heading)).expect("the heading");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| [")).map(|row| {
        let cells: Vec<&str> = row.split(" | ").collect();
        assert_eq!(cells.len(), 6, "{row}");
        assert!(cells.iter().all(|cell| !cell.trim_matches([' ', '|']).is_empty()), "{row}");
        let name = cells[0].split(']').next().expect("name");
        ((name.to_owned(), cells[1].to_owned()), cells[2].to_owned())
    });
    rows.collect()
}

fn linked() -> Crates {
    tree("normal,no-proc-macro")
}

fn all() -> Crates {
    tree("normal,build")
}

#[test]
fn the_page_lists_what_is_linked_and_what_builds_it() {
    let (page, linked, all) = (file("DEPENDENCIES.md"), linked(), all());
    assert_eq!(listed(&page, "Linked into the binary"), linked);
    let builds: Crates = all.into_iter().filter(|(key, _)| !linked.contains_key(key)).collect();
    assert_eq!(listed(&page, "Used to build it"), builds);
}

#[test]
fn there_are_few() {
    let count = linked().len();
    assert!(count <= 45, "{count} crates: which one can go?");
}

#[test]
fn licences_are_those_that_deny_toml_allows() {
    let deny = file("deny.toml");
    let list = deny.split("allow = [").nth(1).and_then(|rest| rest.split(']').next()).expect("the list");
    let allowed: BTreeSet<&str> = list.split(',').map(|word| word.trim().trim_matches('"')).collect();
    assert!(allowed.contains("MIT"), "{allowed:?}");
    for ((name, version), licence) in all() {
        let fits = licence
            .split(" AND ")
            .all(|part| part.trim_matches(['(', ')']).split(" OR ").any(|choice| allowed.contains(choice)));
        assert!(fits, "{name} {version}: {licence}");
    }
}

#[test]
fn no_crate_is_there_twice_and_all_come_from_one_registry() {
    let mut names = BTreeSet::new();
    for (name, version) in all().into_keys() {
        assert!(names.insert(name.clone()), "{name} {version} is not the only one");
    }
    let lock = file("Cargo.lock");
    let sources: BTreeSet<&str> = lock.lines().filter_map(|line| line.strip_prefix("source = ")).collect();
    assert_eq!(sources.len(), 1, "{sources:?}");
    assert!(sources.iter().all(|source| source.starts_with("\"registry+")), "{sources:?}");
}
