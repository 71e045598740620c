//! The whole product from outside: the real binary between a raw client and a scripted upstream,
//! held to what is promised, to the byte.

#![forbid(unsafe_code)]

mod support;

mod auth;
mod bench;
mod broken;
mod cluster;
mod config;
mod corpora;
mod cors;
mod cost;
mod crowd;
mod demo;
mod dependencies;
mod drain;
mod failover;
mod failures;
mod faults;
mod files;
mod filters;
mod forms;
mod framing;
mod framing_table;
mod front;
mod headers;
mod health;
mod heartbeat;
mod hostile;
mod imports;
mod life;
mod log;
mod media;
mod memory;
mod messages;
mod metrics;
mod models;
mod ongoing;
mod openings;
mod page;
mod pages;
mod panics;
mod paths;
mod patience;
mod pool;
mod providers;
mod proxied;
mod quota;
mod relay;
mod reload;
mod responses;
mod routing;
mod scripted;
mod secrets;
mod shortage;
mod small;
mod soak;
mod stream;
mod supervised;
mod tls;
mod translation;
mod translation_cost;
mod unix;
mod usage;
mod wakeups;
