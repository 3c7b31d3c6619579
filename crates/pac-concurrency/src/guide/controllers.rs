//! Runs that a cluster executes, which outlive the process that started them.
//!
//! A *durable* run keeps its place and its slot when its controller dies; another controller goes
//! on in its stead. The lease of a durable run is a plain record: dropping it changes nothing.
//!
//! ```
//! use pac_concurrency::{Admission, Error, Limit, RepositoryKey, RunOutcome, RunRequest, Settings};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! # let manager = pac_concurrency::connect(&Settings::default()).await?;
//! let website: RepositoryKey = "ci/website".parse()?;
//! manager.set_limit(&website, Limit::new(1), None).await?;
//!
//! // The leases that nobody awaits come out of here.
//! let mut grants = manager.grants().expect("nobody else reads them");
//!
//! for number in 1..=2 {
//!     let run = format!("ci/build-{number}").parse()?;
//!     let uid = format!("uid-{number}").parse()?;
//!     match manager.admit(&website, RunRequest::durable(run, uid)).await? {
//!         Admission::Started(lease) => {
//!             // Start the PipelineRun. When the cluster says that it has ended:
//!             manager.release(lease, RunOutcome::Completed).await?;
//!         }
//!         Admission::Queued(waiter) => waiter.detach(),
//!         Admission::Finished(_) => {}
//!     }
//! }
//! # let third = RunRequest::durable("ci/build-3".parse()?, "uid-3".parse()?);
//! # let Admission::Started(third) = manager.admit(&website, third).await? else { unreachable!() };
//! # let fourth = RunRequest::durable("ci/build-4".parse()?, "uid-4".parse()?);
//! # let Admission::Queued(waiter) = manager.admit(&website, fourth).await? else { unreachable!() };
//! # waiter.detach();
//! # manager.release(third, RunOutcome::Completed).await?;
//! if let Some(lease) = grants.next().await {
//!     // Start the PipelineRun `lease.run()`.
//!     manager.release(lease, RunOutcome::Completed).await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Grants
//!
//! [`grants`] is the stream of leases that nobody awaits: of runs whose waiter was detached, and
//! of durable runs whose controller died. Take it only to start what comes out of it. While it is
//! there, this manager takes over runs without an owner; dropping it gives back what was not read.
//!
//! # After a restart
//!
//! A controller lists what there is in the cluster, and tells the manager:
//!
//! - For each run that **waits**: [`admit`]. It has its old place, and this controller is its
//!   owner now.
//! - For each run that **runs**: [`adopt`]. It is held by this controller from then on, with a new
//!   token, also if that exceeds the limit.
//! - For each run that **has ended**: [`release_run`] with its name, uid and token.
//!
//! A run that runs and that nobody adopts is ended as *lease-lost* when the lease TTL of its dead
//! controller has passed, and its slot is free.
//!
//! # Events
//!
//! [`events`] tells what happened without being asked for: a run [was orphaned](crate::Event::Orphaned),
//! [has no owner](crate::Event::OwnerLost) any more, [was ended](crate::Event::Ended) by another process. A
//! reader that is too slow is told how many it has [missed](crate::Heard::Missed), and reads the
//! state anew.
//!
//! [`admit`]: crate::ConcurrencyManager::admit
//! [`adopt`]: crate::ConcurrencyManager::adopt
//! [`events`]: crate::ConcurrencyManager::events
//! [`grants`]: crate::ConcurrencyManager::grants
//! [`release_run`]: crate::ConcurrencyManager::release_run
