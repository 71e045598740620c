//! The file as text: JSON, its keys, its encoding, and the variables in it.

use super::{EXAMPLE, load, said, valid, with, with_object, with_provider};
use crate::config::Secret;
use crate::config::load::syntax;
use crate::text::Language;

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    assert_eq!(
        said(&with(r#""max_conections": 5"#)),
        ["max_conections: unknown key; the closest known key is max_connections"]
    );
    assert_eq!(said(&with(r#""colour": 5"#)), ["colour: unknown key; the closest known key is host"]);
    assert_eq!(
        said(&with_object(r#""wieght": 1"#)),
        ["providers[0].wieght: unknown key; the closest known key is weight"]
    );
    assert_eq!(
        said(&with(r#""tokens": [{"name": "n", "token": "t", "max_paralel": 1}]"#)),
        ["tokens[0].max_paralel: unknown key; the closest known key is max_parallel"]
    );
}

#[test]
fn a_duplicate_key_is_a_problem_at_every_level() {
    for (text, problem) in [
        (with(r#""port": 1, "port": 2"#), "port: duplicate key"),
        (with_object(r#""weight": 1, "weight": 2"#), "providers[0].weight: duplicate key"),
        (with_object(r#""headers": {"x-a": "1", "x-a": "2"}"#), "providers[0].headers.x-a: duplicate key"),
        (
            with_object(r#""headers": {"x-a": "1", "X-A": "2"}"#),
            "providers[0].headers.X-A: duplicate header (names ignore case)",
        ),
        (with(r#""tokens": [{"name": "n", "token": "t", "name": "m"}]"#), "tokens[0].name: duplicate key"),
        (with(r#""models": {"f": "a/b", "f": "a/c"}"#), "models.f: duplicate key"),
    ] {
        assert_eq!(said(&text), [problem]);
    }
}

#[test]
fn a_syntax_error_says_where_in_characters() {
    assert_eq!(said("{\n  \"端口\": ?\n}"), ["not valid JSON at line 2 column 9: expected value"]);
    assert_eq!(said("{} x"), ["not valid JSON at line 1 column 4: trailing characters"]);
    assert_eq!(said("[]"), ["the config must be a JSON object; found […]"]);
    let deep = format!("{{\"host\": {}", "[".repeat(100_000));
    assert!(said(&deep)[0].contains("recursion limit exceeded"), "{:?}", said(&deep));
    assert!(said(r#"{"port": 1e999}"#)[0].contains("number out of range"));
}

#[test]
fn syntax_that_json_lacks_is_named_at_its_place() {
    let comment = "JSON has no comments; remove it";
    let comma = "no comma may follow the last entry; remove it";
    let quotes = "write double quotes instead of single quotes";
    for (text, line, column, problem) in [
        ("// a\n{}", 1, 1, comment),
        ("{\n  // a\n}", 2, 3, comment),
        ("{\"port\": 1, // a\n\"host\": \"::1\"}", 1, 13, comment),
        ("{\"port\": /* a */ 1}", 1, 10, comment),
        ("{\"port\": 1 # a\n}", 1, 12, comment),
        ("{\"端口\": [1, # a\n2]}", 1, 12, comment),
        ("{}\n# a", 2, 1, comment),
        ("{\"port\": 1,}", 1, 11, comma),
        ("{\"port\": 1,\r\n\r\n}", 1, 11, comma),
        ("{\"providers\": [\n\"端\" ,\n], \"port\": 1}", 2, 5, comma),
        ("{'port': 1}", 1, 2, quotes),
        ("{\"host\":\n 'a'}", 2, 2, quotes),
        ("", 1, 1, "the file is empty"),
        (" \n\t\r\n", 1, 1, "the file is empty"),
        ("\u{feff}\n", 1, 1, "the file is empty"),
        // In the middle of something else these characters are what they are.
        ("{\"host\": \"a\\'\"}", 1, 13, "invalid escape"),
        ("{\"host\": \"it'", 1, 13, "EOF while parsing a string"),
        ("{\"port\": 1/2}", 1, 11, "expected `,` or `}`"),
        ("{,}", 1, 2, "key must be a string"),
    ] {
        let expected = format!("not valid JSON at line {line} column {column}: {problem}");
        assert_eq!(said(text), [expected], "{text:?}");
    }
}

#[test]
fn file_in_utf_16_is_named_as_such() {
    let text = "{\"language\": \"en\", \"host\": \"é密\"}";
    let units = |mark: &str| format!("{mark}{text}").encode_utf16().collect::<Vec<u16>>();
    let said = "line 1 is UTF-16, not UTF-8; save the file as UTF-8";
    for mark in ["", "\u{feff}"] {
        let little: Vec<u8> = units(mark).iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let big: Vec<u8> = units(mark).iter().flat_map(|unit| unit.to_be_bytes()).collect();
        for bytes in [little, big] {
            let (language, problem) = syntax::decoded(bytes).unwrap_err();
            assert_eq!((language, problem.say(Language::En).as_str()), (Some(Language::En), said));
        }
    }
    // Some file systems leave this after a loss of power.
    for zeros in [1, 2, 100] {
        assert_eq!(syntax::decoded(vec![0; zeros]).ok().map(|text| text.len()), Some(zeros));
    }
}

#[test]
fn a_byte_order_mark_is_accepted() {
    valid(&format!("\u{feff}{}", with(r#""port": 1"#)));
}

#[test]
fn a_missing_variable_is_named_and_its_echo_is_not() {
    assert_eq!(
        said(
            r#"{"models": {"f": "p/m"}, "providers": ["${P}|https://a.example|${OPENAI_KEY}", {"name": "${Q}", "url": "https://a"}]}"#
        ),
        [
            "providers[0]: environment variable P is not set",
            "providers[0]: environment variable OPENAI_KEY is not set",
            "providers[1].name: environment variable Q is not set"
        ]
    );
    for (more, place) in [
        (r#""host": "${NONE}""#, "host"),
        (r#""log_file": "${NONE}""#, "log_file"),
        (r#""supported_models": ["${NONE}"]"#, "supported_models[0]"),
        (r#""tokens": ["a|${NONE}"]"#, "tokens[0]"),
        (r#""models": {"f": ["${NONE}"]}"#, "models.f[0]"),
        (r#""cors_origins": ["${NONE}"]"#, "cors_origins[0]"),
    ] {
        assert_eq!(said(&with(more)), [format!("{place}: environment variable NONE is not set")]);
    }
    assert_eq!(
        said(&with_object(r#""headers": {"x": "${NONE}"}"#)),
        ["providers[0].headers.x: environment variable NONE is not set"]
    );
}

#[test]
fn variables_are_replaced_before_a_string_is_split_and_regexes_are_left_alone() {
    let config = valid(&with_provider(r#""${WHOLE}""#));
    assert_eq!(config.providers[0].name, "p");
    assert_eq!(config.providers[0].replicas[0].key, Secret::new("whole|key".into()));
    let config = valid(&with(r#""supported_models": ["^gpt-4$", "a{2}", "x$|${EMPTY}y"]"#));
    let patterns: Vec<&str> = config.supported_models.patterns().collect();
    assert_eq!(patterns, ["^gpt-4$", "a{2}", "x$|y"]);
}

#[test]
fn every_truncation_of_the_example_is_refused() {
    let whole = EXAMPLE.trim_end();
    for end in (0..whole.len()).filter(|end| whole.is_char_boundary(*end)) {
        let said = said(&whole[..end]);
        assert!(said.len() == 1 && said[0].starts_with("not valid JSON at line"), "{end}: {said:?}");
    }
}

#[test]
fn random_and_damaged_text_never_panics() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let letters: Vec<char> = "{}[]\",:\\${}|/.@#? 019-+eEtrufalsn\u{0}\u{feff}é密𝄞\n".chars().collect();
    let characters: Vec<char> = EXAMPLE.chars().collect();
    for _ in 0..1500 {
        let noise: String = (0..random(80)).map(|_| letters[random(letters.len())]).collect();
        let _ = load(&noise);
        let strings = format!(
            r#"{{"host": {0}, "providers": [{0}, {{"name": {0}, "url": {0}, "proxy": {0}, "headers": {{{0}: {0}}}}}], "tokens": [{0}], "models": {{{0}: {0}}}, "cors_origins": [{0}], "supported_models": [{0}]}}"#,
            serde_json::to_string(&noise).unwrap()
        );
        let _ = load(&strings);
        let mut damaged = characters.clone();
        for _ in 0..=random(4) {
            let at = random(damaged.len());
            damaged[at] = letters[random(letters.len())];
        }
        let _ = load(&damaged.into_iter().collect::<String>()).map_err(|problems| problems.say(Language::Zh));
    }
}

#[test]
fn reasons_of_the_parsers_are_chinese_in_chinese() {
    let zh = |text: &str| load(text).expect_err("refused").say(Language::Zh);
    assert!(
        zh("{\n  \"端口\": ?\n}")
            .iter()
            .any(|line| line.ends_with("第 2 行第 9 列不是有效的 JSON: 此处应为一个值"))
    );
    assert!(
        zh(&with(r#""supported_models": ["a("]"#))
            .iter()
            .any(|line| line.ends_with(r#"正则表达式 "a(" 无效: 缺少右括号"#))
    );
}
