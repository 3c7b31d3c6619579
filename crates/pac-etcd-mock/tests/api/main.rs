//! The mock as its clients see it. One program, since linking takes longer than running.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

mod auth;
mod faults;
mod kv;
mod lease;
mod lines;
mod tls;
mod watch;
