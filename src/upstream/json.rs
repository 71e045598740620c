//! JSON that is looked over, not parsed.

use memchr::memchr2;

/// What follows a string whose opening quote has been passed; nothing where it has no end.
pub fn behind_string(mut bytes: &[u8]) -> &[u8] {
    while let Some(at) = memchr2(b'"', b'\\', bytes) {
        if bytes[at] == b'"' {
            return &bytes[at + 1..];
        }
        // The escaped byte may be a quote or another backslash.
        bytes = bytes.get(at + 2..).unwrap_or_default();
    }
    &[]
}
