//! What to do when a lease is lost, and what fencing tokens are for.
//!
//! A lease can be lost while you work: an operator cancels the run, the network to the store is
//! away for too long, the process is stopped for a minute. [`Lease::lost`] is a future that is
//! ready then, with the reason. Await it beside the work:
//!
//! ```
//! use pac_concurrency::{Error, LeaseLoss, Limit, RepositoryKey, RunOutcome, Settings};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! # let manager = pac_concurrency::connect(&Settings::default()).await?;
//! # let website: RepositoryKey = "ci/website".parse()?;
//! # manager.set_limit(&website, Limit::new(1), None).await?;
//! let permit = manager.acquire(&website).await?;
//! let lost = permit.lost();
//! assert_eq!(lost.reason(), None);
//!
//! # let operator = manager.clone();
//! # let run = permit.lease().run().clone();
//! # let there = website.clone();
//! # tokio::spawn(async move { operator.cancel(&there, &run, None).await });
//! # let work = std::future::pending::<()>();
//! let why = tokio::select! {
//!     why = lost.clone() => why,
//!     () = work => return Ok(()),
//! };
//! assert_eq!(why, LeaseLoss::Ended(Some(RunOutcome::Cancelled)));
//! assert_eq!(lost.reason(), Some(why));
//! # Ok(())
//! # }
//! ```
//!
//! [`Lost`] is also a token: clone it, hand the clones to the parts of the work, and have them ask
//! [`Lost::reason`] where they cannot be dropped. It asks nobody and takes no time.
//!
//! Once lost, a lease is never held again, even if the store has kept its session. Dropping or
//! releasing it does no harm.
//!
//! # When it is certain
//!
//! A process that was stopped cannot know that it was. It calls itself the holder for a little
//! less than the session TTL after the store last answered. A slot that lapses because its holder
//! is not heard of is given to another run only after that TTL has passed; so after a lapse two
//! never hold one slot by their own clocks. But what the old holder has sent before may arrive
//! later.
//!
//! A slot that is taken away is free at once: an operator cancels its run, releases it by force, or
//! removes the repository. The next run may start before the old holder has heard of it.
//!
//! # Fencing tokens
//!
//! So hand [`Lease::token`] to whatever you write to. Tokens of a repository only ever grow: a
//! resource that has seen a token refuses every smaller one.
//!
//! ```
//! use pac_concurrency::FencingToken;
//!
//! #[derive(Default)]
//! struct Bucket {
//!     highest: FencingToken,
//! }
//!
//! impl Bucket {
//!     fn write(&mut self, token: FencingToken) -> Result<(), &'static str> {
//!         if token < self.highest {
//!             return Err("another holder has written since");
//!         }
//!         self.highest = token;
//!         Ok(())
//!     }
//! }
//!
//! let mut bucket = Bucket::default();
//! assert!(bucket.write(FencingToken::new(8)).is_ok());
//! assert!(bucket.write(FencingToken::new(7)).is_err());
//! ```
//!
//! In SQL: `UPDATE … SET token = $1 … WHERE token <= $1`.
//!
//! [`Lease::lost`]: crate::Lease::lost
//! [`Lease::token`]: crate::Lease::token
//! [`Lost`]: crate::Lost
//! [`Lost::reason`]: crate::Lost::reason
