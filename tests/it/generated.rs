//! Files that are made from a table of the product, or held to one. `AI_PROXY_GOLDEN=write` writes those that are made anew.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use regex::Regex;
use serde_json::{Map, Value, json};

use ai_proxy::config::load;

use crate::pages::{endpoints_with_token, part, read, reasons, root, rows, spans};
use crate::support::golden::hold;
use crate::support::proxy::{command, run};
use crate::support::temp::TempDir;

#[test]
fn openapi_describes_every_endpoint_and_error() {
    let document: Value = serde_json::from_str(&read("docs/openapi.json")).expect("JSON");
    let mut written = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let token = operation["x-token"].as_str().expect("x-token");
            written.insert((format!("{} {path}", method.to_uppercase()), token.to_owned()));
            // Whether a call without a token is one of the ways to make it.
            let security = operation["security"].as_array().expect("security");
            let is_open = security.is_empty() || security.contains(&json!({}));
            assert_eq!(is_open, token != "yes", "{method} {path}");
        }
    }
    assert_eq!(written, endpoints_with_token());
    let known: BTreeSet<String> = reasons().into_keys().collect();
    let listed =
        &document["components"]["schemas"]["Error"]["properties"]["error"]["properties"]["reason"]["enum"];
    let listed: BTreeSet<String> = serde_json::from_value(listed.clone()).expect("reasons");
    assert_eq!(listed, known);
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn config_schema_is_made_of_the_tables_of_keys() {
    let page = read("docs/config.md");
    let rows = rows(part(&page, "Keys")).into_iter().filter(|cells| cells.len() == 4);
    let mut schema = object(rows.filter_map(|cells| {
        let [key] = spans(cells[0])[..] else { return None };
        let mut member = typed(cells[1]);
        member["description"] = json!(plain(cells[3]));
        member["default"] = serde_json::from_str(spans(cells[2])[0]).expect("a default in JSON");
        if ["log_level", "log_format", "language"].contains(&key) {
            let accepted = spans(cells[3]).into_iter().filter(|value| is_accepted(key, value));
            member["enum"] = json!(accepted.collect::<BTreeSet<_>>());
        }
        Some((key.to_owned(), member))
    }));
    for (name, key) in [("provider", "providers"), ("token", "tokens")] {
        let entry = entry(&page, name);
        schema["properties"][key]["items"] = json!({"anyOf": [{"type": "string"}, entry]});
    }
    schema["properties"]["models"]["additionalProperties"] =
        json!({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]});
    schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = json!("config.json of ai-proxy");
    schema["required"] = json!(["providers"]);
    let made = serde_json::to_string_pretty(&schema).expect("JSON") + "\n";
    hold([(root().join("docs/config.schema.json"), made)]);
}

/// Whether the loader takes that value of a key.
fn is_accepted(key: &str, value: &str) -> bool {
    let document = json!({"providers": ["p|http://127.0.0.1:1/v1|"], key: value});
    load::from_text(&document.to_string(), &|_| None).is_ok()
}

/// An object without other members than these.
fn object(properties: impl Iterator<Item = (String, Value)>) -> Value {
    let properties: Map<String, Value> = properties.collect();
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

/// The schema of a type as the table of keys names it.
fn typed(name: &str) -> Value {
    let (name, is_nullable) = name.strip_suffix(" or null").map_or((name, false), |name| (name, true));
    let kind = match name {
        "string" => "string",
        "int" | "bytes" => "integer",
        "seconds" => "number",
        "object" => "object",
        "array" | "array of regex" => "array",
        other => panic!("no such type: {other}"),
    };
    let mut schema = if is_nullable { json!({"type": [kind, "null"]}) } else { json!({"type": kind}) };
    match kind {
        "integer" | "number" => schema["minimum"] = json!(0),
        "array" => schema["items"] = json!({"type": "string"}),
        _ => {}
    }
    schema
}

/// The schema of a provider or a token as an object: its table under "Providers and tokens as objects".
fn entry(page: &str, name: &str) -> Value {
    let text = part(page, "Providers and tokens as objects");
    let table =
        text.split("\n\n").find(|table| table.starts_with(&format!("| {name} key"))).expect("its table");
    let mut members = Vec::new();
    for cells in rows(table).into_iter().skip(1) {
        for key in spans(cells[0]) {
            let values: Vec<&str> = spans(cells[1])
                .into_iter()
                .filter_map(|span| span.strip_prefix('"')?.strip_suffix('"'))
                .collect();
            let mut member = match key {
                "models" => json!({"type": "array", "items": {"type": "string"}}),
                "headers" => json!({"type": "object", "additionalProperties": {"type": "string"}}),
                "weight" | "rpm" | "max_parallel" | "tokens_per_day" => {
                    json!({"type": "integer", "minimum": 1})
                }
                "stream_usage" | "responses" => json!({"enum": values}),
                _ => json!({"type": "string"}),
            };
            member["description"] = json!(plain(cells[1]));
            members.push((key.to_owned(), member));
        }
    }
    let required: Vec<String> = members.iter().take(2).map(|(key, _)| key.clone()).collect();
    let mut schema = object(members.into_iter());
    schema["required"] = json!(required);
    schema
}

/// A cell without its markup.
fn plain(cell: &str) -> String {
    let more = Regex::new(r" \(\[more\]\([^)]*\)\)").expect("regex");
    let link = Regex::new(r"\[([^\]]*)\]\([^)]*\)").expect("regex");
    link.replace_all(&more.replace_all(cell, ""), "$1").replace('`', "").replace("\\|", "|")
}

/// A line of `--help`: how to call it, and what that does.
struct Call {
    synopsis: String,
    does: String,
}

impl Call {
    fn subcommand(&self) -> Option<&str> {
        self.synopsis
            .split(' ')
            .nth(1)
            .filter(|word| word.starts_with(|first: char| first.is_ascii_lowercase()))
    }

    /// Options, each with the name of its value where it has one.
    fn options(&self) -> Vec<(&str, Option<&str>)> {
        let words: Vec<&str> = self.synopsis.split(' ').map(|word| word.trim_matches(['[', ']'])).collect();
        let with_next = words.iter().enumerate().filter(|(_, word)| word.starts_with("--"));
        let value = |at: usize| {
            words.get(at + 1).copied().filter(|word| word.chars().all(|char| char.is_ascii_uppercase()))
        };
        with_next.map(|(at, word)| (*word, value(at))).collect()
    }
}

/// What `ai-proxy --help` says, line by line.
fn help() -> Vec<String> {
    let folder = TempDir::new();
    let said = run(command(folder.path()).arg("--help"));
    assert_eq!(said.code, Some(0));
    said.stdout.lines().map(str::to_owned).collect()
}

fn calls(help: &[String]) -> Vec<Call> {
    let lines =
        help.iter().filter_map(|line| line.strip_prefix("  ")).filter(|line| line.starts_with("ai-proxy"));
    let call = |line: &str| {
        let (synopsis, does) = line.split_once("  ").unwrap_or((line, ""));
        Call { synopsis: synopsis.to_owned(), does: does.trim().to_owned() }
    };
    lines.map(call).collect()
}

#[test]
fn man_page_and_completions_are_made_of_help() {
    let help = help();
    let calls = calls(&help);
    assert!(calls.len() > 4, "{help:?}");
    let made = [
        ("docs/ai-proxy.1", man(&help, &calls)),
        ("deploy/completions/ai-proxy.bash", bash(&calls)),
        ("deploy/completions/_ai-proxy", zsh(&calls)),
        ("deploy/completions/ai-proxy.fish", fish(&calls)),
    ];
    hold(made.map(|(file, made)| (root().join(file), made)));
}

#[test]
fn bash_completes_commands_and_options() {
    let complete = |words: &str, at: usize| {
        let script = format!(
            ". deploy/completions/ai-proxy.bash; COMP_WORDS=({words}); COMP_CWORD={at}; _ai_proxy; echo \"${{COMPREPLY[@]}}\""
        );
        let said = Command::new("bash").args(["-euc", &script]).current_dir(root()).output().expect("bash");
        assert!(said.status.success(), "{said:?}");
        String::from_utf8(said.stdout).expect("UTF-8").trim().to_owned()
    };
    assert_eq!(complete("ai-proxy c", 1), "check");
    assert_eq!(complete("ai-proxy demo --p", 2), "--port");
    assert_eq!(complete("ai-proxy check --config Cargo.t", 3), "Cargo.toml");
    assert_eq!(complete("ai-proxy demo --port ''", 3), "");
}

/// Text in a man page: a hyphen that can be copied, and no line that is a request.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

fn man(help: &[String], calls: &[Call]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let (name, does) = help[0].split_once(": ").expect("name and purpose");
    let mut page = format!(
        ".\\\" Made by tests/it/generated.rs from `ai-proxy --help`.\n.TH AI-PROXY 1 \"\" \"ai-proxy {version}\"\n"
    );
    page += &format!(".SH NAME\n{} \\- {}\n.SH SYNOPSIS\n.nf\n", roff(name), roff(does));
    for call in calls {
        page += &format!("{}\n", roff(&call.synopsis));
    }
    page += ".fi\n.SH COMMANDS\n";
    for call in calls.iter().filter(|call| !call.does.is_empty()) {
        page += &format!(".TP\n.B {}\n{}\n", roff(&call.synopsis), roff(&call.does));
    }
    page += ".SH NOTES\n";
    let notes =
        help[1..].iter().filter(|line| !line.is_empty() && !line.starts_with("  ") && *line != "usage:");
    for note in notes {
        page += &format!(".PP\n{}\n", roff(note));
    }
    page + ".SH SEE ALSO\nThe pages in /usr/share/doc/ai\\-proxy.\n"
}

/// The options of a subcommand, or of none.
fn options_of<'c>(calls: &'c [Call], subcommand: Option<&str>) -> Vec<(&'c str, Option<&'c str>)> {
    calls.iter().filter(|call| call.subcommand() == subcommand).flat_map(Call::options).collect()
}

fn subcommands(calls: &[Call]) -> Vec<(&str, &str)> {
    calls.iter().filter_map(|call| Some((call.subcommand()?, call.does.as_str()))).collect()
}

const MADE: &str = "# Made by tests/it/generated.rs from `ai-proxy --help`.\n";

fn bash(calls: &[Call]) -> String {
    let names = |options: Vec<(&str, Option<&str>)>| {
        options.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ")
    };
    let first: Vec<&str> = subcommands(calls).iter().map(|(name, _)| *name).collect();
    let mut script =
        format!("{MADE}_ai_proxy() {{\n    local word=${{COMP_WORDS[COMP_CWORD]}} words\n    COMPREPLY=()\n");
    script += "    case ${COMP_WORDS[COMP_CWORD - 1]} in\n";
    let with_value: BTreeSet<(&str, &str)> =
        calls.iter().flat_map(Call::options).filter_map(|(name, value)| Some((name, value?))).collect();
    for (name, value) in with_value {
        let reply = if value == "PATH" { "mapfile -t COMPREPLY < <(compgen -f -- \"$word\"); " } else { "" };
        script += &format!("    {name}) {reply}return ;;\n");
    }
    script += "    esac\n    case ${COMP_WORDS[1]} in\n";
    for name in &first {
        script += &format!("    {name}) words=\"{} --help\" ;;\n", names(options_of(calls, Some(name))));
    }
    script +=
        &format!("    *) words=\"{} {}\" ;;\n    esac\n", first.join(" "), names(options_of(calls, None)));
    script
        + "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n}\ncomplete -F _ai_proxy ai-proxy\n"
}

fn zsh(calls: &[Call]) -> String {
    let spec = |options: Vec<(&str, Option<&str>)>| {
        let one = |(name, value): (&str, Option<&str>)| match value {
            Some("PATH") => format!(" '{name}[path]:file:_files'"),
            Some(value) => format!(" '{name}[{value}]:{value}: '"),
            None => format!(" '{name}'"),
        };
        options.into_iter().map(one).collect::<String>()
    };
    let mut script = format!("#compdef ai-proxy\n{MADE}case ${{words[2]}} in\n");
    for (name, _) in subcommands(calls) {
        script += &format!(
            "{name}) shift words; (( CURRENT-- )); _arguments{} '--help' ;;\n",
            spec(options_of(calls, Some(name)))
        );
    }
    script += &format!("*) _arguments{} '1: :((", spec(options_of(calls, None)));
    // The first clause alone: colons and quotes mean something here.
    let described = |(name, does): &(&str, &str)| {
        let does = does.split([':', ',', '(']).next().unwrap_or_default().replace(['"', '\''], "");
        format!("{name}\\:\"{}\"", does.trim())
    };
    let described: Vec<String> = subcommands(calls).iter().map(described).collect();
    script + &described.join(" ") + "))' ;;\nesac\n"
}

fn fish(calls: &[Call]) -> String {
    let first: Vec<&str> = subcommands(calls).iter().map(|(name, _)| *name).collect();
    let none = format!("not __fish_seen_subcommand_from {}", first.join(" "));
    let mut script = format!("{MADE}complete -c ai-proxy -f\n");
    for (name, does) in subcommands(calls) {
        script += &format!("complete -c ai-proxy -n '{none}' -a {name} -d '{}'\n", does.replace('\'', ""));
    }
    let mut options = |condition: &str, options: Vec<(&str, Option<&str>)>| {
        for (name, value) in options {
            let value = match value {
                Some("PATH") => " -r -F",
                Some(_) => " -x",
                None => "",
            };
            script += &format!("complete -c ai-proxy -n '{condition}' -l {}{value}\n", &name[2..]);
        }
    };
    options(&none, options_of(calls, None));
    for name in &first {
        options(&format!("__fish_seen_subcommand_from {name}"), options_of(calls, Some(name)));
    }
    script
}

#[test]
fn example_config_has_no_key_that_the_schema_lacks() {
    let schema: Value = serde_json::from_str(&read("docs/config.schema.json")).expect("JSON");
    let example: Value = serde_json::from_str(&read(Path::new("config.json.example"))).expect("JSON");
    for key in example.as_object().expect("object").keys() {
        assert!(!schema["properties"][key].is_null(), "{key}");
    }
}
