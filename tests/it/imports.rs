//! The direction of imports: a module uses only modules of lower layers, and files do not import each other
//! in circles. Files in a circle cannot be read, tested or replaced alone.

use regex::Regex;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// From the lowest layer up. Modules of one layer do not use each other.
const LAYERS: &[&[&str]] = &[
    &["json", "limits", "testing", "text"],
    &["core", "files"],
    &["logging", "memory", "metrics"],
    &["config"],
    &["front"],
    &["auth", "catalog", "dialect", "routing"],
    &["upstream"],
    &["gateway"],
    &["monitor", "api"],
    &["check", "demo", "supervisor"],
    &["serve"],
    &["cli"],
    &["main", "lib"],
];

/// The front knows nothing of AI, so that it can be tested, fuzzed and swapped alone.
const FRONT_MAY_USE: &[&str] = &["core", "limits", "memory", "metrics"];

/// An auditor reads these files without any others.
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

/// The module of a file in `src`: its directory, or its own name at the top.
fn room_of(file: &Path) -> String {
    let first = file.components().next().expect("a component").as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

fn without_comments(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default()
}

/// The modules that `text` names as `crate::module` or inside `use crate::{…}`, except in comments.
fn rooms_used(text: &str) -> BTreeSet<String> {
    let paths = paths_used(&without_comments(text)).into_iter();
    let rooms = paths.filter(|path| ["crate", "ai_proxy"].contains(&path[0].as_str()));
    rooms.filter_map(|path| path.into_iter().nth(1)).collect()
}

/// Every path that `code` names, in a `use` or elsewhere, as its segments.
fn paths_used(code: &str) -> Vec<Vec<String>> {
    let imports = Regex::new(r"\buse\s+([^;]+);").expect("regex");
    let inline = Regex::new(r"\b(?:crate|ai_proxy|super|self)(?:::\w+)+").expect("regex");
    let rest = imports.replace_all(code, "");
    let imported = imports.captures_iter(code).flat_map(|import| entries(&import[1]));
    let named = inline.find_iter(&rest).map(|path| path.as_str().to_owned());
    let segments = |path: String| path.split("::").map(|segment| segment.trim().to_owned()).collect();
    imported.chain(named).map(segments).collect()
}

/// The paths of `a::{b, c::{d, e}}`: `a::b`, `a::c::d`, `a::c::e`, without `as` and the name after it.
fn entries(tree: &str) -> Vec<String> {
    let Some((prefix, group)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().trim().to_owned()];
    };
    let mut parts = vec![String::new()];
    let mut depth = 0;
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => parts.push(String::new()),
            _ => parts.last_mut().expect("one").push(c),
        }
        depth += i32::from(c == '{') - i32::from(c == '}');
    }
    let inner = parts.iter().filter(|part| !part.trim().is_empty()).flat_map(|part| entries(part));
    inner.map(|path| format!("{}{path}", prefix.trim_start())).collect()
}

/// The files of `src` by their modules, each with the paths it names. The file of a module is its directory's `mod.rs` or beside it.
struct Files(BTreeMap<Vec<String>, Vec<Vec<String>>>);

impl Files {
    fn read() -> Self {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        sources(&src, &mut files);
        let texts = files.into_iter().map(|file| {
            let inside = file.strip_prefix(&src).expect("under src").with_extension("");
            let text = std::fs::read_to_string(&file).expect("read source");
            (inside.to_string_lossy().into_owned(), text)
        });
        Self::of(texts)
    }

    fn of(texts: impl Iterator<Item = (String, String)>) -> Self {
        let files = texts.map(|(name, text)| {
            let mut module: Vec<String> = name.split('/').map(str::to_owned).collect();
            if module.last().is_some_and(|last| ["mod", "lib"].contains(&last.as_str())) {
                module.pop();
            }
            (module, paths_used(&without_comments(without_tests(&text))))
        });
        Self(files.filter(|(module, _)| !module.iter().any(|name| name == "tests")).collect())
    }

    /// The file that defines `path` as seen from `module`: a re-export leads to its source.
    fn target(&self, module: &[String], path: &[String]) -> Option<Vec<String>> {
        let supers = path.iter().take_while(|segment| *segment == "super").count();
        let (mut at, mut rest) = match path[0].as_str() {
            "crate" => (Vec::new(), &path[1..]),
            "self" => (module.to_vec(), &path[1..]),
            "super" => (module[..module.len().checked_sub(supers)?].to_vec(), &path[supers..]),
            _ => return None,
        };
        while let Some((name, further)) = rest.split_first() {
            let below = [&at[..], std::slice::from_ref(name)].concat();
            let from = || {
                let paths = self.0.get(&at)?;
                let path = paths.iter().find(|path| path.len() > 1 && path.last() == Some(name))?;
                let from = [&at[..], &path[..1]].concat();
                self.0.contains_key(&from).then_some(from)
            };
            let Some(next) = self.0.contains_key(&below).then_some(below).or_else(from) else { break };
            (at, rest) = (next, further);
        }
        self.0.contains_key(&at).then_some(at)
    }

    /// The files that `module` imports. A module and the files inside it may know each other.
    fn imports(&self, module: &[String]) -> BTreeSet<Vec<String>> {
        let targets = self.0[module].iter().filter_map(|path| self.target(module, path));
        targets.filter(|target| !target.starts_with(module) && !module.starts_with(target)).collect()
    }

    /// The groups of files that lead to each other.
    fn circles(&self) -> BTreeSet<Vec<String>> {
        let imports: BTreeMap<_, _> = self.0.keys().map(|module| (module, self.imports(module))).collect();
        let reached = |from: &Vec<String>| {
            let (mut reached, mut open) = (BTreeSet::new(), vec![from.clone()]);
            while let Some(module) = open.pop() {
                open.extend(imports[&module].iter().filter(|next| reached.insert((*next).clone())).cloned());
            }
            reached
        };
        let reached: BTreeMap<_, _> = self.0.keys().map(|module| (module, reached(module))).collect();
        let circle = |(module, others): (&&Vec<String>, &BTreeSet<Vec<String>>)| {
            let back = others.iter().filter(|other| reached[*other].contains(*module));
            back.map(|other| other.join("/")).collect::<Vec<_>>()
        };
        reached.iter().map(circle).filter(|circle| !circle.is_empty()).collect()
    }
}

#[test]
fn files_import_each_other_in_no_circle() {
    assert_eq!(Files::read().circles(), BTreeSet::new());
}

#[test]
fn circle_is_found_through_super_groups_and_re_exports() {
    let circles = |texts: &[(&str, &str)]| {
        let files = Files::of(texts.iter().map(|(name, text)| (name.to_string(), text.to_string())));
        files.circles().into_iter().map(|circle| circle.join(" ")).collect::<Vec<_>>()
    };
    let room = ("room/mod", "pub use b::Thing;\nuse a::go;");
    for (a, b) in [
        ("use super::b::Thing;", "fn f() { super::a::go() }"),
        ("use super::{b::{Thing, Other as Others}, c};", "use crate::room::a::{self, go};"),
        ("use super::Thing;", "use crate::{room::a};"),
        ("use crate::room::{Thing};", "use super::a;"),
    ] {
        assert_eq!(circles(&[room, ("room/a", a), ("room/b", b)]), ["room/a room/b"], "{a} {b}");
        let tests = format!("// use super::b;\n#[cfg(test)]\nmod tests {{\n    {a}\n}}");
        assert_eq!(circles(&[room, ("room/a", &tests), ("room/b", b)]), [""; 0], "{a} {b}");
    }
    let three = [("a", "use crate::b::X;"), ("b", "use crate::c::X;"), ("c", "use crate::a::X;")];
    assert_eq!(circles(&three), ["a b c"]);
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

/// The types allow every file to call these two, which reveal a provider's keys. Each is called in one file.
#[test]
fn keys_are_read_by_the_writer_of_the_request_alone() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let with = |text: &str| {
        let files = files.iter().filter(|file| {
            let source = std::fs::read_to_string(file).expect("read source");
            without_comments(without_tests(&source)).contains(text)
        });
        files
            .map(|file| file.strip_prefix(&src).expect("under src").display().to_string())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(with(".on_the_wire()"), BTreeSet::from(["upstream/pending.rs".to_owned()]));
    assert_eq!(with(".add_to("), BTreeSet::from(["upstream/agent.rs".to_owned()]));
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
