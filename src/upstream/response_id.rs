//! The id of a response of `/v1/responses`, in a document or in the first event of a stream.

use memchr::memmem;

use crate::core::sse;
use crate::json::string_at;

/// The `id` at the top level of a response.
pub fn in_document(document: &[u8]) -> Option<String> {
    string_at(document, &["id"])
}

/// The id of the response in one of these events. The last event may be truncated: its beginning is enough.
pub fn in_events(events: &[u8]) -> Option<String> {
    memmem::find(events, b"\"response\"")?;
    sse::data(events).find_map(|data| string_at(data, &["response", "id"]))
}

#[cfg(test)]
mod tests {
    use super::{in_document, in_events};

    #[test]
    fn the_id_of_the_response_is_found_and_no_other() {
        let response = br#"{"object":"response","output":[{"id":"msg_1"}],"id":"resp_1","x":"#;
        assert_eq!(in_document(response).as_deref(), Some("resp_1"));
        for none in [&br#"{"output":[{"id":"msg_1"}]}"#[..], br#"{"id":1}"#, b"[]", b"", b"{"] {
            assert_eq!(in_document(none), None);
        }
        let events = b": hi\n\nevent: response.created\r\ndata: {\"type\":\"x\",\"id\":\"ev\",\"response\":{\"id\":\"resp_2\",\"tools\":[{\"na";
        assert_eq!(in_events(events).as_deref(), Some("resp_2"));
        assert_eq!(in_events(b"data: {\"id\":\"chatcmpl-1\"}\n\ndata: [DONE]\n\n"), None);
        assert_eq!(in_events(b"data: {\"response\":null}\n\n"), None);
    }
}
