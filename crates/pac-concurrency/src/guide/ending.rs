//! Closing a manager, and whether it is healthy.
//!
//! # Closing
//!
//! ```
//! use pac_concurrency::{Error, ErrorKind, RepositoryKey, Settings};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let manager = pac_concurrency::connect(&Settings::default()).await?;
//! # let website: RepositoryKey = "ci/website".parse()?;
//! assert!(manager.health().is_ready());
//!
//! manager.close().await?;
//! assert!(manager.health().closed);
//! let late = manager.acquire(&website).await.unwrap_err();
//! assert_eq!(late.kind(), ErrorKind::Closed);
//! # Ok(())
//! # }
//! ```
//!
//! [`close`] ends everything in this order: from the call on, this manager holds nothing, and every
//! call that waits is told. Then it tells the store: ephemeral runs end, and their slots are free
//! at once; durable runs that wait keep their places; durable runs that run can be adopted by
//! another controller. Dropping the future of `close` does not stop that.
//!
//! So shut down in this order: stop asking for slots, finish or drop the work, then close. The
//! example `worker_pool` does. Close before dropping the waiters of durable runs, which give their
//! places up when they are dropped.
//!
//! Without `close`, when the last clone of a manager is dropped, or the process is killed, its
//! session is left to expire. When the session TTL has passed, its ephemeral runs end, and their
//! slots are free. Its durable runs can be adopted by another controller from then on; those that
//! run keep their slots until the lease TTL has passed too.
//!
//! # Health
//!
//! [`health`] takes no time and can be asked at any rate, by a readiness probe for instance.
//!
//! - [`is_ready`]: may this manager be trusted with work?
//! - [`session_remaining`]: how long its leases last if the store answers nothing more.
//! - [`renewal_error`]: why the last renewal of the session failed, if it did. It is tried again;
//!   [`Event::NotRenewed`] tells the same to those that listen.
//! - [`rewinds`]: how often the store was found to have gone back in time, as after a restore.
//! - [`watch_error`]: the stream of changes is broken. All goes on, but waiters are woken by
//!   polling alone.
//! - [`dead`] and [`panics`]: something is wrong with this software. A manager that has died holds
//!   nothing and says so; open a new one.
//!
//! # Errors
//!
//! Branch on [`Error::kind`]. [`Error::is_retryable`] is true when certainly nothing has happened
//! yet and the cause may pass. After [`ErrorKind::Indeterminate`] read before you act: the manager
//! itself recognises a command that it repeats.
//!
//! [`close`]: crate::ConcurrencyManager::close
//! [`dead`]: crate::Health::dead
//! [`health`]: crate::ConcurrencyManager::health
//! [`is_ready`]: crate::Health::is_ready
//! [`panics`]: crate::Health::panics
//! [`renewal_error`]: crate::Health::renewal_error
//! [`session_remaining`]: crate::Health::session_remaining
//! [`rewinds`]: crate::Health::rewinds
//! [`watch_error`]: crate::Health::watch_error
//! [`Error::kind`]: crate::Error::kind
//! [`Event::NotRenewed`]: crate::Event::NotRenewed
//! [`Error::is_retryable`]: crate::Error::is_retryable
//! [`ErrorKind::Indeterminate`]: crate::ErrorKind::Indeterminate
