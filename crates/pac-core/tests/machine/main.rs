//! The state machine that a manager has for each repository, on its own: over a small store, with
//! everything that can happen in any order.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value,
    clippy::double_ended_iterator_last,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod application;
mod node;
mod quiet;
mod random;
mod store;
mod world;
