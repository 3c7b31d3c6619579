//! The core of pac-concurrency: who may run, decided once for every store.
//!
//! - [`protocol`]: the rules, as a pure function over a repository's [`state`].
//! - [`driver`]: the little that a store has to provide for them; [`hints`] and [`mod@file`] help
//!   with a part.
//! - [`manager`]: both together, for the many tasks of one process.
//! - [`reader`]: for those who only look.
//!
//! Applications depend on the facade crate `pac-concurrency`, which re-exports all of this
//! together with the drivers.

pub mod driver;
mod error;
mod event;
pub mod file;
pub(crate) mod hash;
pub mod hints;
pub mod manager;
mod name;
pub mod protocol;
#[doc(hidden)]
pub mod raw;
pub mod reader;
pub mod state;
mod status;
mod value;

pub use error::{Error, ErrorKind};
pub use name::{InvalidValue, PipelineRunKey, RepositoryKey, Uid};
pub use value::{
    FencingToken, Limit, LimitVersion, Priority, Revision, SessionId, Ticket, Timestamp,
};
