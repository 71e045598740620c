//! `stream_options.include_usage` of a streamed chat call: where it is added to a body that does not ask for usage.

use std::ops::Range;

use crate::json::members;

/// The change that makes a body ask for usage: `text` replaces `span`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    /// The bytes to replace; empty: an insertion.
    pub span: Range<usize>,
    /// The replacement.
    pub text: &'static str,
}

/// The addition to a body whose top level has this `stream_options`, so that it asks for usage; `None`: it asks already, or
/// the option is malformed, which the provider reports. `place`: where a value stands in the body.
pub fn addition(
    options: Option<&str>,
    body: &[u8],
    place: impl Fn(&str) -> Range<usize>,
) -> Option<Addition> {
    let Some(options) = options else {
        let start = body.iter().position(|byte| *byte == b'{')? + 1;
        // The object has a member: `model`.
        let text = "\"stream_options\":{\"include_usage\":true},";
        return Some(Addition { span: start..start, text });
    };
    if options == "null" {
        return Some(Addition { span: place(options), text: "{\"include_usage\":true}" });
    }
    let (mut include_usage, mut others) = (Vec::new(), false);
    members(options, |name, value| match name {
        "include_usage" => include_usage.push(value.get()),
        _ => others = true,
    })
    .ok()?;
    match include_usage[..] {
        [] => {
            let start = place(options).start + 1;
            let text = if others { "\"include_usage\":true," } else { "\"include_usage\":true" };
            Some(Addition { span: start..start, text })
        }
        [value] if matches!(value, "false" | "null") => Some(Addition { span: place(value), text: "true" }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::core::splice::Body;

    fn asking(body: &str) -> String {
        let parsed = Body::parse(body.as_bytes()).expect("a good body");
        let pieces = parsed.with_model_and_usage(body.as_bytes(), b"NEW");
        String::from_utf8(pieces.concat()).expect("UTF-8")
    }

    #[test]
    fn body_asks_for_usage_and_keeps_every_other_byte() {
        for (options, expected) in [
            ("null", r#"{"include_usage":true}"#),
            ("{}", r#"{"include_usage":true}"#),
            ("{ }", r#"{"include_usage":true }"#),
            (
                r#"{ "include_obfuscation" : false }"#,
                r#"{"include_usage":true, "include_obfuscation" : false }"#,
            ),
            (r#"{"include_usage" : false,"x":1}"#, r#"{"include_usage" : true,"x":1}"#),
            (r#"{"x":"}","include\u005fusage":null}"#, r#"{"x":"}","include\u005fusage":true}"#),
            // The body asks already, or its option is malformed.
            (r#"{"include_usage": true}"#, r#"{"include_usage": true}"#),
            (r#"{"include_usage": "no"}"#, r#"{"include_usage": "no"}"#),
            (
                r#"{"include_usage": false,"include_usage": false}"#,
                r#"{"include_usage": false,"include_usage": false}"#,
            ),
            ("[]", "[]"),
            ("\"{}\"", "\"{}\""),
            ("0", "0"),
        ] {
            for body in [
                r#"{"stream":true, "stream_options" : OPTIONS ,"model":"a","x":[1.0]}"#,
                r#" { "model":"a","messages":[{"stream_options":null}],"stream":true,"stream\u005foptions":OPTIONS}"#,
            ] {
                let expected = body.replace("OPTIONS", expected).replace("\"a\"", "\"NEW\"");
                assert_eq!(asking(&body.replace("OPTIONS", options)), expected);
            }
        }
        assert_eq!(
            asking(" {\"model\":\"a\", \"stream\":true}\n"),
            " {\"stream_options\":{\"include_usage\":true},\"model\":\"NEW\", \"stream\":true}\n"
        );
        for untouched in [
            r#"{"model":"NEW","stream":true,"stream_options":null,"stream_options":{}}"#,
            r#"{"model":"NEW","stream":false}"#,
            r#"{"model":"NEW"}"#,
        ] {
            assert_eq!(asking(untouched), untouched);
        }
    }
}
