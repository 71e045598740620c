//! The change of `model` in a body: the new model is what a reader finds, and nothing else has changed.

use std::fmt;

use ai_proxy::api::splice::Body;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

const NEW: &[u8] = br#""provider-model \u00e9""#;

/// Splices it, and reads what comes out by other means.
pub fn check(bytes: &[u8]) {
    let Ok(body) = Body::parse(bytes) else { return };
    assert!(!body.model.is_empty());
    let before: Members = serde_json::from_slice(bytes).expect("what was accepted is JSON");
    let last = before.0.iter().rev().find(|(name, _)| name == "model").expect("a model");
    assert_eq!(serde_json::from_str::<String>(&last.1).ok(), Some(body.model.clone()));

    let pieces = body.with_model(bytes, NEW);
    check_pieces(
        &pieces,
        bytes,
        before.0.iter().filter(|(name, _)| name == "model").map(|(_, raw)| raw.as_str()),
    );
    let spliced = pieces.concat();
    let after: Members = serde_json::from_slice(&spliced).expect("still JSON");
    assert_eq!(before.0.len(), after.0.len());
    for ((name, old), (same, new)) in before.0.iter().zip(&after.0) {
        assert_eq!(name, same);
        let expected = if name == "model" { std::str::from_utf8(NEW).expect("UTF-8") } else { old };
        assert_eq!(new, expected, "{name}");
    }
    let again = Body::parse(&spliced).expect("still a good body");
    assert_eq!((again.model.as_str(), again.stream), ("provider-model é", body.stream));
}

/// Every other piece is the new model; what stands between them are the old bytes without the old models.
fn check_pieces<'a>(pieces: &[&[u8]], bytes: &[u8], models: impl Iterator<Item = &'a str>) {
    let mut rebuilt = Vec::with_capacity(bytes.len());
    let (kept, new): (Vec<_>, Vec<_>) = pieces.iter().enumerate().partition(|(index, _)| index % 2 == 0);
    assert!(new.iter().all(|(_, piece)| **piece == NEW));
    let mut models = models;
    for (index, piece) in kept {
        rebuilt.extend_from_slice(piece);
        if index + 1 < pieces.len() {
            rebuilt.extend_from_slice(models.next().expect("a model for each place").as_bytes());
        }
    }
    assert_eq!(models.next(), None);
    assert_eq!(rebuilt, bytes);
}

/// The members of the top-level object in their order, duplicates included, values as they are written.
struct Members(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    members.push((name, value.get().to_owned()));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}
