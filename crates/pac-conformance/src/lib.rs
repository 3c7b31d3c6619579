//! The behaviour required of every store, as cases that run against a [`Fixture`] over that
//! store.
//!
//! A driver's test file defines how to open a fixture and gets one test per case, grouped and
//! numbered as in the list of behaviours. For a store in this process, this is the whole file:
//!
//! ```
//! use std::sync::Arc;
//!
//! use pac_conformance::{Fixture, Time};
//! use pac_memory::{MemoryDriver, MemoryOptions};
//!
//! pac_conformance::conformance!(crate::memory, except {
//!     s41_a_wrong_clock_changes_nothing: "this example does not say how to set the clock",
//! });
//!
//! async fn memory(time: Time) -> Fixture {
//!     Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
//! }
//! # fn main() {
//! #     pac_conformance::run_case(
//! #         Time::Paused,
//! #         memory,
//! #         pac_conformance::cases::limits::lowering_evicts_nobody,
//! #     );
//! # }
//! ```
//!
//! # For a server
//!
//! Paused time never meets a socket: it would jump while the socket waits. A driver of a server
//! says `time = Real`, and its opener what the server can keep:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use pac_conformance::{Fixture, Time};
//! # use pac_core::driver::Driver;
//!
//! pac_conformance::conformance!(crate::server, time = Real, except {
//!     s41_a_wrong_clock_changes_nothing: "nobody can set the clock of a server",
//! });
//!
//! async fn server(time: Time) -> Fixture {
//!     Fixture::over(empty_store_of_its_own().await, time)
//!         .with_session_ttl(Duration::from_secs(2))
//!         .with_lease_ttl(Duration::from_secs(5))
//!         .with_tolerance(Duration::from_millis(300))
//!         .with_expiry_delay(Duration::from_secs(1))
//!         .with_scale(0.1)
//! }
//! # async fn empty_store_of_its_own() -> Arc<dyn Driver> {
//! #     Arc::new(pac_memory::MemoryDriver::new(pac_memory::MemoryOptions::default()))
//! # }
//! # fn main() {
//! #     let case = pac_conformance::cases::limits::lowering_evicts_nobody;
//! #     pac_conformance::run_case(Time::Real, server, case);
//! # }
//! ```
//!
//! In real time, cases run in parallel, except that a case which measures how long something
//! takes has the machine to itself. [`conformance!`] lists what each case needs.
//!
//! # What a driver's test file has to provide
//!
//! - An empty store of its own for every fixture (a prefix, a schema) that nothing else writes to.
//! - A retention of finished runs that case 46 can wait for: 10 to 45 s in real time, and not less,
//!   since other cases read runs that have ended a while ago.
//! - If possible, a [`Vandal`] that writes into the store past the driver, to test how managers
//!   treat records that a foreign program has damaged or a newer version has written, and a
//!   [clock](Fixture::with_clock) that can be set. The cases do the rest: they open managers and
//!   put [`faults`] between them and the store.
//! - For the cases on [outages](cases::leases_and_crashes) a [`Server`] that they may stop, if there
//!   is one that no other test uses: then they run against a server that is really gone.
//!
//! # What is checked
//!
//! Cases judge by what their own tasks record (a [`History`] of the slots held) and by the
//! stored state ([`Fixture::view`]), not by what a manager reports about itself. After each case
//! the stored state is audited: counts, tokens and tickets are consistent for every repository,
//! and no task of a manager has panicked.

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

mod asking;
pub mod cases;
mod conformance;
pub mod day;
pub mod faults;
mod fixture;
mod history;
#[cfg(feature = "model")]
pub mod model;
#[cfg(feature = "mutants")]
pub mod mutants;
mod names;
#[cfg(feature = "random")]
pub mod random;
#[cfg(feature = "random")]
mod reference;
mod rules;
mod run;
mod server;
mod vandal;
mod view;

pub use asking::{finished, poll_times, queued, started};
#[doc(hidden)]
pub use conformance::{are_among, ends_with};
pub use fixture::Fixture;
pub use history::{History, Span};
pub use names::{PREFIX_NAMES, at_priority, durable, ephemeral, repository, run, uid};
pub use rules::{Production, Rules};
pub use run::{Needs, Time, run_case, run_case_that};
pub use server::{Outage, Server};
pub use vandal::{Harm, Vandal};
pub use view::View;
