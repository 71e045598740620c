//! Reasons that serde_json, the regex crate and the translation between APIs give in English, in Chinese.

/// A reason a line. One that ends in `…` stands for all that begin like it. One text is smaller than an array of pairs.
const IN_CHINESE: &str = r#"
EOF while parsing a value = 在值写完之前结束
EOF while parsing a string = 字符串没有结束引号
EOF while parsing a list = 数组没有右方括号
EOF while parsing an object = 对象没有右花括号
expected `:` = 键之后缺少冒号
expected `,` or `]` = 数组的两项之间缺少逗号，或缺少右方括号
expected `,` or `}` = 对象的两项之间缺少逗号，或缺少右花括号
expected value = 此处应为一个值
expected ident = 此处应为 true、false 或 null
key must be a string = 键必须是双引号中的字符串
trailing comma = 最后一项之后不能有逗号
trailing characters = JSON 结束之后还有内容
control character… = 字符串中的换行等控制字符必须转义
invalid escape = 无效的转义
invalid number = 无效的数字
number out of range = 数字超出范围
invalid type:… = 不是对象
invalid UTF-8 = 不是有效的 UTF-8
nested deeper than… = 嵌套过深
recursion limit exceeded = 嵌套过深
unclosed group = 缺少右括号
unopened group = 多余的右括号
unclosed character class = 缺少右方括号
unclosed counted repetition = 缺少右花括号
unrecognized escape sequence = 未知的转义
incomplete escape sequence… = 转义不完整
repetition operator missing expression = 重复符号之前没有内容
repetition quantifier expects… = 花括号中应为重复次数
invalid repetition count range… = 重复次数的下限大于上限
invalid character class range… = 字符范围的起点大于终点
look-around… = 不支持环视
backreferences… = 不支持反向引用
an object = 对象
an array = 数组
a string = 字符串
a number = 数字
a value = 一个值
a positive integer = 正整数
true or false = true 或 false
a string or an array = 字符串或数组
a url or a file_id = url 或 file_id
media_type and data = media_type 和 data
at least one message = 至少一条消息
at most 256 bytes = 最多 256 字节
at most 256 tools = 最多 256 个工具
at most 10000 blocks… = 每条消息最多 10000 个内容块
an id of at most 512 bytes = 最多 512 字节的 id
each tool's name once = 各不相同的工具名称
url = url
user or assistant = user 或 assistant
user, assistant, system or developer = user、assistant、system 或 developer
auto or standard_only = auto 或 standard_only
auto, any, tool or none = auto、any、tool 或 none
auto, none or required = auto、none 或 required
"#;

/// The reason in Chinese; an unknown one stays as it is, in quotes.
pub fn zh(reason: &str) -> String {
    let known = IN_CHINESE.lines().filter_map(|line| line.split_once(" = ")).find(|(known, _)| {
        known.strip_suffix('…').map_or(*known == reason, |beginning| reason.starts_with(beginning))
    });
    match known {
        Some((_, chinese)) => chinese.to_owned(),
        None => format!("“{reason}”"),
    }
}

/// A reason of serde_json, whose place stands at its end, with the place first.
pub fn placed_zh(reason: &str) -> String {
    let Some((cause, place)) = reason.rsplit_once(" at ") else { return zh(reason) };
    let place = match place.strip_prefix("line ").and_then(|place| place.split_once(" column ")) {
        Some((line, column)) => format!("第 {line} 行第 {column} 列"),
        None => place.replace("byte ", "字节 "),
    };
    format!("{place}: {}", zh(cause))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use regex::Regex;

    use super::{placed_zh, zh};

    #[test]
    fn placed_zh_of_a_syntax_error_names_place_and_cause() {
        for (text, said) in [
            ("{\n \"a\": ?}", "第 2 行第 7 列: 此处应为一个值"),
            ("{} x", "第 1 行第 4 列: JSON 结束之后还有内容"),
            ("{\"a\": 1", "第 1 行第 7 列: 对象没有右花括号"),
            ("{a: 1}", "第 1 行第 2 列: 键必须是双引号中的字符串"),
            ("{\"a\": 1,}", "第 1 行第 9 列: 最后一项之后不能有逗号"),
            ("{\"a\" 1}", "第 1 行第 6 列: 键之后缺少冒号"),
            ("[\"a\nb\"]", "第 2 行第 0 列: 字符串中的换行等控制字符必须转义"),
        ] {
            let error = serde_json::from_str::<serde_json::Value>(text).expect_err("bad JSON");
            assert_eq!(placed_zh(&error.to_string()), said, "{text}");
        }
        assert_eq!(placed_zh("invalid UTF-8 at byte 7"), "字节 7: 不是有效的 UTF-8");
    }

    #[test]
    fn zh_of_an_unknown_reason_quotes_it() {
        assert_eq!(zh("dangling flag negation operator"), "“dangling flag negation operator”");
    }

    #[test]
    fn zh_knows_what_every_translation_expects() {
        let expected = Regex::new(r#"Refusal::expected\((?:key|"[^"]*"), "([^"]+)"\)"#).expect("regex");
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dialect")];
        let mut count = 0;
        while let Some(folder) = folders.pop() {
            for entry in folder.read_dir().expect("a folder") {
                let path = entry.expect("entry").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let source = std::fs::read_to_string(&path).expect("source");
                for found in expected.captures_iter(&source) {
                    assert!(!zh(&found[1]).starts_with('“'), "{path:?}: {}", &found[1]);
                    count += 1;
                }
            }
        }
        assert!(count > 40, "{count}");
    }
}
