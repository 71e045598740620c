//! Thinking of a translated provider in a request for a provider of Anthropic's format: Anthropic refuses it
//! without a signature.

use std::ops::Range;

use memchr::memmem;

use super::parts::kind;
use crate::core::sort::sort_by;
use crate::dialect::json::{Fit, elements, inside, is_array, members};
use crate::dialect::raw::Raw;

/// The ranges to cut from the body of a Messages request, so that no `thinking` block has an empty signature:
/// those blocks, and messages with no other content. Ascending; empty if the request is not well-formed.
pub fn unsigned_thinking(body: &[u8]) -> Vec<Range<usize>> {
    let has_unsigned = memmem::find_iter(body, SIGNATURE).any(|at| {
        let value = body[at + SIGNATURE.len()..].trim_ascii_start().strip_prefix(b":");
        value.is_some_and(|value| value.trim_ascii_start().starts_with(b"\"\""))
    });
    if !has_unsigned {
        return Vec::new();
    }
    serde_json::from_slice::<Raw<'_>>(body)
        .ok()
        .and_then(|raw| in_request(raw, body).ok())
        .unwrap_or_default()
}

const SIGNATURE: &[u8] = b"\"signature\"";

fn in_request(raw: Raw<'_>, body: &[u8]) -> Fit<Vec<Range<usize>>> {
    let span_of = |value: Raw<'_>| {
        let start = value.get().as_ptr().addr() - body.as_ptr().addr();
        start..start + value.get().len()
    };
    let mut cuts = Vec::new();
    members(raw, |key, messages| {
        if key != "messages" {
            return Ok(());
        }
        let mut list = Cutter::default();
        elements(messages, |_, message| {
            let (before, mut is_empty) = (cuts.len(), false);
            members(message, |key, content| {
                if key != "content" || !is_array(content) {
                    return Ok(());
                }
                let mut blocks = Cutter::default();
                elements(content, |_, block| {
                    blocks.next(span_of(block), is_unsigned(block)?, &mut cuts);
                    Ok(())
                })?;
                is_empty = blocks.end(&mut cuts);
                Ok(())
            })?;
            if is_empty {
                cuts.truncate(before);
            }
            list.next(span_of(message), is_empty, &mut cuts);
            Ok(())
        })?;
        list.end(&mut cuts);
        Ok(())
    })?;
    // A run of messages is cut after the blocks of the message at its end.
    sort_by(&mut cuts, |a, b| a.start.cmp(&b.start));
    Ok(cuts)
}

fn is_unsigned(block: Raw<'_>) -> Fit<bool> {
    if kind(block)? != "thinking" {
        return Ok(false);
    }
    let mut is_unsigned = true;
    members(block, |key, value| {
        if key == "signature" {
            is_unsigned = inside(value)?.is_empty();
        }
        Ok(())
    })?;
    Ok(is_unsigned)
}

/// Cuts elements out of an array, each with one comma.
#[derive(Default)]
struct Cutter {
    /// End of the last element that stays.
    kept: Option<usize>,
    /// The elements to cut since then.
    run: Option<Range<usize>>,
}

impl Cutter {
    /// Takes the next element.
    fn next(&mut self, span: Range<usize>, is_cut: bool, cuts: &mut Vec<Range<usize>>) {
        if is_cut {
            let start = self.run.as_ref().map_or(span.start, |run| run.start);
            self.run = Some(start..span.end);
            return;
        }
        cuts.extend(self.run.take().map(|run| run.start..span.start));
        self.kept = Some(span.end);
    }

    /// Handles the array's end. Returns whether every element would be cut; then none is.
    fn end(self, cuts: &mut Vec<Range<usize>>) -> bool {
        match (self.kept, self.run) {
            (Some(kept), Some(run)) => cuts.push(kept..run.end),
            (None, Some(_)) => return true,
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::unsigned_thinking;

    const OURS: &str = r#"{"type":"thinking","thinking":"t","signature" : ""}"#;
    const THEIRS: &str = r#"{"type":"thinking","thinking":"t","signature":"abc"}"#;
    const TEXT: &str = r#"{"type":"text","text":"\"signature\":\"\""}"#;

    fn cut(body: &str) -> String {
        let mut out = body.to_owned();
        for cut in unsigned_thinking(body.as_bytes()).into_iter().rev() {
            out.replace_range(cut, "");
        }
        out
    }

    fn message(blocks: &[&str]) -> String {
        format!(r#"{{"role":"assistant", "content": [ {} ]}}"#, blocks.join(" , "))
    }

    fn request(messages: &[String]) -> String {
        format!(r#"{{"messages":[{}],"x":1.0e0}}"#, messages.join(",\n"))
    }

    #[test]
    fn unsigned_thinking_is_cut_with_one_comma_each() {
        for (blocks, left) in [
            (&[OURS, TEXT][..], &[TEXT][..]),
            (&[TEXT, OURS], &[TEXT]),
            (&[TEXT, OURS, TEXT], &[TEXT, TEXT]),
            (&[OURS, OURS, TEXT, OURS, THEIRS, OURS, OURS], &[TEXT, THEIRS]),
            (&[THEIRS, TEXT], &[THEIRS, TEXT]),
        ] {
            assert_eq!(cut(&request(&[message(blocks)])), request(&[message(left)]));
        }
    }

    #[test]
    fn message_of_nothing_but_unsigned_thinking_is_cut() {
        let (ours, mixed, text) = (message(&[OURS]), message(&[OURS, TEXT]), message(&[TEXT]));
        let user = r#"{"role":"user","content":"hi"}"#.to_owned();
        for (messages, left) in [
            (vec![&user, &ours, &user], vec![&user, &user]),
            (vec![&ours, &ours, &mixed, &ours], vec![&text]),
            (vec![&user, &ours, &mixed], vec![&user, &text]),
            (vec![&user, &ours], vec![&user]),
        ] {
            let of = |list: Vec<&String>| request(&list.into_iter().cloned().collect::<Vec<_>>());
            assert_eq!(cut(&of(messages)), of(left));
        }
    }

    #[test]
    fn what_has_no_unsigned_thinking_or_another_shape_stays() {
        let as_string = r#"{"messages":[{"role":"user","content":"\"signature\":\"\""}]}"#;
        for body in [
            as_string.to_owned(),
            request(&[message(&[THEIRS])]),
            request(&[message(&[OURS])]),
            r#"{"signature":"","messages":5}"#.to_owned(),
            r#"{"signature":"","messages":[5]}"#.to_owned(),
            r#"{"signature":"","messages":[{"content":[{}]}]}"#.to_owned(),
            r#"{"signature":"""#.to_owned(),
            String::new(),
        ] {
            assert_eq!(cut(&body), body);
        }
    }
}
