//! ai-proxy: one OpenAI-compatible endpoint in front of many AI providers.
//!
//! The modules are in layer order: each may use only those above its own block (`tests/it/imports.rs` checks
//! it). `ARCHITECTURE.md` is the map.

pub mod json;
pub mod limits;
#[cfg(test)]
mod testing;
pub mod text;

pub mod core;
pub mod files;

pub mod logging;
pub mod memory;
pub mod metrics;

pub mod config;

pub mod front;

pub mod auth;
pub mod catalog;
pub mod dialect;
pub mod routing;

pub mod upstream;

pub mod gateway;

pub mod api;
pub mod monitor;

pub mod check;
pub mod demo;

pub mod supervisor;

pub mod serve;

pub mod cli;
