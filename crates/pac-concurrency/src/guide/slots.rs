//! A slot in one line.
//!
//! ```
//! use pac_concurrency::{Error, Limit, RepositoryKey, Settings};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let manager = pac_concurrency::connect(&Settings::default()).await?;
//! let website: RepositoryKey = "ci/website".parse()?;
//! manager.set_limit(&website, Limit::new(2), None).await?;
//!
//! let answer = manager.with_slot(&website, async { 6 * 7 }).await?;
//! assert_eq!(answer, 42);
//! # Ok(())
//! # }
//! ```
//!
//! [`with_slot`] waits for a slot, does the work while it holds it, and gives it back: as
//! *completed*, as *failed* if the work panics, as *cancelled* if the call is dropped. If the slot
//! is lost meanwhile, the work is dropped, and the call fails.
//!
//! # A permit
//!
//! [`acquire`] waits in the same way and returns a [`Permit`], which gives the slot back when it
//! is dropped. [`try_acquire`] takes a slot only if one is free now and no run waits for it.
//!
//! [`acquire_timeout`] waits in the queue no longer than you say, counted from the call. The answers
//! of the store are waited for in any case: the one to the admission, and, if no slot has come, the
//! one that confirms that the place was given up. Each takes at most the command timeout (10 s
//! by default). [`try_acquire`] needs the same two answers.
//!
//! ```
//! # use pac_concurrency::{Error, Limit, RepositoryKey, RunOutcome, Settings};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! # let manager = pac_concurrency::connect(&Settings::default()).await?;
//! # let website: RepositoryKey = "ci/website".parse()?;
//! # manager.set_limit(&website, Limit::new(1), None).await?;
//! let mut permit = manager.acquire(&website).await?;
//! println!("fencing token {}", permit.token());
//! assert!(manager.try_acquire(&website).await?.is_none());
//!
//! permit.set_outcome(RunOutcome::Failed);
//! permit.release().await?;
//! assert!(manager.try_acquire(&website).await?.is_some());
//! # Ok(())
//! # }
//! ```
//!
//! A permit does not stop your work when the slot is lost: [`Permit::lost`] tells, see
//! [losing a lease](super::losing). Nothing leaks: dropping any of these futures at any moment
//! gives back what it had.
//!
//! # Several at once
//!
//! [`acquire_all`] holds a slot of each of several repositories. It takes them in the order of
//! their names, whatever the order in which you give them, so that two who ask for the same ones
//! never wait for each other; and it gives back what it had when it fails or is dropped.
//!
//! A run may take several slots of one repository: [`acquire_slots`], and in [`acquire_all`] a pair
//! of the repository and the [`Weight`](crate::Weight). It gets all in one step, or waits for all.
//!
//! ```
//! # use pac_concurrency::{Error, Limit, RepositoryKey, Settings, Slots, Weight};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! # let manager = pac_concurrency::connect(&Settings::default()).await?;
//! # let (website, gpu): (RepositoryKey, RepositoryKey) = ("ci/web".parse()?, "shared/gpu".parse()?);
//! # manager.set_limit(&website, Limit::new(1), None).await?;
//! # manager.set_limit(&gpu, Limit::new(4), None).await?;
//! let two = Weight::new(2).unwrap_or_default();
//! let wanted = [Slots::from(&website), Slots::from((&gpu, two))];
//! let permits = manager.acquire_all(wanted).await?;
//! assert_eq!(manager.status(&gpu).await?.slots_taken, 2);
//! permits.release().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The name of the run behind a permit is made up. It is *ephemeral*: it ends with this process.
//! To name runs yourself, or to have them outlive the process, see [waiting](super::waiting) and
//! [controllers](super::controllers).
//!
//! [`with_slot`]: crate::ConcurrencyManager::with_slot
//! [`acquire`]: crate::ConcurrencyManager::acquire
//! [`acquire_timeout`]: crate::ConcurrencyManager::acquire_timeout
//! [`acquire_slots`]: crate::ConcurrencyManager::acquire_slots
//! [`acquire_all`]: crate::ConcurrencyManager::acquire_all
//! [`try_acquire`]: crate::ConcurrencyManager::try_acquire
//! [`Permit`]: crate::Permit
//! [`Permit::lost`]: crate::Permit::lost
