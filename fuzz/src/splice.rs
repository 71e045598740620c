//! The change of `model` in a body: the new model is what a reader finds, and nothing else has changed.

use std::fmt;

use ai_proxy::core::splice::Body;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

const NEW: &[u8] = br"provider-model \u00e9";

/// Splices it, and reads what comes out by other means.
pub fn check(bytes: &[u8]) {
    let Ok(body) = Body::parse(bytes) else { return };
    assert!((1..=256).contains(&body.model.len()));
    let before: Members = serde_json::from_slice(bytes).expect("what was accepted is JSON");
    let is_model = |name: &&(String, String)| name.0.eq_ignore_ascii_case("model");
    let models: Vec<_> = before.0.iter().filter(is_model).collect();
    let [(name, written)] = &models[..] else { panic!("not one model: {models:?}") };
    let model: Option<String> = serde_json::from_str(written).ok();
    assert_eq!((name.as_str(), model.as_deref()), ("model", Some(&*body.model)));

    let pieces = body.with_model(bytes, NEW);
    let [start, new, rest, b"", b""] = pieces else { panic!("{} pieces", pieces.len()) };
    assert_eq!(new, NEW);
    let inside = &written.as_bytes()[1..written.len() - 1];
    assert_eq!([start, inside, rest].concat(), bytes);
    let spliced = pieces.concat();
    let after: Members = serde_json::from_slice(&spliced).expect("still JSON");
    assert_eq!(before.0.len(), after.0.len());
    for ((name, old), (same, new)) in before.0.iter().zip(&after.0) {
        assert_eq!(name, same);
        match name == "model" {
            true => assert_eq!(new.as_bytes(), [b"\"", NEW, b"\""].concat()),
            false => assert_eq!(new, old, "{name}"),
        }
    }
    let again = Body::parse(&spliced).expect("still a good body");
    assert_eq!((&*again.model, again.stream), ("provider-model é", body.stream));
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
