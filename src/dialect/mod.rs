//! The APIs that clients speak where the provider speaks chat completions alone: pure functions, events in, events out.

pub mod anthropic;
