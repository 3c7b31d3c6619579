//! The core of pac-concurrency: the rules for granting slots, the same for every store.
//!
//! - [`protocol`]: the rules, as a pure function over a repository's [`state`].
//! - [`driver`]: the few operations that a store has to provide; [`effect`], [`hints`],
//!   [`password`], [`pauses`] and [`mod@file`] help to implement them.
//! - [`manager`]: applies the rules over a driver, for the many tasks of one process.
//! - [`migration`]: brings the state of older systems, or of another store, into a store.
//! - [`reader`]: read-only access to a store.
//! - [`text`]: makes what others wrote fit for a terminal or a log.
//!
//! Applications depend on the facade crate `pac-concurrency`, which re-exports all of this
//! together with the drivers.

pub mod driver;
pub mod effect;
mod error;
mod event;
pub mod file;
pub(crate) mod hash;
pub mod hints;
mod identity;
pub mod manager;
pub mod migration;
mod name;
pub mod password;
pub mod pauses;
pub mod protocol;
#[doc(hidden)]
pub mod raw;
pub mod reader;
pub mod state;
mod status;
pub mod text;
mod value;

pub use error::{Error, ErrorKind};
pub use identity::{SessionIdentity, SessionInfo};
pub use name::{
    Group, InvalidValue, PipelineRunKey, Reason, RepositoryKey, SlotName, SlotNames, Uid,
};
pub use value::{
    FencingToken, Limit, LimitVersion, MAX_COUNTER, MAX_FLOOR, Priority, Revision, SessionId,
    Stamp, Ticket, Timestamp, Version,
};
