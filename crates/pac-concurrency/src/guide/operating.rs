//! Limits and who has set them, pauses, and ending or moving the runs of others.
//!
//! # Limits, and whose they are
//!
//! [`set_limit`] announces a limit with a version, or sets one without. [`set_rules`] says whose it
//! is: a [`Claim::Pin`] holds against everybody until [`unpin`], a [`Claim::Propose`] counts only
//! where nobody else has set one. The rules beside the limit are how many may wait, how many lighter
//! runs may go before one that does not fit, and the names of the slots.
//!
//! ```
//! use pac_concurrency::{Claim, Error, Limit, Owner, RulesChange, Settings};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let manager = pac_concurrency::connect(&Settings::default()).await?;
//! let website = "ci/website".parse()?;
//! let rules = RulesChange::limit(Limit::new(1)).with_max_queued(Some(10));
//! manager.set_rules(&website, rules, Claim::Pin).await?;
//!
//! let proposed = RulesChange::limit(Limit::new(7));
//! let change = manager.set_rules(&website, proposed, Claim::Propose).await?;
//! assert_eq!((change.limit, change.owner), (Limit::new(1), Some(Owner::Pinned)));
//! # Ok(())
//! # }
//! ```
//!
//! # Pauses
//!
//! Between [`pause`] and [`resume`] nothing is started, whatever the limit: what runs goes on, what
//! comes is queued, and every waiter's reason is the pause.
//!
//! ```
//! use pac_concurrency::{Admission, Error, RunRequest, Settings, WaitReason};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! # let manager = pac_concurrency::connect(&Settings::default()).await?;
//! # let website = "ci/website".parse()?;
//! manager.pause(&website, Some("the registry moves".parse()?)).await?;
//! let request = RunRequest::ephemeral("ci/build-1".parse()?, "uid-1".parse()?);
//! let Admission::Queued(waiter) = manager.admit(&website, request).await? else {
//!     unreachable!("nothing is started");
//! };
//! assert!(matches!(waiter.reason(), Some(WaitReason::Paused(_))));
//! manager.resume(&website).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # The runs of others
//!
//! [`cancel`] ends a run at once; [`request_cancel`] asks one that runs to end, and leaves it its
//! slot until then: its holder hears of it from [`Lease::cancel_requested`]. [`cancel_all`] does
//! either to many, judged in the commit. [`bump`] moves a waiting run.
//!
//! [`set_limit`]: crate::ConcurrencyManager::set_limit
//! [`set_rules`]: crate::ConcurrencyManager::set_rules
//! [`unpin`]: crate::ConcurrencyManager::unpin
//! [`pause`]: crate::ConcurrencyManager::pause
//! [`resume`]: crate::ConcurrencyManager::resume
//! [`cancel`]: crate::ConcurrencyManager::cancel
//! [`request_cancel`]: crate::ConcurrencyManager::request_cancel
//! [`cancel_all`]: crate::ConcurrencyManager::cancel_all
//! [`bump`]: crate::ConcurrencyManager::bump
//! [`Claim::Pin`]: crate::Claim::Pin
//! [`Claim::Propose`]: crate::Claim::Propose
//! [`Lease::cancel_requested`]: crate::Lease::cancel_requested
