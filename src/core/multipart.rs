//! The one change a relayed form undergoes: the content of its `model` parts (RFC 7578, RFC 2046 section 5.1).
//!
//! It is strict where two readers could see two forms in one body: the provider must find the very model that was
//! found and replaced here, or a token could reach models that it may not use.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use memchr::memmem;

use super::BodyError;
use super::choosers::{Chooser, chooser, reads_as_model};
use super::request_head::is_token_byte;
use super::splice::{Body, checked_model, note};
use crate::limits::{MAX_BOUNDARY, MAX_PART_HEAD, MAX_PARTS};

/// Parses a form. `content_type`: the value of the request's `Content-Type`, empty where there is none.
///
/// # Errors
/// It is no well-formed `multipart/form-data`, names no model, or its `model` is not a line of text.
pub fn parse(content_type: &[u8], bytes: &[u8]) -> Result<Body, BodyError> {
    let boundary = boundary_of(content_type)?;
    let delimiter = [b"--", &*boundary].concat();
    let mut form = Form::default();
    let mut parts = 0;
    let mut part_start = None;
    let mut is_closed = false;
    for at in memmem::find_iter(bytes, &delimiter) {
        if !begins_line(bytes, at)? {
            continue;
        }
        if is_closed {
            return bad("multipart: a boundary behind the closing one");
        }
        if let Some(start) = part_start {
            // The line end before a boundary belongs to the boundary.
            let end = at - 2;
            if end < start || parts == MAX_PARTS {
                return bad(if end < start {
                    "multipart: an empty part"
                } else {
                    "multipart: too many parts"
                });
            }
            parts += 1;
            form.take(bytes, start..end, &delimiter)?;
        }
        let rest = &bytes[at + delimiter.len()..];
        is_closed = rest.starts_with(b"--");
        let line = behind_blanks(&rest[if is_closed { 2 } else { 0 }..]);
        if !(line.starts_with(b"\r\n") || (is_closed && line.is_empty())) {
            return bad("multipart: a boundary is not alone on its line");
        }
        part_start = Some(bytes.len() - line.len() + 2);
    }
    if !is_closed {
        let is_empty = bytes.trim_ascii().is_empty();
        return bad(if is_empty { "multipart: the form is empty" } else { "multipart: no closing boundary" });
    }
    let (model, span) = form.model.take().ok_or(BodyError::MissingModel)?;
    let Form { stream, choosers, .. } = form;
    Ok(Body::text(model, stream, Some(span), choosers))
}

fn bad<T>(what: &'static str) -> Result<T, BodyError> {
    Err(BodyError::InvalidForm(what))
}

/// The boundary that a `Content-Type` names: 1 to 70 characters (RFC 2046 section 5.1.1).
fn boundary_of(content_type: &[u8]) -> Result<Cow<'_, [u8]>, BodyError> {
    let (kind, parameters) = cut_at_semicolon(content_type);
    if !kind.trim_ascii().eq_ignore_ascii_case(b"multipart/form-data") {
        return bad("Content-Type must be multipart/form-data");
    }
    let boundary = Parameters::read(parameters, "boundary")?.wanted;
    let boundary = boundary.ok_or(BodyError::InvalidForm("Content-Type: no boundary"))?;
    let may_stand = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
    let is_good = (1..=MAX_BOUNDARY).contains(&boundary.len())
        && boundary.iter().all(may_stand)
        && !boundary.ends_with(b" ");
    if is_good { Ok(boundary) } else { bad("Content-Type: boundary") }
}

/// Whether a line begins at `at`. After half a line end some readers see a boundary and others do not: that is an error.
fn begins_line(bytes: &[u8], at: usize) -> Result<bool, BodyError> {
    match &bytes[..at] {
        [] | [.., b'\r', b'\n'] => Ok(true),
        [.., b'\r' | b'\n'] => bad("multipart: a boundary behind a bare CR or LF"),
        _ => Ok(false),
    }
}

/// The parts that matter.
#[derive(Debug, Default)]
struct Form {
    /// The model, and its place.
    model: Option<(Arc<str>, Range<usize>)>,
    stream: bool,
    /// As in [`Body`].
    choosers: Vec<(&'static Chooser, Option<Range<usize>>)>,
}

impl Form {
    fn take(&mut self, bytes: &[u8], part: Range<usize>, delimiter: &[u8]) -> Result<(), BodyError> {
        let searched = &bytes[part.start..part.end.min(part.start + MAX_PART_HEAD)];
        let Some(head) = memmem::find(searched, b"\r\n\r\n") else {
            return bad("multipart: the head of a part has no end, or is too large");
        };
        let disposition = Disposition::read(&searched[..head])?;
        let span = part.start + head + 4..part.end;
        let content = &bytes[span.clone()];
        match &*disposition.name {
            b"model" => {
                let model = std::str::from_utf8(content).map_err(|_| BodyError::InvalidModel)?;
                // The provider gets a part of it in its place; that part must not begin a boundary.
                let is_line = !model.contains(char::is_control);
                if !is_line || disposition.is_file || memmem::find(content, delimiter).is_some() {
                    return Err(BodyError::InvalidModel);
                }
                if disposition.is_encoded {
                    return bad("multipart: Content-Transfer-Encoding of model");
                }
                let model = (checked_model(model)?, span);
                if self.model.replace(model).is_some() {
                    return Err(BodyError::AmbiguousModel);
                }
            }
            name if reads_as_model(name) => return Err(BodyError::AmbiguousModel),
            // Python's clients write `True`.
            b"stream" => self.stream = content.eq_ignore_ascii_case(b"true"),
            name => {
                if let Some(chooser) = std::str::from_utf8(name).ok().and_then(chooser) {
                    note(&mut self.choosers, chooser, None);
                }
            }
        }
        Ok(())
    }
}

/// The head of a part.
struct Disposition<'a> {
    name: Cow<'a, [u8]>,
    is_file: bool,
    /// Its content has a transfer encoding.
    is_encoded: bool,
}

impl<'a> Disposition<'a> {
    /// Reads a part's head, without the blank line after it.
    fn read(head: &'a [u8]) -> Result<Self, BodyError> {
        let mut found = None;
        let mut is_encoded = false;
        let mut rest = head;
        loop {
            let end = memmem::find(rest, b"\r\n");
            let (name, value) = header_of(&rest[..end.unwrap_or(rest.len())])?;
            if name.eq_ignore_ascii_case(b"content-disposition") {
                let (kind, parameters) = cut_at_semicolon(value);
                if found.is_some() || !kind.trim_ascii().eq_ignore_ascii_case(b"form-data") {
                    return bad("multipart: Content-Disposition");
                }
                found = Some(Parameters::read(parameters, "name")?);
            } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
                let plain: [&[u8]; 3] = [b"7bit", b"8bit", b"binary"];
                is_encoded |= !plain.iter().any(|coding| value.trim_ascii().eq_ignore_ascii_case(coding));
            }
            match end {
                Some(end) => rest = &rest[end + 2..],
                None => break,
            }
        }
        let Some(Parameters { wanted: Some(name), has_filename: is_file }) = found else {
            return bad("multipart: a part without a name");
        };
        Ok(Self { name, is_file, is_encoded })
    }
}

/// One header line of a part. Folded lines are refused, as in a request's head.
fn header_of(line: &[u8]) -> Result<(&[u8], &[u8]), BodyError> {
    let colon = line.iter().position(|&byte| byte == b':').unwrap_or(0);
    let (name, value) = line.split_at(colon);
    let good = colon > 0
        && name.iter().copied().all(is_token_byte)
        && !value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0));
    if good { Ok((name, &value[1..])) } else { bad("multipart: header field of a part") }
}

fn cut_at_semicolon(value: &[u8]) -> (&[u8], &[u8]) {
    value.split_at(value.iter().position(|&byte| byte == b';').unwrap_or(value.len()))
}

/// The parameters after a header's value, `; name=value` each (RFC 9110 section 5.6.6, white space as clients write it).
struct Parameters<'a> {
    wanted: Option<Cow<'a, [u8]>>,
    has_filename: bool,
}

impl<'a> Parameters<'a> {
    /// Reads them all. The `wanted` one may occur once, and not in an encoding of its own (`name*`, RFC 7578 section 4.2).
    fn read(mut text: &'a [u8], wanted: &str) -> Result<Self, BodyError> {
        let mut found = Self { wanted: None, has_filename: false };
        loop {
            text = behind_blanks(text);
            match text.split_first() {
                None => return Ok(found),
                Some((b';', rest)) => text = behind_blanks(rest),
                Some(_) => return bad("a parameter of Content-Type or Content-Disposition"),
            }
            if text.is_empty() {
                return Ok(found);
            }
            let end = text.iter().position(|&byte| byte == b'=').unwrap_or(0);
            let name = text[..end].trim_ascii();
            if name.is_empty() || !name.iter().copied().all(is_token_byte) {
                return bad("a parameter of Content-Type or Content-Disposition");
            }
            let (value, rest) = value_of(behind_blanks(&text[end + 1..]))?;
            text = rest;
            let plain = name.strip_suffix(b"*").unwrap_or(name);
            if plain.eq_ignore_ascii_case(wanted.as_bytes()) {
                if found.wanted.is_some() || plain.len() < name.len() {
                    return bad("a parameter of Content-Type or Content-Disposition that must come once");
                }
                found.wanted = Some(value);
            }
            found.has_filename |= plain.eq_ignore_ascii_case(b"filename");
        }
    }
}

/// A parameter's value, and the text after it. Without quotes it ends at the next `;` or blank: clients write
/// boundaries with bytes that no token allows.
fn value_of(text: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), BodyError> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| b"; \t\"".contains(byte)).unwrap_or(text.len());
        return if end == 0 {
            bad("a parameter without a value")
        } else {
            Ok((text[..end].into(), &text[end..]))
        };
    };
    let mut at = 0;
    let mut plain = Vec::new();
    let mut from = 0;
    loop {
        match quoted.get(at) {
            None => return bad("a quoted parameter without its end"),
            Some(b'"') => break,
            Some(b'\\') => {
                plain.extend_from_slice(&quoted[from..at]);
                from = at + 1;
                at += 2;
            }
            Some(_) => at += 1,
        }
    }
    let rest = &quoted[at + 1..];
    if from == 0 {
        return Ok((quoted[..at].into(), rest));
    }
    plain.extend_from_slice(&quoted[from..at]);
    Ok((plain.into(), rest))
}

/// `text` without the spaces and tabs it begins with.
fn behind_blanks(text: &[u8]) -> &[u8] {
    &text[text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count()..]
}

#[cfg(test)]
mod tests {
    use super::{BodyError, MAX_PART_HEAD, MAX_PARTS, parse};
    use crate::limits::MAX_MODEL;

    const KIND: &[u8] = b"multipart/form-data; boundary=XX";

    fn part(head: &str, content: &str) -> String {
        format!("--XX\r\n{head}\r\n\r\n{content}\r\n")
    }

    fn field(name: &str, content: &str) -> String {
        part(&format!("Content-Disposition: form-data; name=\"{name}\""), content)
    }

    fn form(parts: &[String]) -> String {
        format!("{}--XX--\r\n", parts.concat())
    }

    fn spliced(form: &str) -> String {
        let parsed = parse(KIND, form.as_bytes()).unwrap_or_else(|error| panic!("{error:?}: {form}"));
        let model = parsed.written("NEW/\"x\"");
        String::from_utf8(parsed.with_model(form.as_bytes(), model.as_bytes()).concat())
            .expect("UTF-8 stays UTF-8")
    }

    fn refused(form: &str) -> BodyError {
        parse(KIND, form.as_bytes()).expect_err(form)
    }

    #[track_caller]
    fn assert_malformed(form: &str) {
        assert!(matches!(refused(form), BodyError::InvalidForm(_)), "{form}");
    }

    #[test]
    fn only_the_content_of_model_changes() {
        let file = part(
            "Content-Disposition: form-data; name=\"file\"; filename=\"model\"\r\nContent-Type: audio/wav",
            "RIFF\r\n\r\nname=\"model\"\r\n--X\r\n --XX--",
        );
        let before = form(&[field("x", "\r\n"), field("model", "p/m"), file.clone(), field("models", "p/m")]);
        let after = form(&[field("x", "\r\n"), field("model", "NEW/\"x\""), file, field("models", "p/m")]);
        assert_eq!(spliced(&before), after);
    }

    #[test]
    fn model_is_known_however_its_head_is_written() {
        for head in [
            "Content-Disposition: form-data; name=\"model\"",
            "content-disposition:form-data;name=model",
            "CONTENT-DISPOSITION: Form-Data ; NAME = \"model\" ;",
            "Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; x=\"a;\\\"b\"; name=\"model\"",
            "Content-Disposition: form-data; name=\"mo\\del\"\r\nContent-Transfer-Encoding: 8bit",
        ] {
            let expected = format!("--XX\r\n{head}\r\n\r\nNEW/\"x\"\r\n--XX--\r\n");
            assert_eq!(spliced(&form(&[part(head, "p/m")])), expected);
        }
    }

    #[test]
    fn preamble_epilogue_and_padding_stay() {
        let before = format!(
            "for old readers\r\n--XX \t\r\n{}{}--XX-- \r\nthe end",
            &field("x", "a")[6..],
            field("model", "b/c")
        );
        let parsed = parse(KIND, before.as_bytes()).expect("a good form");
        assert_eq!((&*parsed.model, parsed.stream), ("b/c", false));
        let pieces = parsed.with_model(before.as_bytes(), b"N").concat();
        assert_eq!(String::from_utf8_lossy(&pieces), before.replace("b/c", "N"));
    }

    #[test]
    fn model_repeated_or_in_another_case_is_refused() {
        for name in ["model", "Model", "MODEL", "mo\\del", "m\\Odel"] {
            let both = [field("model", "m"), field(name, "m")];
            assert_eq!(refused(&form(&both)), BodyError::AmbiguousModel, "{name}");
            let turned = [field(name, "m"), field("model", "m")];
            assert_eq!(refused(&form(&turned)), BodyError::AmbiguousModel, "{name}");
        }
        assert_eq!(refused(&form(&[field("Model", "m")])), BodyError::AmbiguousModel);
    }

    #[test]
    fn model_over_its_bound_is_refused() {
        let named = |length| form(&[field("model", &"m".repeat(length))]);
        assert!(parse(KIND, named(MAX_MODEL).as_bytes()).is_ok());
        assert_eq!(refused(&named(MAX_MODEL + 1)), BodyError::ModelTooLong);
    }

    #[test]
    fn stream_is_read_from_the_form() {
        for (value, streamed) in [("true", true), ("True", true), ("false", false), ("1", false), ("", false)]
        {
            let form = form(&[field("model", "m"), field("stream", value)]);
            assert_eq!(parse(KIND, form.as_bytes()).expect("good").stream, streamed, "{value}");
        }
    }

    #[test]
    fn boundaries_of_all_kinds_are_taken_and_others_refused() {
        let with = |boundary: &str, parameter: &str| {
            let form = form(&[field("model", "m")]).replace("--XX", &format!("--{boundary}"));
            parse(format!("Multipart/Form-Data{parameter}").as_bytes(), form.as_bytes())
        };
        for (boundary, parameter) in [
            ("XX", "; boundary=XX"),
            ("XX", ";boundary=\"XX\""),
            ("XX", " ; charset=utf-8 ; BOUNDARY = XX ; x=y"),
            ("----WebKitFormBoundaryAbC123", "; boundary=----WebKitFormBoundaryAbC123"),
            ("==1==/a:b?", "; boundary===1==/a:b?"),
            ("a b", "; boundary=\"a b\""),
            ("ab", "; boundary=\"a\\b\""),
            (&"x".repeat(70), &format!("; boundary={}", "x".repeat(70))),
        ] {
            assert!(with(boundary, parameter).is_ok(), "{parameter}");
        }
        for (boundary, parameter) in [
            ("XX", ""),
            ("XX", ";"),
            ("", "; boundary="),
            ("", "; boundary=\"\""),
            ("XX", "; boundary=XX; boundary=XX"),
            ("XX", "; boundary*=XX"),
            ("XX", "; boundary=\"XX"),
            ("XX", "; boundary=XX boundary=YY"),
            ("XX", "; boundary"),
            ("a ", "; boundary=\"a \""),
            ("a@b", "; boundary=a@b"),
            ("é", "; boundary=é"),
            (&"x".repeat(71), &format!("; boundary={}", "x".repeat(71))),
        ] {
            assert!(matches!(with(boundary, parameter), Err(BodyError::InvalidForm(_))), "{parameter}");
        }
        for other in [
            &b""[..],
            b"application/json",
            b"multipart/mixed; boundary=XX",
            b"multipart/form-datax; boundary=XX",
        ] {
            assert!(matches!(parse(other, b""), Err(BodyError::InvalidForm(_))));
        }
    }

    #[test]
    fn empty_form_is_named_as_such() {
        for (form, expected) in [
            ("", "multipart: the form is empty"),
            (" \r\n", "multipart: the form is empty"),
            ("--XX", "multipart: a boundary is not alone on its line"),
            ("x", "multipart: no closing boundary"),
        ] {
            assert!(
                matches!(parse(KIND, form.as_bytes()), Err(BodyError::InvalidForm(what)) if what == expected)
            );
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let whole = form(&[field("stream", "true"), field("model", "a/b"), field("z", "1")]);
        let closed = whole.len() - 2;
        for end in 0..whole.len() {
            let outcome = parse(KIND, &whole.as_bytes()[..end]);
            match end {
                // After the closing boundary nothing is required, not even a line end; half of one is an error.
                _ if end == closed => assert!(outcome.is_ok()),
                _ => assert!(matches!(outcome, Err(BodyError::InvalidForm(_))), "cut at {end}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn what_two_readers_could_read_in_two_ways_is_refused() {
        let (good, plain) = (field("model", "m"), field("x", "m"));
        for part in [
            part("Content-Disposition: form-data; name=\"model\"; name=\"x\"", "m"),
            part("Content-Disposition: form-data; name=x; name*=utf-8''model", "m"),
            part("Content-Disposition: form-data; name=x\r\nContent-Disposition: form-data; name=model", "m"),
            part("Content-Disposition: form-data;\r\n name=model", "m"),
            part("Content-Disposition: form-data; name=x\nContent-Disposition: form-data; name=model", "m"),
            part("Content-Disposition: form-data; name=x\rX: y", "m"),
            part("Content-Disposition: form-data; name=x\0", "m"),
            part("Content-Disposition: form-data; name=\"x", "m"),
            part("Content-Disposition: form-data; name=\"x\\\"", "m"),
            part("Content-Disposition: form-data; filename=\"\\\"; name=\"model\"", "m"),
            part("Content-Disposition: form-data; name=\"x\"model", "m"),
            part("Content-Disposition: form-data", "m"),
            part("Content-Disposition: form-data; filename=model", "m"),
            part("Content-Disposition: attachment; name=model", "m"),
            part("Content-Disposition : form-data; name=model", "m"),
            part("Content-Type: text/plain", "m"),
            part("no header", "m"),
            part("", "m"),
            part("\r\nContent-Disposition: form-data; name=x", "m"),
            "--XX\r\nContent-Disposition: form-data; name=x\r\n".to_owned(),
            "--XX\r\n".to_owned(),
            "--XXX\r\n".to_owned(),
            "--XX-\r\n".to_owned(),
            field("x", "\n--XX\r\nContent-Disposition: form-data; name=model\r\n\r\nsecret"),
            field("x", "\r--XX--"),
            field("x", "\r\n--XX\nContent-Disposition: form-data; name=model\n\nsecret"),
            format!("{plain}--XX--\r\n{plain}"),
            format!("{plain}--XX--x\r\n"),
        ] {
            assert_malformed(&form(&[good.clone(), part]));
        }
        assert_malformed(&good);
        assert_malformed("");
        let encoded = "Content-Disposition: form-data; name=model\r\nContent-Transfer-Encoding: base64";
        assert_malformed(&form(&[part(encoded, "bQ==")]));
    }

    #[test]
    fn each_problem_of_the_model_has_its_own_error() {
        assert_eq!(refused(&form(&[field("x", "model")])), BodyError::MissingModel);
        assert_eq!(refused("--XX--"), BodyError::MissingModel);
        for content in ["", "a\r\nb", "a\nb", "a\0b", "p/--XX", "p/--XX\tContent-Disposition"] {
            assert_eq!(refused(&form(&[field("model", content)])), BodyError::InvalidModel, "{content:?}");
        }
        let file = part("Content-Disposition: form-data; name=model; filename=m", "m");
        assert_eq!(refused(&form(&[file])), BodyError::InvalidModel);
        let mut bytes = form(&[field("model", "m?")]).into_bytes();
        let at = bytes.iter().position(|&byte| byte == b'?').expect("there is one");
        bytes[at] = 0xff;
        assert_eq!(parse(KIND, &bytes), Err(BodyError::InvalidModel));
    }

    #[test]
    fn parts_and_their_heads_have_a_bound() {
        let model = field("model", "m");
        let many = |count| form(&[model.clone(), field("x", "").repeat(count - 1)]);
        assert!(parse(KIND, many(MAX_PARTS).as_bytes()).is_ok());
        assert_malformed(&many(MAX_PARTS + 1));
        let long = |length| {
            let head = "Content-Disposition: form-data; name=x\r\nx: ";
            form(&[model.clone(), part(&format!("{head}{}", "x".repeat(length - head.len() - 4)), "")])
        };
        assert!(parse(KIND, long(MAX_PART_HEAD).as_bytes()).is_ok());
        assert_malformed(&long(MAX_PART_HEAD + 1));
    }
}
