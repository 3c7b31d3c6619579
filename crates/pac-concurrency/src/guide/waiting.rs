//! Queues, positions, and giving up.
//!
//! [`admit`] asks for a slot for a run that you name. The answer is one of three:
//!
//! ```
//! use std::time::Duration;
//!
//! use pac_concurrency::{Admission, Error, Limit, RepositoryKey, RunRequest, Settings};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! # let manager = pac_concurrency::connect(&Settings::default()).await?;
//! # let website: RepositoryKey = "ci/website".parse()?;
//! # manager.set_limit(&website, Limit::new(1), None).await?;
//! # let _held = manager.acquire(&website).await?;
//! let request = RunRequest::ephemeral("ci/build-2".parse()?, "uid-2".parse()?);
//! match manager.admit(&website, request).await? {
//!     Admission::Started(lease) => println!("{} runs", lease.run()),
//!     Admission::Queued(waiter) => {
//!         println!("at position {:?}, since {:?}", waiter.position(), waiter.reason());
//!         let turn = waiter.wait_for(Duration::from_millis(10)).await?;
//!         assert!(turn.is_none(), "the place is given up");
//!     }
//!     Admission::Finished(outcome) => println!("it {outcome} before"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Where you only want the turn, however it comes, `manager.admit(…).await?.turn().await?`.
//!
//! # The order
//!
//! Runs of equal priority start in the order in which they came, whichever process asked. A run
//! with a higher priority goes before all with a lower one. A slot that is freed goes to the first
//! in the queue in the same commit: nobody can slip in between.
//!
//! # Giving up
//!
//! - Dropping a [`Waiter`] gives the place up, and the slot, should it have come in that instant.
//! - [`Waiter::wait_for`] also waits until the place is given up at the store.
//! - [`Waiter::detach`] leaves the run in the queue: see [controllers](super::controllers).
//!
//! # Asking again
//!
//! Asking again for the same run (its name and its uid) gives what it has: its slot, or its old
//! place. An ephemeral run is refused with [`ErrorKind::NameInUse`] under a name that another
//! process has a live run of.
//!
//! # When the store is away
//!
//! A place is lost when the store says so, and not before: an outage in which the store keeps the
//! session costs no place, however long it lasts. When the store has ended the session, a waiter
//! of an ephemeral run fails with [`ErrorKind::SessionLost`]; a durable run keeps its place, and
//! is waited for in the name of the next session.
//!
//! [`admit`]: crate::ConcurrencyManager::admit
//! [`Waiter`]: crate::Waiter
//! [`Waiter::wait_for`]: crate::Waiter::wait_for
//! [`Waiter::detach`]: crate::Waiter::detach
//! [`ErrorKind::NameInUse`]: crate::ErrorKind::NameInUse
//! [`ErrorKind::SessionLost`]: crate::ErrorKind::SessionLost
