//! The direction of imports: a room knows the rooms below it and none above. Where one room leads to
//! another and back, neither can be read, tested or replaced alone.

use regex::Regex;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// From the ground up. Rooms of one layer do not know each other.
const LAYERS: &[&[&str]] = &[
    &["json", "limits", "testing", "text"],
    &["core", "files"],
    &["logging", "memory", "metrics"],
    &["config"],
    &["front"],
    &["anthropic", "auth", "catalog", "routing"],
    &["upstream"],
    &["gateway"],
    &["monitor", "api"],
    &["demo", "supervisor"],
    &["serve"],
    &["cli"],
    &["main", "lib"],
];

/// The front knows nothing of AI, so that it can be tested, fuzzed and swapped alone.
const FRONT_MAY_USE: &[&str] = &["core", "limits", "memory", "metrics"];

/// What an auditor reads stands on its own feet.
const CORE_MAY_USE: &[&str] = &["json", "limits"];

fn layer(room: &str) -> Option<usize> {
    LAYERS.iter().position(|rooms| rooms.contains(&room))
}

/// Why `room` may not use `other`, if so.
fn objection(room: &str, other: &str) -> Option<String> {
    if room == other {
        return None;
    }
    let Some(below) = layer(other) else {
        return Some(format!("{other} has no layer"));
    };
    let Some(above) = layer(room) else {
        return Some(format!("{room} has no layer"));
    };
    if above <= below {
        return Some(format!("{other} is not below {room}"));
    }
    let allowed = match room {
        "core" => CORE_MAY_USE,
        "front" => FRONT_MAY_USE,
        _ => return None,
    };
    (!allowed.contains(&other)).then(|| format!("{room} may not use {other}"))
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("read src") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The room a file of `src` belongs to: its directory, or its own name at the top.
fn room_of(file: &Path) -> String {
    let first = file.components().next().expect("a component").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The rooms that `text` names as `crate::room` or inside `use crate::{…}`, comments left out.
fn rooms_used(text: &str) -> BTreeSet<String> {
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    let single = Regex::new(r"\b(?:crate|ai_proxy)::([a-z_]+)").expect("regex");
    let mut rooms: BTreeSet<String> =
        single.captures_iter(&code).map(|captures| captures[1].to_owned()).collect();
    let group = Regex::new(r"\b(?:crate|ai_proxy)::\{").expect("regex");
    for found in group.find_iter(&code) {
        rooms.extend(heads_of_group(&code[found.end()..]));
    }
    rooms
}

/// The first word of each entry of a `{a, b::c, d::{e, f}}` whose opening brace has been passed.
fn heads_of_group(text: &str) -> Vec<String> {
    let mut heads = vec![String::new()];
    let mut depth = 0;
    for c in text.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => heads.push(String::new()),
            _ if depth == 0 => heads.last_mut().expect("one").push(c),
            _ => {}
        }
    }
    heads
        .iter()
        .filter_map(|head| head.split("::").next())
        .map(|head| head.trim().to_owned())
        .filter(|head| !head.is_empty())
        .collect()
}

#[test]
fn imports_point_down() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(!files.is_empty());
    let mut objections = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&src).expect("under src");
        let room = room_of(inside);
        let text = std::fs::read_to_string(&file).expect("read source");
        for other in rooms_used(&text) {
            if let Some(why) = objection(&room, &other) {
                objections.push(format!("{}: {why}", inside.display()));
            }
        }
    }
    assert!(objections.is_empty(), "{objections:#?}");
}

#[test]
fn the_scan_sees_every_form() {
    let text = "use crate::front::body;\n use crate::{config::{Config, live}, text::Text,\n auth};\n\
                // use crate::api;\nfn f() { crate::limits::MAX; }";
    let seen: Vec<String> = rooms_used(text).into_iter().collect();
    assert_eq!(seen, ["auth", "config", "front", "limits", "text"]);
}

#[test]
fn the_rule_tells_up_from_down() {
    assert_eq!(objection("api", "front"), None);
    assert_eq!(objection("front", "front"), None);
    assert!(objection("front", "config").is_some());
    assert!(objection("core", "text").is_some());
    assert!(objection("config", "api").is_some());
    assert!(objection("monitor", "api").is_some(), "rooms of one layer do not know each other");
    assert!(objection("api", "helpers").is_some(), "a new room needs its place");
}
