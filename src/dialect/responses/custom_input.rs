//! The input of a free-form tool, which arrives as the call of a function with one string: `{"input":"…"}`.

use std::borrow::Cow;

use crate::dialect::chat::text;
use crate::dialect::escapes::unescaped;
use crate::dialect::joined::Joined;
use crate::dialect::json::members;
use crate::dialect::raw::Raw;

/// Longest beginning of the arguments, up to the opening quote of the input, that is recognised while it
/// arrives; bytes.
const MAX_LEAD: usize = 64;
/// The member of the function.
const MEMBER: &str = "\"input\"";

/// Extracts the input from the arguments while they arrive.
#[derive(Debug, Default)]
pub(super) struct CustomInput {
    place: Place,
    /// Bytes of the arguments read so far.
    read: usize,
    input: Joined,
    /// Bytes of the input taken so far.
    taken: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the input.
    #[default]
    Lead,
    Inside,
    Behind,
    /// The arguments begin differently, and are read once they are complete.
    Whole,
}

impl CustomInput {
    /// The new part of the input. `arguments` are all so far, `last`: they are complete.
    pub(super) fn take(&mut self, arguments: &str, last: bool) -> &str {
        if self.place == Place::Lead {
            self.read_lead(arguments);
        }
        if self.place == Place::Inside {
            self.read_input(arguments);
        }
        if last {
            self.end(arguments);
        }
        let new = self.taken;
        self.taken = self.input.text().len();
        &self.input.text()[new..]
    }

    /// The input so far.
    pub(super) fn text(&self) -> &str {
        self.input.text()
    }

    fn read_lead(&mut self, arguments: &str) {
        match lead(arguments) {
            Some(length) => (self.place, self.read) = (Place::Inside, length),
            None if arguments.len() > MAX_LEAD => self.place = Place::Whole,
            None => {}
        }
    }

    /// Reads up to the closing quote of the input, or to an incomplete escape.
    fn read_input(&mut self, arguments: &str) {
        let rest = &arguments[self.read..];
        let bytes = rest.as_bytes();
        let mut end = 0;
        loop {
            match memchr::memchr2(b'"', b'\\', &bytes[end..]) {
                None => end = bytes.len(),
                Some(at) if bytes[end + at] == b'"' => {
                    end += at;
                    self.place = Place::Behind;
                }
                Some(at) => {
                    let escape = &bytes[end + at..];
                    let length = if escape.get(1) == Some(&b'u') { "\\u0000".len() } else { "\\n".len() };
                    end += at;
                    if length <= escape.len() && rest.is_char_boundary(end + length) {
                        end += length;
                        continue;
                    }
                }
            }
            break;
        }
        self.input.push(&unescaped(&rest[..end]));
        self.read += end;
    }

    /// A model may write another form than the schema's: another member, or the bare input.
    fn end(&mut self, arguments: &str) {
        if matches!(self.place, Place::Lead | Place::Whole) {
            self.input.push(only_string(arguments).as_deref().unwrap_or(arguments).as_bytes());
            self.place = Place::Behind;
        }
        self.input.end();
    }
}

/// Length of the arguments before the input, if they begin as expected.
fn lead(arguments: &str) -> Option<usize> {
    let rest = arguments.trim_ascii_start().strip_prefix('{')?;
    let rest = rest.trim_ascii_start().strip_prefix(MEMBER)?;
    let rest = rest.trim_ascii_start().strip_prefix(':')?;
    let rest = rest.trim_ascii_start().strip_prefix('"')?;
    let length = arguments.len() - rest.len();
    (length <= MAX_LEAD).then_some(length)
}

/// The input in complete arguments: their `input`, else the only string in them.
fn only_string(arguments: &str) -> Option<Cow<'_, str>> {
    let (mut input, mut strings, mut count) = (None, None, 0);
    let object: Raw<'_> = serde_json::from_str(arguments.trim_ascii()).ok()?;
    let read = members(object, |key, value| {
        let string = text(value);
        count += usize::from(string.is_some());
        if key == "input" {
            input = string;
        } else {
            strings = string.or(strings.take());
        }
        Ok(())
    });
    read.ok()?;
    input.or(strings.filter(|_| count == 1))
}

#[cfg(test)]
mod tests {
    use super::CustomInput;

    /// The input of arguments that arrive in steps of that many bytes.
    fn input(arguments: &str, step: usize) -> String {
        let (mut custom, mut taken) = (CustomInput::default(), String::new());
        for end in (0..arguments.len()).step_by(step).filter(|end| arguments.is_char_boundary(*end)) {
            taken.push_str(custom.take(&arguments[..end], false));
        }
        taken.push_str(custom.take(arguments, true));
        assert_eq!(taken, custom.text(), "the pieces are the whole");
        taken
    }

    #[test]
    fn custom_input_is_the_same_wherever_its_arguments_are_cut() {
        for (arguments, expected) in [
            (r#"{"input":"*** Begin Patch\n+é\t\"\\😀\n"}"#, "*** Begin Patch\n+é\t\"\\😀\n"),
            (r#" { "input" : "a\u0041\ud83d\ude00\ud83d" } "#, "aA😀\u{fffd}"),
            (r#"{"input":"a","input":"b"}"#, "a"),
            (r#"{"input":""}"#, ""),
            (r#"{"patch":"p"}"#, "p"),
            (r#"{"why":"w","input":"p"}"#, "p"),
            (r#"{"why":"w","what":"p"}"#, r#"{"why":"w","what":"p"}"#),
            (r#"{"input":7}"#, r#"{"input":7}"#),
            ("*** Begin Patch\n", "*** Begin Patch\n"),
            // Cut by the token limit.
            (r#"{"input":"abc\u00"#, "abc"),
            (r#"{"inp"#, r#"{"inp"#),
            ("", ""),
        ] {
            for step in 1..=arguments.len().max(1) {
                assert_eq!(input(arguments, step), expected, "{arguments} by {step}");
            }
        }
    }

    #[test]
    fn long_lead_is_read_once_it_is_complete() {
        let arguments = format!("{{{}\"input\":\"a\"}}", " ".repeat(100));
        assert_eq!(input(&arguments, 1), "a");
    }
}
