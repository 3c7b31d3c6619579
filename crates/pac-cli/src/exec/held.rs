//! The slots that an invocation holds, and those that the command it runs in holds already.

use std::env::{self, VarError};
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::str::FromStr;
use std::task::Poll;

use pac_concurrency::{
    ConcurrencyManager, Ended, Error, FencingToken, Lease, LeaseLoss, Lost, PipelineRunKey,
    RepositoryKey, RunOutcome, RunStatus,
};

use crate::exit::{Exit, Failure};

/// The variable that lists the slots that a command runs in.
pub(super) const HELD: &str = "PAC_HELD";

/// One slot in [`HELD`]: `ci/website=ci/deploy-1#17`. No name has one of these signs in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slot {
    repository: RepositoryKey,
    run: PipelineRunKey,
    token: FencingToken,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}#{}", self.repository, self.run, self.token)
    }
}

impl FromStr for Slot {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (repository, run) = text.split_once('=').ok_or(())?;
        let (run, token) = run.split_once('#').ok_or(())?;
        Ok(Self {
            repository: repository.parse().map_err(drop)?,
            run: run.parse().map_err(drop)?,
            token: FencingToken::new(token.parse().map_err(drop)?),
        })
    }
}

/// The slots of the `pac exec` that this one runs in, if it does.
#[derive(Debug, Clone, Default)]
pub(super) struct Outer(Vec<Slot>);

impl Outer {
    /// From the environment.
    ///
    /// # Errors
    /// If somebody else has written the variable.
    pub(super) fn of_environment() -> Result<Self, Failure> {
        match env::var(HELD) {
            Ok(text) => Self::parse(&text),
            Err(VarError::NotPresent) => Ok(Self::default()),
            Err(VarError::NotUnicode(_)) => Err(not_ours()),
        }
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let slots = text.split_whitespace().map(str::parse);
        slots
            .collect::<Result<_, ()>>()
            .map(Self)
            .map_err(|()| not_ours())
    }

    /// The run that this process runs in and that holds a slot of `repository`; `None` where the
    /// store says that it does not hold it any more: the variable has outlived its command.
    ///
    /// # Errors
    /// Those of reading from the store.
    pub(super) async fn holder(
        &self,
        repository: &RepositoryKey,
        manager: &ConcurrencyManager,
    ) -> Result<Option<&PipelineRunKey>, Error> {
        let mut slots = self.0.iter();
        let Some(slot) = slots.find(|slot| slot.repository == *repository) else {
            return Ok(None);
        };
        let status = manager.run_status(repository, &slot.run).await?;
        let is_held = matches!(status, RunStatus::Started(run) if run.token == slot.token);
        Ok(is_held.then_some(&slot.run))
    }
}

fn not_ours() -> Failure {
    let message = format!(
        "{HELD} lists the slots that a command runs in, as NS/NAME=NS/RUN#TOKEN with spaces \
         between them; `pac exec` sets it, and this one is not of its making: unset it"
    );
    Failure::new(Exit::Usage, message)
}

/// The slots that an invocation holds itself.
#[derive(Debug, Default)]
pub(super) struct Held(Vec<Lease>);

impl Held {
    pub(super) fn add(&mut self, lease: Lease) {
        self.0.push(lease);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn repositories(&self) -> impl Iterator<Item = &RepositoryKey> {
        self.0.iter().map(Lease::repository)
    }

    pub(super) fn lost(&self) -> AnyLost {
        let lost = |lease: &Lease| (lease.repository().clone(), lease.lost());
        AnyLost(self.0.iter().map(lost).collect())
    }

    /// What the command finds in its environment. The slot of `first` is told in variables of its
    /// own where it is one of these; else any of them.
    pub(super) fn environment(
        &self,
        first: Option<&RepositoryKey>,
        outer: &Outer,
    ) -> Vec<(&'static str, String)> {
        let told = self
            .0
            .iter()
            .find(|lease| Some(lease.repository()) == first);
        let Some(told) = told.or(self.0.first()) else {
            return Vec::new();
        };
        let own = self.0.iter().map(|lease| Slot {
            repository: lease.repository().clone(),
            run: lease.run().clone(),
            token: lease.token(),
        });
        let own: Vec<_> = own.collect();
        let is_own = |slot: &&Slot| own.iter().any(|own| own.repository == slot.repository);
        let outer = outer.0.iter().filter(|slot| !is_own(slot));
        let all: Vec<_> = outer.chain(&own).map(Slot::to_string).collect();
        vec![
            ("PAC_REPOSITORY", told.repository().to_string()),
            ("PAC_RUN", told.run().to_string()),
            ("PAC_LEASE", told.session().to_string()),
            ("PAC_FENCING_TOKEN", told.token().to_string()),
            (HELD, all.join(" ")),
        ]
    }

    /// Gives all slots back. Returns whether all were still held.
    ///
    /// # Errors
    /// The first one of the store's; what was not given back ends with the session.
    pub(super) async fn release(
        self,
        manager: &ConcurrencyManager,
        outcome: RunOutcome,
    ) -> Result<bool, Error> {
        let mut all = Ok(true);
        for lease in self.0 {
            let ending = manager.release(lease, outcome).await;
            all = all.and_then(|all| Ok(ending?.ended == Ended::Done && all));
        }
        all
    }
}

/// The loss of the first of several slots. Without any it never comes.
#[derive(Debug)]
pub(super) struct AnyLost(Vec<(RepositoryKey, Lost)>);

impl AnyLost {
    /// Waits for it. Cancel-safe.
    pub(super) async fn lost(&mut self) -> (RepositoryKey, LeaseLoss) {
        poll_fn(|cx| {
            for (repository, lost) in &mut self.0 {
                if let Poll::Ready(why) = Pin::new(lost).poll(cx) {
                    return Poll::Ready((repository.clone(), why));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Whether it has come.
    pub(super) fn reason(&self) -> Option<LeaseLoss> {
        self.0.iter().find_map(|(_, lost)| lost.reason())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_read_as_they_are_written() {
        let text = "ci/web=ci/exec-01#17 shared/gpu.a=ci/b#18446744073709551615";
        let outer = Outer::parse(text).unwrap();
        let written: Vec<_> = outer.0.iter().map(Slot::to_string).collect();
        assert_eq!(written.join(" "), text);
        assert!(Outer::parse("").unwrap().0.is_empty());
    }

    #[test]
    fn what_was_not_written_by_pac_is_refused_with_the_cure() {
        for text in [
            "yes",
            "ci/web",
            "ci/web=ci/a",
            "ci/web=ci/a#x",
            "web=ci/a#1",
        ] {
            let refused = Outer::parse(text).unwrap_err();
            assert!(
                refused.to_string().contains("unset it"),
                "{text}: {refused}"
            );
        }
    }
}
