//! The PostgreSQL driver of pac-concurrency: state that survives every controller and a restart
//! of the server, shared by any number of processes.
//!
//! A commit to any number of repositories is one statement: one round trip, one transaction, one
//! durable write. What runs, what waits and what has ended can be read with SQL, as three views. Nothing depends on the state of a connection, so a
//! proxy that pools transactions may be in between (the driver then polls for changes, which takes
//! a little longer). Needs PostgreSQL 15 or newer.
//!
//! ```no_run
//! use pac_postgres::{Password, PostgresDriver, PostgresOptions};
//!
//! # async fn open() -> Result<PostgresDriver, pac_core::Error> {
//! let mut options = PostgresOptions::default();
//! options.hosts = vec![("db.example.org".to_owned(), 5432)];
//! options.password = Password::in_file("/etc/pac/password");
//! PostgresDriver::connect(options).await
//! # }
//! ```

mod client;
mod clock;
mod driver;
mod lane;
mod legacy;
mod options;
mod places;
#[cfg(feature = "bench")]
mod raw;
mod record;
mod schema;
mod sessions;
mod snapshots;
mod store;
mod tls;
mod watch;

pub use driver::PostgresDriver;
pub use legacy::LegacyPostgres;
pub use options::{Authentication, Migrate, PostgresOptions, SslMode};
pub use pac_core::password::Password;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub use raw::RawPostgres;
pub use schema::{PostgresSchema, SchemaStatus};
