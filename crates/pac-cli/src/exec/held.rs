//! The slots that an invocation holds, and those that the command it runs in holds already.

use std::env::{self, VarError};
use std::fmt;
use std::future::pending;
use std::str::FromStr;

use futures_util::future::select_all;
use pac_concurrency::{
    AnyLost, ConcurrencyManager, Ended, Error, FencingToken, Lease, PipelineRunKey, RepositoryKey,
    RunOutcome, RunStatus, SlotNames,
};

use super::environment::{Environment, HeldSlot};
use crate::exit::{Exit, Failure};
use crate::output::note;

/// The variable that lists the slots that a command runs in.
pub(super) const HELD: &str = "PAC_HELD";

/// One slot in [`HELD`]: `ci/website=ci/deploy-1#17`. No name has one of these signs in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) repository: RepositoryKey,
    pub(super) run: PipelineRunKey,
    token: FencingToken,
}

impl Slot {
    fn of(lease: &Lease) -> Self {
        Self {
            repository: lease.repository().clone(),
            run: lease.run().clone(),
            token: lease.token(),
        }
    }

    pub(super) fn token(&self) -> FencingToken {
        self.token
    }
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

/// The slots of the `pac exec` that this one runs in, as the environment lists them.
///
/// # Errors
/// If somebody else has written the variable.
pub(super) fn listed() -> Result<Vec<Slot>, Failure> {
    match env::var(HELD) {
        Ok(text) => parse(&text),
        Err(VarError::NotPresent) => Ok(Vec::new()),
        Err(VarError::NotUnicode(_)) => Err(not_ours()),
    }
}

fn parse(text: &str) -> Result<Vec<Slot>, Failure> {
    let slots = text.split_whitespace().map(str::parse);
    slots.collect::<Result<_, ()>>().map_err(|()| not_ours())
}

fn not_ours() -> Failure {
    let message = format!(
        "{HELD} lists the slots that a command runs in, as NS/NAME=NS/RUN#TOKEN with spaces \
         between them; `pac exec` sets it, and this one is not of its making: unset it"
    );
    Failure::new(Exit::Usage, message)
}

/// Those of the slots that are held, as the store says: the variable may have outlived its command. One
/// read for each.
///
/// # Errors
/// Those of reading from the store.
pub(super) async fn still_held(
    listed: &[Slot],
    manager: &ConcurrencyManager,
) -> Result<Vec<HeldSlot>, Error> {
    let mut held = Vec::new();
    for slot in listed {
        match manager.run_status(&slot.repository, &slot.run).await? {
            RunStatus::Started(run) if run.token == slot.token => {
                held.push(HeldSlot {
                    slot: slot.clone(),
                    session: run.session,
                    weight: run.terms().weight,
                    numbers: run.terms().slots.clone(),
                });
            }
            _ => {}
        }
    }
    Ok(held)
}

/// The slots that a command runs in.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Of the `pac exec` around this one.
    pub(super) around: Vec<HeldSlot>,
    /// Of this one.
    pub(super) own: Vec<Lease>,
    /// The names of the slots of the repository that was named first.
    pub(super) names: Option<SlotNames>,
}

impl Held {
    /// The loss of the first of its own.
    pub(super) fn lost(&self) -> AnyLost {
        AnyLost::of(&self.own)
    }

    /// Waits until one of its own runs is asked to end, for ever without any. Cancel-safe.
    pub(super) async fn asked(&self) -> RepositoryKey {
        let asked = self.own.iter().map(|lease| {
            Box::pin(async move {
                lease.cancel_requested().await;
                lease.repository().clone()
            })
        });
        let asked: Vec<_> = asked.collect();
        if asked.is_empty() {
            return pending().await;
        }
        select_all(asked).await.0
    }

    /// How the run of a repository ends that was asked to: by the store's clock, since the command may have
    /// started long after the grant, and ends some time after it was asked.
    pub(super) fn outcome_of_asked(&self, repository: &RepositoryKey) -> RunOutcome {
        let mut own = self.own.iter();
        match own.any(|lease| lease.repository() == repository && lease.is_asked_for_its_time()) {
            true => RunOutcome::TimedOut,
            false => RunOutcome::Cancelled,
        }
    }

    /// The slots that the command runs in.
    pub(super) fn all(&self) -> Vec<HeldSlot> {
        let own = self.own.iter().map(|lease| HeldSlot {
            slot: Slot::of(lease),
            session: lease.session(),
            weight: lease.weight(),
            numbers: lease.slots().to_vec(),
        });
        self.around.iter().cloned().chain(own).collect()
    }

    /// What the command finds in its environment. The slots of `first` are told in variables of their
    /// own.
    pub(super) fn environment(&self, first: Option<&RepositoryKey>) -> Environment {
        Environment::of(
            &self.all(),
            first,
            self.names.as_deref().unwrap_or_default(),
        )
    }

    /// Gives all of its own slots back, whatever becomes of one of them. Returns whether all were still
    /// held.
    ///
    /// # Errors
    /// The first one of the store's, if all others were, and told as a note otherwise; what was not
    /// given back ends with the session.
    pub(super) async fn release(
        self,
        manager: &ConcurrencyManager,
        outcome: RunOutcome,
    ) -> Result<bool, Error> {
        let (mut all_held, mut failure) = (true, None);
        for lease in self.own {
            match manager.release(lease, outcome).await {
                Ok(ending) => all_held &= ending.ended == Ended::Done,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            Some(error) if all_held => Err(error),
            Some(error) => {
                note(&error);
                Ok(false)
            }
            None => Ok(all_held),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pac_concurrency::{Admission, ManagerOptions, MemoryDriver, MemoryOptions, RunRequest};

    use super::*;

    #[test]
    fn slots_are_read_as_they_are_written() {
        let text = "ci/web=ci/exec-01#17 shared/gpu.a=ci/b#18446744073709551615";
        let slots = parse(text).unwrap();
        let written: Vec<_> = slots.iter().map(Slot::to_string).collect();
        assert_eq!(written.join(" "), text);
        assert!(parse("").unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_slot_that_was_taken_away_keeps_none_of_the_others_from_being_given_back() {
        let driver = Arc::new(MemoryDriver::new(MemoryOptions::default()));
        let options = ManagerOptions::default();
        let manager = ConcurrencyManager::open(driver, options).await.unwrap();
        let run: PipelineRunKey = "ci/a".parse().unwrap();
        let mut held = Held::default();
        for repository in ["ci/web", "shared/gpu"] {
            let repository = repository.parse().unwrap();
            let request = RunRequest::ephemeral(run.clone(), "a".parse().unwrap());
            match manager.admit(&repository, request).await.unwrap() {
                Admission::Started(lease) => held.own.push(lease),
                other => panic!("{other:?}"),
            }
        }
        let (web, gpu) = ("ci/web".parse().unwrap(), "shared/gpu".parse().unwrap());
        manager.cancel(&web, &run, None).await.unwrap();
        let all = held.release(&manager, RunOutcome::Completed).await.unwrap();
        assert!(!all);
        let ended = manager.status(&gpu).await.unwrap().finished;
        assert_eq!(ended[0].outcome, RunOutcome::Completed);
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
            let refused = parse(text).unwrap_err();
            assert!(
                refused.to_string().contains("unset it"),
                "{text}: {refused}"
            );
        }
    }
}
