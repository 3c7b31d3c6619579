//! The webhook's server, called by an API server over TLS and by itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod admission;
mod certificates;
mod client;
mod installation;
mod requests;
mod setting;
