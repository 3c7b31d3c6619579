//! What every store has to do, as cases that run against a [`Fixture`] over that store.
//!
//! A driver's test file names the function that opens a fixture, and gets one test per case,
//! grouped and numbered as in the list of behaviours:
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use pac_memory::{MemoryDriver, MemoryOptions};
//! use pac_conformance::{Fixture, Time};
//!
//! pac_conformance::conformance!(crate::memory);
//!
//! async fn memory(time: Time) -> Fixture {
//!     Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
//! }
//! # fn main() {}
//! ```
//!
//! Cases judge by what they keep themselves (a [`History`] of who held a slot when) and by what
//! the store holds ([`Fixture::view`]), not by what the manager says of itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::missing_panics_doc,
    reason = "panicking is what all of this is for"
)]

pub mod cases;
mod conformance;
pub mod faults;
mod fixture;
mod history;
mod names;
mod rules;
mod run;
mod view;

pub use fixture::{Fixture, finished, poll_times, queued, started};
pub use history::{History, Span};
pub use names::{PREFIX_NAMES, at_priority, durable, ephemeral, repository, run, uid};
pub use rules::{Production, Rules};
pub use run::{Time, ends_with, run_case};
pub use view::View;
