//! The change of `model` in a form: every reader finds the new model, and nothing else has changed. The input's first line
//! is the `Content-Type`.

use ai_proxy::core::multipart;

/// What stands for the provider's model: what a client may write into its own.
const NEW: &str = "provider/model é \"x\"";

/// Splices it, and reads what comes out by other means.
pub fn check(data: &[u8]) {
    let (content_type, form) = match data.iter().position(|&byte| byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &b""[..]),
    };
    let Ok(body) = multipart::parse(content_type, form) else { return };
    assert!((1..=256).contains(&body.model.len()) && !body.model.contains(char::is_control));
    let new = body.written(NEW);
    let pieces = body.with_model(form, new.as_bytes());
    let [start, middle, rest, b"", b""] = pieces else { panic!("{} pieces", pieces.len()) };
    assert_eq!(middle, new.as_bytes());
    assert_eq!([start, body.model.as_bytes(), rest].concat(), form);
    let models = plainly(content_type, form).unwrap_or_default();
    assert!(models.len() <= 1, "a model that was overlooked");
    if let [model] = &models[..] {
        assert_eq!(model, body.model.as_bytes());
    }
    let spliced = pieces.concat();
    let again = multipart::parse(content_type, &spliced).expect("still a good form");
    assert_eq!((&*again.model, again.stream), (NEW, body.stream));
    for model in plainly(content_type, &spliced).unwrap_or_default() {
        assert_eq!(model, NEW.as_bytes(), "a model that was not replaced");
    }
}

/// The contents of the parts that the plainest of readers would take for `model`; `None` where it finds no boundary.
fn plainly(content_type: &[u8], form: &[u8]) -> Option<Vec<Vec<u8>>> {
    let text = std::str::from_utf8(content_type).ok()?;
    let boundary = text.split(';').nth(1)?.trim().strip_prefix("boundary=")?;
    if text.split(';').count() != 2 || boundary.contains(['"', '\\', ' ', '\t']) {
        return None;
    }
    let whole = [b"\r\n", form].concat();
    let delimiter = [b"\r\n--", boundary.as_bytes()].concat();
    let mut models = Vec::new();
    let mut rest = behind(&whole, &delimiter)?.1;
    while let Some((part, more)) = behind(rest, &delimiter) {
        let (head, content) = behind(part, b"\r\n\r\n").unwrap_or((part, b""));
        let head = String::from_utf8_lossy(head);
        let plain = "content-disposition: form-data; name=\"model\"";
        if head.split("\r\n").any(|line| line.eq_ignore_ascii_case(plain) && line.ends_with("\"model\"")) {
            models.push(content.to_vec());
        }
        rest = more;
    }
    Some(models)
}

/// What stands before and behind the first `needle`.
fn behind<'a>(bytes: &'a [u8], needle: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(needle.len()).position(|window| window == needle)?;
    Some((&bytes[..at], &bytes[at + needle.len()..]))
}
