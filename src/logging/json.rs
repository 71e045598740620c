//! A line of the log as a JSON object (config key `log_format`).

use std::fmt::Write;

use log::Record;
use log::kv::{Error, Key, Value, VisitSource, VisitValue};

use crate::core::date::LocalTime;
use crate::limits::MAX_QUOTED;
use crate::text::beginning;

/// Time, level, and the event's fields; the words of an event without fields are in `message`.
pub fn push_line(line: &mut String, now: LocalTime, level: &str, record: &Record<'_>) {
    line.push_str("{\"time\":\"");
    now.push(line, "T");
    now.push_offset(line);
    line.extend(["\",\"level\":\"", level, "\""]);
    if record.key_values().count() == 0 {
        line.push_str(",\"message\":");
        push_string(line, &record.args().to_string(), usize::MAX);
    }
    // A write into a string cannot fail.
    let _ = record.key_values().visit(&mut Fields(line));
    line.push_str("}\n");
}

struct Fields<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        self.0.push(',');
        push_string(self.0, key.as_str(), usize::MAX);
        self.0.push(':');
        value.visit(FieldValue(self.0))
    }
}

struct FieldValue<'a>(&'a mut String);

impl<'v> VisitValue<'v> for FieldValue<'_> {
    fn visit_any(&mut self, value: Value<'_>) -> Result<(), Error> {
        push_string(self.0, &value.to_string(), MAX_QUOTED);
        Ok(())
    }

    fn visit_null(&mut self) -> Result<(), Error> {
        self.0.push_str("null");
        Ok(())
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), Error> {
        Ok(write!(self.0, "{value}")?)
    }

    fn visit_i64(&mut self, value: i64) -> Result<(), Error> {
        Ok(write!(self.0, "{value}")?)
    }

    /// A time in seconds, to the millisecond.
    fn visit_f64(&mut self, value: f64) -> Result<(), Error> {
        Ok(write!(self.0, "{value:.3}")?)
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), Error> {
        Ok(write!(self.0, "{value}")?)
    }
}

/// A JSON string of at most `limit` bytes of text. Every character that a reader could take for a line end is
/// escaped, including those that JSON allows (C1, U+2028, U+2029).
fn push_string(line: &mut String, text: &str, limit: usize) {
    let kept = beginning(text, limit);
    line.push('"');
    for character in kept.chars() {
        match character {
            '"' | '\\' => line.extend(['\\', character]),
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c => line.push(c),
        }
    }
    line.push_str(if kept.len() < text.len() { "…\"" } else { "\"" });
}

#[cfg(test)]
mod tests {
    use log::{Level, Record};

    use super::{LocalTime, push_line, push_string};

    fn string(text: &str, limit: usize) -> String {
        let mut line = String::new();
        push_string(&mut line, text, limit);
        line
    }

    fn line(now: LocalTime, record: &Record<'_>) -> String {
        let mut line = String::new();
        push_line(&mut line, now, "INFO", record);
        line
    }

    #[test]
    fn no_text_can_end_its_line_or_its_string() {
        for text in ["a\"b\\c", "\r\n\t\0", "\u{85}\u{9b}\u{7f}", "\u{2028}\u{2029}", "模型 \u{1f600}", ""]
        {
            let written = string(text, usize::MAX);
            assert_eq!(serde_json::from_str::<String>(&written).ok().as_deref(), Some(text), "{written}");
            assert!(!written.contains(|c: char| c.is_control() || c == '\u{2028}' || c == '\u{2029}'));
        }
        assert_eq!(string("日本語", 7), "\"日本…\"");
    }

    #[test]
    fn an_event_without_fields_has_a_message_and_its_local_time() {
        let now = LocalTime::of((1_768_440_600, 123), 8 * 3600);
        let args = format_args!("a \"b\"");
        let record = Record::builder().level(Level::Info).args(args).build();
        assert_eq!(
            line(now, &record),
            "{\"time\":\"2026-01-15T09:30:00.123+08:00\",\"level\":\"INFO\",\"message\":\"a \\\"b\\\"\"}\n"
        );
    }

    #[test]
    fn time_has_whole_milliseconds_and_hours_and_minutes_of_its_offset() {
        for (seconds, expected) in [
            (0, "2026-01-15T09:30:00.999+00:00"),
            (-3 * 3600 - 1800, "2026-01-15T09:30:00.999-03:30"),
            (5 * 3600 + 2700, "2026-01-15T09:30:00.999+05:45"),
        ] {
            let now = LocalTime::of((1_768_469_400 - i64::from(seconds), 999), seconds);
            let line = line(now, &Record::builder().level(Level::Info).build());
            assert!(line.contains(expected), "{line}");
        }
    }
}
