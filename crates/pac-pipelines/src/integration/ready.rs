//! Whether Pipelines-as-Code has prepared a run that is to be started.
//!
//! Its watcher makes the secret with which a run clones after it has seen the run. One that is
//! started before that may fail for want of it. So a start waits for a while, as an admission waits
//! for the execution order; a run that has waited in its queue has been prepared long before.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pac_core::{PipelineRunKey, Uid};

use super::batch::left_of;
use super::engine::Engine;
use super::options::Mode;
use crate::model::RunView;
use crate::vocabulary;

/// Something that Pipelines-as-Code does to each of its runs after it has made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Preparation {
    /// It writes the [state](vocabulary::STATE), without which its watcher never looks at the run.
    State,
    /// Its watcher makes the secret with which the run clones.
    Secret,
}

impl Preparation {
    /// What is yet to be done to a run; `None` where nothing is, and for a run that
    /// Pipelines-as-Code has not made.
    #[must_use]
    pub fn missing_on(run: &RunView) -> Option<Self> {
        if !run.is_of_pac() {
            None
        } else if run.annotation(vocabulary::STATE).is_none() {
            Some(Self::State)
        } else if run.annotation(vocabulary::SECRET_CREATED) == Some("false") {
            Some(Self::Secret)
        } else {
            None
        }
    }
}

/// What Pipelines-as-Code has not done: "has not written its state".
impl fmt::Display for Preparation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::State => "has not written its state",
            Self::Secret => "has not made the secret with which it clones",
        })
    }
}

impl Engine {
    /// How long the start of a run is to wait for Pipelines-as-Code, since nothing may come of its
    /// own; `None` when it is to start now.
    pub(super) fn start_waits(&self, run: &PipelineRunKey, uid: &Uid) -> Option<Duration> {
        let (wait, now) = (self.start_wait(), self.now());
        let seen = self.seen();
        let view = seen.run(run).filter(|view| view.uid == *uid)?;
        let missing = self.awaited_on(view)?;
        tracing::trace!(%run, "not prepared: Pipelines-as-Code {missing}");
        let left = left_of(view, now, wait, seen.seen_for(run));
        Some(left).filter(|left| !left.is_zero())
    }

    /// What Pipelines-as-Code has still not done for a run that was started; `None` where starts do
    /// not wait for it.
    pub(super) fn started_without(&self, run: &PipelineRunKey, uid: &Uid) -> Option<Preparation> {
        if self.start_wait().is_zero() {
            return None;
        }
        let seen = self.seen();
        let view = seen.run(run).filter(|view| view.uid == *uid)?;
        let missing = self.awaited_on(view)?;
        if missing == Preparation::Secret {
            self.makes_no_secrets.store(true, Ordering::Relaxed);
        }
        Some(missing)
    }

    /// What a start waits for. Pipelines-as-Code marks every run as one without a secret, also where
    /// its setting `secret-auto-create` has it make none: what was awaited in vain once is not awaited
    /// again until a run is seen that has its secret.
    fn awaited_on(&self, view: &RunView) -> Option<Preparation> {
        if view.annotation(vocabulary::SECRET_CREATED) == Some("true") {
            self.makes_no_secrets.store(false, Ordering::Relaxed);
        }
        let in_vain = self.makes_no_secrets.load(Ordering::Relaxed);
        Preparation::missing_on(view).filter(|missing| *missing != Preparation::Secret || !in_vain)
    }

    fn start_wait(&self) -> Duration {
        match self.options.mode {
            Mode::Takeover | Mode::Gate => self.options.start_wait(),
            // Without Pipelines-as-Code nothing prepares a run.
            Mode::Alone | Mode::Observe => Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use pac_core::Timestamp;

    use super::*;

    fn run(by_pac: bool, annotations: &[(&str, &str)]) -> RunView {
        let mut run = RunView::new("ci/a".parse().unwrap(), "u".parse().unwrap());
        if by_pac {
            let manager = vocabulary::PAC_MANAGER.to_owned();
            run.labels
                .insert(vocabulary::MANAGED_BY.to_owned(), manager);
        }
        for (name, value) in annotations {
            run.annotations
                .insert((*name).to_owned(), (*value).to_owned());
        }
        run
    }

    #[test]
    fn only_a_run_that_pipelines_as_code_has_yet_to_prepare_waits() {
        let queued = (vocabulary::STATE, "queued");
        let secret = |value| (vocabulary::SECRET_CREATED, value);
        for (by_pac, annotations, missing) in [
            (true, vec![], Some(Preparation::State)),
            (true, vec![secret("true")], Some(Preparation::State)),
            (
                true,
                vec![queued, secret("false")],
                Some(Preparation::Secret),
            ),
            (true, vec![queued, secret("true")], None),
            (true, vec![queued], None),
            (false, vec![], None),
            (false, vec![secret("false")], None),
        ] {
            let run = run(by_pac, &annotations);
            assert_eq!(Preparation::missing_on(&run), missing, "{run:?}");
        }
    }

    #[test]
    fn a_start_waits_for_so_long_after_the_creation_or_the_first_sight_of_the_run() {
        let mut unready = run(true, &[]);
        unready.created = Some(Timestamp::from_unix_millis(0));
        let left = |seconds: i64, seen_for| {
            let now = Timestamp::from_unix_millis(seconds * 1_000);
            let (wait, seen_for) = (Duration::from_secs(30), Duration::from_secs(seen_for));
            left_of(&unready, now, wait, seen_for).as_secs()
        };
        assert_eq!((left(10, 0), left(30, 0), left(500, 0)), (20, 0, 0));
        // A clock that is behind makes no run wait for longer.
        assert_eq!((left(-500, 12), left(-500, 30)), (18, 0));
    }
}
