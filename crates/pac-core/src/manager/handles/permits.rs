//! Slots of several repositories at once.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::lease::{Lease, Lost};
use super::permit::{Permit, lost_at_work};
use crate::error::{Error, ErrorKind};
use crate::event::LeaseLoss;
use crate::manager::ConcurrencyManager;
use crate::name::RepositoryKey;
use crate::state::{RunOutcome, Weight};

/// Slots of one repository, to be taken together with those of others: one, or with a weight as many
/// as that, all in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slots<'a> {
    repository: &'a RepositoryKey,
    weight: Weight,
}

impl<'a> From<&'a RepositoryKey> for Slots<'a> {
    fn from(repository: &'a RepositoryKey) -> Self {
        let weight = Weight::ONE;
        Self { repository, weight }
    }
}

impl<'a> From<(&'a RepositoryKey, Weight)> for Slots<'a> {
    fn from((repository, weight): (&'a RepositoryKey, Weight)) -> Self {
        Self { repository, weight }
    }
}

/// Slots of several repositories, all given back when this is dropped: see [`Permit`].
#[derive(Debug, Default)]
#[must_use = "dropping permits gives the slots back"]
pub struct Permits(Vec<Permit>);

impl Permits {
    /// The permits, in the order of the names of their repositories.
    pub fn iter(&self) -> impl Iterator<Item = &Permit> {
        self.0.iter()
    }

    /// The permit of a repository, if it is one of these.
    #[must_use = "the permit only shows what is held"]
    pub fn of(&self, repository: &RepositoryKey) -> Option<&Permit> {
        self.iter()
            .find(|permit| permit.lease().repository() == repository)
    }

    /// Whether this process may still act as the holder of all: see [`ConcurrencyManager::holds`].
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.iter().all(Permit::is_held)
    }

    /// What is ready as soon as the first of the slots is no longer held.
    #[must_use]
    pub fn lost(&self) -> AnyLost {
        AnyLost::of(self.iter().map(Permit::lease))
    }

    /// How the work ended, as the history of every repository is to show it. *Completed* unless this
    /// is called.
    pub fn set_outcome(&mut self, outcome: RunOutcome) {
        for permit in &mut self.0 {
            permit.set_outcome(outcome);
        }
    }

    /// Gives all slots back, one commit for each.
    ///
    /// Dropped before it is ready, it is carried out in the background.
    ///
    /// # Errors
    /// The first of those of [`Permit::release`]. All slots are given back in the background all
    /// the same.
    pub async fn release(self) -> Result<(), Error> {
        let mut all = Ok(());
        for permit in self.0 {
            let released = permit.release().await.map(drop);
            all = all.and(released);
        }
        all
    }
}

/// The loss of the first of several leases: a future that says which and why. Without any lease it is
/// never ready.
///
/// Does not keep the manager. May be polled again after it was ready.
#[derive(Debug, Clone, Default)]
pub struct AnyLost(Vec<(RepositoryKey, Lost)>);

impl AnyLost {
    /// Of these leases: see [`Lease::lost`].
    pub fn of<'a>(leases: impl IntoIterator<Item = &'a Lease>) -> Self {
        let lost = |lease: &Lease| (lease.repository().clone(), lease.lost());
        Self(leases.into_iter().map(lost).collect())
    }

    /// The first that is lost already, and why: see [`Lost::reason`].
    #[must_use]
    pub fn reason(&self) -> Option<(&RepositoryKey, LeaseLoss)> {
        let mut lost = self.0.iter();
        lost.find_map(|(repository, lost)| Some((repository, lost.reason()?)))
    }
}

impl Future for AnyLost {
    type Output = (RepositoryKey, LeaseLoss);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        for (repository, lost) in &mut self.get_mut().0 {
            if let Poll::Ready(why) = Pin::new(lost).poll(cx) {
                return Poll::Ready((repository.clone(), why));
            }
        }
        Poll::Pending
    }
}

impl ConcurrencyManager {
    /// Waits for a slot of each of these repositories, or for several of one that is given with a
    /// [`Weight`], for as long as it takes, and holds all until the permits are dropped. No repository
    /// is given twice.
    ///
    /// The slots are taken one after the other in the order of the repositories' names, so that of
    /// all who ask in this way nobody waits for one who waits for him. Those that came first are
    /// held while the others are waited for. It is no commit of its own: each slot costs what
    /// [`acquire`](Self::acquire) does.
    ///
    /// Dropped before it is ready, it gives back what it had.
    ///
    /// # Errors
    /// Those of [`acquire`](Self::acquire), and that of [`with_slot`](Self::with_slot) when a slot
    /// was lost while another one was waited for; `InvalidInput` when a repository is there twice.
    /// What was held is given back, and its run is *cancelled* in the history.
    pub async fn acquire_all<'a>(
        &self,
        repositories: impl IntoIterator<Item = impl Into<Slots<'a>>>,
    ) -> Result<Permits, Error> {
        let mut permits = Permits::default();
        for (repository, weight) in in_order(repositories)? {
            let acquired = self.acquire_slots(repository, weight);
            let permit = permits.beside(acquired).await?;
            permits.take(permit);
        }
        Ok(permits.complete())
    }

    /// The same, but waits in the queues no longer than until `timeout` after this call, for all
    /// together; `None` when not all slots had come by then.
    ///
    /// # Errors
    /// As [`acquire_all`](Self::acquire_all) and [`acquire_timeout`](Self::acquire_timeout).
    pub async fn acquire_all_timeout<'a>(
        &self,
        repositories: impl IntoIterator<Item = impl Into<Slots<'a>>>,
        timeout: Duration,
    ) -> Result<Option<Permits>, Error> {
        let since = Instant::now();
        let mut permits = Permits::default();
        for (repository, weight) in in_order(repositories)? {
            let left = timeout.saturating_sub(since.elapsed());
            let acquired = self.acquire_slots_timeout(repository, weight, left);
            let taken = permits.beside(acquired).await?;
            let Some(permit) = taken else {
                return Ok(None);
            };
            permits.take(permit);
        }
        Ok(Some(permits.complete()))
    }
}

impl Permits {
    /// Holds one more. Until all are there, no work has begun.
    fn take(&mut self, mut permit: Permit) {
        permit.set_outcome(RunOutcome::Cancelled);
        self.0.push(permit);
    }

    fn complete(mut self) -> Self {
        self.set_outcome(RunOutcome::Completed);
        self
    }

    /// What is waited for while these are held: it is given up when one of them is lost.
    async fn beside<T>(&self, waiting: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::select! {
            biased;
            (repository, why) = self.lost() => Err(lost_at_work(why).in_repository(&repository)),
            waited = waiting => waited,
        }
    }
}

/// The repositories in the order in which all who ask take them.
fn in_order<'a>(
    repositories: impl IntoIterator<Item = impl Into<Slots<'a>>>,
) -> Result<BTreeMap<&'a RepositoryKey, Weight>, Error> {
    let mut ordered = BTreeMap::new();
    for slots in repositories {
        let Slots { repository, weight } = slots.into();
        if ordered.insert(repository, weight).is_some() {
            let message = "the repository is there twice; its slots are taken in one step";
            let error = Error::new(ErrorKind::InvalidInput, "acquire", message);
            return Err(error.in_repository(repository));
        }
    }
    Ok(ordered)
}
