//! The system without a store: flows, and the issues that upstream has with it, by their numbers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod flows;
mod restarts;
mod setting;
