//! The pages agree with the program: keys and defaults, errors, endpoints, and the targets of links.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regex::Regex;
use serde_json::{Value, json};

use ai_proxy::config::load;

use crate::support::calls::bare;
use crate::support::proxy::{Proxy, config};
use crate::support::upstream::Upstream;

/// A page and its heading of a table that is read here.
type Place = (&'static str, &'static str);

const KEYS: [Place; 2] = [("docs/config.md", "Keys"), ("docs/config.zh.md", "配置项")];
const ENDPOINTS: [Place; 2] = [("docs/api.md", "Endpoints"), ("docs/api.zh.md", "接口")];
const ERRORS: [Place; 2] = [("docs/api.md", "Errors"), ("docs/api.zh.md", "错误")];
const REASONS: [Place; 2] =
    [("docs/operations.md", "What each reason means"), ("docs/operations.zh.md", "每个 reason 的含义")];

/// Pages that are in English alone.
const ENGLISH: &[&str] = &["ARCHITECTURE.md", "CHANGELOG.md", "DEPENDENCIES.md", "SECURITY.md"];

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(file: impl AsRef<Path>) -> String {
    let path = root().join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("regex")
}

/// The part of a page under a heading of the second level, to the next of that level.
pub fn part<'p>(page: &'p str, heading: &str) -> &'p str {
    let found = page.split("\n## ").find(|part| part.lines().next() == Some(heading));
    found.unwrap_or_else(|| panic!("no heading {heading}"))
}

/// The rows of the tables in a text, cell by cell.
pub fn rows(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().filter(|line| line.starts_with("| ") && line.ends_with('|'));
    let cells = lines.map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect::<Vec<_>>());
    cells.filter(|cells| cells.len() > 1).collect()
}

/// The texts between backquotes.
pub fn spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The keys of a table in the loader's source.
fn keys(source: &str) -> BTreeSet<String> {
    let row = regex(r#"(?:required|optional)\("([a-z_]+)""#);
    let found: BTreeSet<String> = row.captures_iter(&read(source)).map(|found| found[1].to_owned()).collect();
    assert!(found.len() > 2, "{source}: {found:?}");
    found
}

/// A config with that key in it, as the loader understands it.
fn loaded(changes: Value) -> String {
    let mut document = json!({"providers": ["p|http://127.0.0.1:1/v1|"]});
    let Value::Object(changes) = changes else { panic!("an object") };
    document.as_object_mut().expect("object").extend(changes);
    let config = load::from_text(&document.to_string(), &|_| None);
    format!(
        "{:?}",
        config.unwrap_or_else(|problems| panic!(
            "{document}: {}",
            problems.say(ai_proxy::text::Language::En).join("\n")
        ))
    )
}

#[test]
fn every_key_of_the_config_is_in_the_table_with_its_default() {
    let known = keys("src/config/load.rs");
    for (file, heading) in KEYS {
        let page = read(file);
        let mut written = BTreeSet::new();
        for cells in rows(part(&page, heading)).iter().filter(|cells| cells.len() == 4) {
            let [key] = spans(cells[0])[..] else { continue };
            assert!(written.insert(key.to_owned()), "{file}: {key} twice");
            let default: Value = serde_json::from_str(spans(cells[2])[0]).expect("a default in JSON");
            // The default is an empty list, which is too few to serve.
            if key != "providers" {
                assert_eq!(loaded(json!({ key: default })), loaded(json!({})), "{file}: default of {key}");
            }
        }
        assert_eq!(written, known, "{file}");
        for source in ["src/config/load/provider.rs", "src/config/load/token.rs"] {
            for key in keys(source) {
                let is_written = [format!("`{key}`"), format!("\"{key}\":")];
                assert!(is_written.iter().any(|form| page.contains(form)), "{file}: {key} of {source}");
            }
        }
    }
}

/// Every reason with its status; `None`: the provider's own.
pub fn reasons() -> BTreeMap<String, Option<String>> {
    let row = regex(r#"\((\d{3}|\*status), "([a-z_]+)", (?:Hopeless|MayHelp)\)"#);
    let source = read("src/api/error.rs");
    let found = row.captures_iter(&source).map(|found| {
        let status = found[1].parse::<u16>().is_ok().then(|| found[1].to_owned());
        (found[2].to_owned(), status)
    });
    found.collect()
}

#[test]
fn every_reason_of_an_error_is_explained() {
    let known = reasons();
    assert!(known.len() > 20, "{known:?}");
    for (file, heading) in ERRORS {
        let page = read(file);
        let text = part(&page, heading);
        let mut written = BTreeSet::new();
        for cells in rows(text) {
            for reason in spans(cells[1]) {
                let status = known.get(reason).unwrap_or_else(|| panic!("{file}: {reason} is none of ours"));
                let status = status.as_deref().expect("a status of ours");
                assert!(cells[0].split(' ').any(|listed| listed == status), "{file}: {status} {reason}");
                written.insert(reason.to_owned());
            }
        }
        // The reason without a status of its own is in the text above the table.
        assert!(spans(text).contains(&"upstream_error"), "{file}");
        written.insert("upstream_error".to_owned());
        assert_eq!(written, known.keys().cloned().collect(), "{file}");
    }
    for (file, heading) in REASONS {
        let page = read(file);
        let table = rows(part(&page, heading));
        let written: Vec<String> =
            table.iter().flat_map(|cells| spans(cells[0])).map(str::to_owned).collect();
        assert_eq!(
            written.iter().cloned().collect::<BTreeSet<_>>(),
            known.keys().cloned().collect(),
            "{file}"
        );
        assert_eq!(written.len(), known.len(), "{file}: one of them twice");
    }
}

/// `METHOD path` of each call that a cell names; a method applies to all paths after it, `…` stands for the
/// path up to its id.
fn calls(cell: &str) -> Vec<String> {
    let (mut calls, mut methods, mut base) = (Vec::new(), Vec::new(), String::new());
    let mut is_open = false;
    for span in spans(cell) {
        let (method, path) = match span.split_once(' ') {
            Some((method, path)) => (Some(method), Some(path)),
            None if span.starts_with('/') => (None, Some(span)),
            None => (Some(span), None),
        };
        if let Some(method) = method {
            if !is_open {
                methods.clear();
            }
            methods.push(method);
        }
        is_open = path.is_none();
        if let Some(path) = path {
            let path = path.replace('…', &base);
            calls.extend(methods.iter().map(|method| format!("{method} {path}")));
            base = path.split_inclusive("{id}").next().unwrap_or_default().to_owned();
        }
    }
    calls
}

/// Every call of the table, with who may make it: `no`, `optional`, `yes` or `admin`.
pub fn endpoints_with_token() -> BTreeSet<(String, String)> {
    let (file, heading) = ENDPOINTS[0];
    let page = read(file);
    let rows = rows(part(&page, heading)).into_iter().filter(|cells| cells[0] != "call");
    rows.flat_map(|cells| calls(cells[0]).into_iter().map(move |call| (call, cells[1].to_owned()))).collect()
}

#[test]
fn every_endpoint_is_in_the_table() {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    let index = proxy.get("/").json();
    let listed: BTreeSet<String> = index["endpoints"]
        .as_array()
        .expect("endpoints")
        .iter()
        .map(|endpoint| endpoint.as_str().expect("text").to_owned())
        .collect();
    for (file, heading) in ENDPOINTS {
        let page = read(file);
        let written: BTreeSet<String> =
            rows(part(&page, heading)).iter().flat_map(|cells| calls(cells[0])).collect();
        assert_eq!(written, listed, "{file}");
    }
}

/// The statuses of a call from another machine, without a token and with a wrong one.
fn refusals(proxy: &Proxy, call: &str) -> [Option<u16>; 2] {
    let (method, path) = call.split_once(' ').expect("method and path");
    let path = path.replace("{id}", "x");
    let elsewhere = ("X-Forwarded-For", "192.0.2.1");
    let tried = [&[elsewhere][..], &[elsewhere, ("X-Api-Key", "wrong")]];
    tried.map(|fields| {
        let status = proxy.call(bare(method, &path, fields)).status;
        matches!(status, 401 | 403).then_some(status)
    })
}

#[test]
fn every_endpoint_asks_for_the_token_that_the_table_says() {
    let upstream = Upstream::new(&["m"]);
    let proxy = Proxy::start(&config(&[("p1", &upstream)]));
    let words = [["no", "optional", "yes", "admin"], ["不需要", "可选", "需要", "管理"]];
    for ((file, heading), words) in ENDPOINTS.into_iter().zip(words) {
        let page = read(file);
        for cells in rows(part(&page, heading)) {
            for call in calls(cells[0]) {
                let word = words.iter().position(|word| *word == cells[1]);
                let expected = match word.unwrap_or_else(|| panic!("{file}: {}", cells[1])) {
                    0 => [None, None],
                    1 => [None, Some(401)],
                    2 => [Some(401); 2],
                    _ => [Some(403); 2],
                };
                assert_eq!(refusals(&proxy, &call), expected, "{file}: {call}");
            }
        }
    }
}

/// The parts that must agree in both languages: levels of headings, code without comments, and the names in
/// each row of a table in any order.
fn skeleton(page: &str) -> Vec<String> {
    let (mut parts, mut is_code) = (Vec::new(), false);
    for line in page.lines() {
        if line.starts_with("```") {
            is_code = !is_code;
            parts.push(line.to_owned());
        } else if is_code {
            let code = line.split("  #").next().unwrap_or_default().trim_end();
            parts.push(code.to_owned());
        } else if line.starts_with('#') {
            parts.push(line.split(' ').next().unwrap_or_default().to_owned());
        } else if line.starts_with("| ") {
            let mut names = spans(line);
            names.retain(|span| {
                span.chars().all(|char| char.is_ascii_alphanumeric() || " _-./{},=".contains(char))
            });
            names.sort_unstable();
            parts.push(names.join(" "));
        }
    }
    parts
}

#[test]
fn both_languages_say_the_same() {
    let english = pages().into_iter().filter(|path| !path.to_string_lossy().ends_with(".zh.md"));
    for path in english {
        if ENGLISH.iter().any(|page| path.ends_with(page)) {
            continue;
        }
        let (page, translated) = (path.display(), path.with_extension("zh.md"));
        let [ours, theirs] = [&path, &translated].map(|path| skeleton(&read(path)));
        for (ours, theirs) in ours.iter().zip(&theirs) {
            // The example's language, and a message in it.
            let differs = ours.contains("\"language\"") || ours.contains("\"message\":");
            assert!(differs || ours == theirs, "{page}: {ours}\nin Chinese: {theirs}");
        }
        assert_eq!(ours.len(), theirs.len(), "{page}");
    }
}

#[test]
fn chinese_and_latin_are_set_apart_by_a_space() {
    let side_by_side = regex("[一-鿿][A-Za-z0-9`]|[A-Za-z0-9`%][一-鿿]");
    // The inside of a code span, the target of a link, and emphasis marks.
    let (inside, hidden) = (regex("`[^`]*`"), regex(r"\]\([^)]*\)|[\[\]*]"));
    let pages = pages().into_iter().filter(|path| path.to_string_lossy().ends_with(".zh.md"));
    let texts = ["src/text/mod.rs", "src/text/config.rs", "src/text/file.rs", "src/api/page.html"];
    for path in pages.chain(texts.iter().map(|file| root().join(file))) {
        let mut is_code = false;
        for line in read(&path).lines().take_while(|line| *line != "#[cfg(test)]") {
            is_code ^= line.starts_with("```");
            let visible = hidden.replace_all(line, "");
            let visible = inside.replace_all(&visible, "``");
            // The operator fixed these two texts, which clients know.
            let visible = visible.replace("未提供API token", "").replace("无效的API token", "");
            assert!(is_code || !side_by_side.is_match(&visible), "{}: {line}", path.display());
        }
    }
}

/// The pages for people.
fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["", "docs"] {
        let entries = std::fs::read_dir(root().join(folder)).expect("a folder");
        let files = entries.map(|entry| entry.expect("entry").path());
        found.extend(files.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    found
}

/// What a heading is called in a link, as GitHub makes it.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        text.chars()
            .filter(|char| char.is_alphanumeric() || " -_".contains(*char))
            .map(|char| if char == ' ' { '-' } else { char })
            .collect::<String>()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let link = regex(r"\]\(([^)\s]+)\)");
    for path in pages() {
        let page = read(&path);
        for found in link.captures_iter(&page).map(|found| found.extract::<1>().1[0]) {
            if found.contains("://") {
                continue;
            }
            let (file, anchor) = found.split_once('#').unwrap_or((found, ""));
            let target =
                if file.is_empty() { path.clone() } else { path.parent().expect("folder").join(file) };
            assert!(target.exists(), "{}: {found}", path.display());
            if !anchor.is_empty() {
                assert!(anchors(&read(&target)).contains(anchor), "{}: {found}", path.display());
            }
        }
    }
}

#[test]
fn every_file_that_is_named_is_there() {
    let named = regex(
        r"`((?:[a-z_]+/)+[A-Za-z0-9_-]+\.[a-z]+|(?:src|tests|docs|deploy|fuzz|dist|benches)/[a-z0-9_/-]+)`",
    );
    for path in pages() {
        let page = read(&path);
        for file in named.captures_iter(&page).map(|found| found.extract::<1>().1[0]) {
            // The map of the sources does not repeat their common directory.
            let is_built = file.starts_with("target/");
            assert!(
                is_built || root().join(file).exists() || root().join("src").join(file).exists(),
                "{}: {file}",
                path.display()
            );
        }
    }
}

#[test]
fn audit_table_names_every_file_of_core_and_its_size() {
    let page = read("ARCHITECTURE.md");
    let listed: BTreeMap<&str, usize> = rows(part(&page, "Audit in an afternoon"))
        .into_iter()
        .filter_map(|cells| Some((spans(cells[0]).first().copied()?, cells[1].parse().ok()?)))
        .collect();
    let files: BTreeSet<String> = std::fs::read_dir(root().join("src/core"))
        .expect("src/core")
        .map(|entry| format!("core/{}", entry.expect("entry").file_name().to_string_lossy()))
        .collect();
    assert_eq!(listed.keys().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(), files);
    for (file, lines) in listed {
        let source = read(Path::new("src").join(file));
        let actual = source.lines().take_while(|line| *line != "#[cfg(test)]").count();
        assert!(lines.abs_diff(actual) <= actual / 10 + 5, "{file}: {actual} lines, not {lines}");
    }
}
