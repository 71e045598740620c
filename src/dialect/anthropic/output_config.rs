//! The output format that a request asks for.

use crate::dialect::json::{Fit, Refusal, members, required, string};
use crate::dialect::raw::Raw;

/// The schema that an `output_config` asks for; its other members are hints.
pub(super) fn output_config(config: Raw<'_>) -> Fit<Option<Raw<'_>>> {
    let mut asked = None;
    members(config, |key, value| match key {
        "effort" | "task_budget" => Ok(()),
        "format" => schema(value).map(|schema| asked = Some(schema)),
        _ => Err(Refusal::not_carried("")),
    })?;
    Ok(asked)
}

/// The schema in an output format.
pub(super) fn schema(format: Raw<'_>) -> Fit<Raw<'_>> {
    let mut schema = None;
    members(format, |key, value| match key {
        "type" => match &*string(value)? {
            "json_schema" => Ok(()),
            other => Err(Refusal::of_value(other)),
        },
        "schema" => members(value, |_, _| Ok(())).map(|()| schema = Some(value)),
        _ => Err(Refusal::not_carried("")),
    })?;
    required(schema, "schema")
}
