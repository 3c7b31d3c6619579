//! What a controller has to tell people about runs.

use std::sync::{Arc, OnceLock};

use pac_core::manager::{Admission, Paused, RepositorySummary};
use pac_core::{FencingToken, Group, Limit, PipelineRunKey, RepositoryKey, Uid};
use tokio::sync::broadcast;

use super::engine::Engine;
use super::phase::Phase;
use super::plan::Plan;
use super::ready::Preparation;
use crate::model::RunView;

/// Notices that a slow reader may be behind before it loses the oldest.
const NOTICES: usize = 2_048;

/// Something that happened to a run, for people to see. Nothing depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notice {
    /// The Repository of the run.
    pub repository: RepositoryKey,
    /// The run.
    pub run: PipelineRunKey,
    /// Tells it apart from other runs of the same name.
    pub uid: Uid,
    /// What has happened.
    pub what: What,
}

impl Notice {
    /// Something that happened to a run.
    #[must_use]
    pub fn new(repository: RepositoryKey, run: PipelineRunKey, uid: Uid, what: What) -> Self {
        Self {
            repository,
            run,
            uid,
            what,
        }
    }
}

/// What happened to a run. Of several controllers of one cluster, each tells what it did itself; where
/// two admit a run at once, both tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// It waits.
    Queued {
        /// Its position in the queue: 1 is next.
        position: usize,
        /// How many wait, itself among them.
        of: u32,
        /// How many run.
        running: u32,
        /// How many may run at once.
        limit: Limit,
        /// None of them starts at present.
        pause: Option<Paused>,
        /// It had been in the queue before, and another controller, or none, looked after it.
        again: bool,
    },
    /// This controller has started it.
    Started {
        /// With this token.
        token: FencingToken,
    },
    /// This controller has started it although Pipelines-as-Code had not prepared it in time. Its
    /// first steps may fail. Told after that it has started.
    StartedUnprepared {
        /// What Pipelines-as-Code had yet to do.
        missing: Preparation,
    },
    /// It had a slot and could not be started: the slot was given back, and it is in its old place
    /// in the queue.
    GivenBack {
        /// The token of the slot.
        token: FencingToken,
    },
    /// Its slot was freed because no controller looked after it for too long, and it had never
    /// started: it is queued in its old place.
    Requeued,
    /// It was cancelled in the store alone, by an operator: the cluster was asked to end it.
    CancelledInStore {
        /// It was running.
        runs: bool,
    },
    /// It waited, and a newer run of its group has taken its place: the cluster was asked to end it.
    Superseded {
        /// The group.
        group: Option<Group>,
    },
    /// It was asked in the store to end, by a newer run of its group, by an operator, or because it
    /// has held its slots for as long as it may: the cluster was asked to end it.
    AskedToEnd {
        /// It was running.
        runs: bool,
    },
    /// It has waited, or held its slots, for as long as it may, and was ended in the store: the
    /// cluster was asked to end it.
    TimedOut {
        /// It held slots.
        runs: bool,
    },
    /// As many runs wait as may: the cluster was asked to end it.
    QueueFull {
        /// How many may wait.
        max_queued: Option<u32>,
    },
    /// It waits for a [section](crate::sections): the repository of the notice.
    SectionQueued {
        /// Its position among those that wait for the section: 1 is next.
        position: usize,
        /// How many wait, itself among them.
        of: u32,
        /// How many are in the section.
        running: u32,
        /// How many may be in it at once.
        limit: Limit,
    },
    /// It is in the section, and was told so.
    SectionEntered {
        /// With this token.
        token: FencingToken,
    },
    /// It was in the section, and its slot there was free for others for a time, because no
    /// controller looked after it. It is counted again, also beyond the limit.
    SectionLost {
        /// The token that it was told before: whatever a later one has reached may refuse it.
        before: FencingToken,
        /// The token of the slot that it has now.
        token: FencingToken,
    },
    /// Its request for the section was ended in the store, by an operator.
    SectionRefused,
    /// It is left alone, since its Repository is in two modes: our annotation sets a limit, and so
    /// does a `spec.concurrency_limit`, by which Pipelines-as-Code queues its runs.
    InTwoModes {
        /// The Repository with that `spec.concurrency_limit`: its own, or the global one.
        limited_by: RepositoryKey,
    },
    /// It stays held back, since it cannot be told which queue it belongs to, or how many may run
    /// there.
    Refused {
        /// Which object, which annotation, and what has to be done.
        message: String,
    },
    /// An annotation that is read for it breaks its rule, and counts as absent.
    InvalidAnnotation {
        /// Which object, which annotation, and what its value has to be.
        message: String,
    },
}

/// The notices of a controller from the moment on at which they were asked for.
#[derive(Debug)]
pub struct Notices(broadcast::Receiver<Notice>);

/// A [`Notice`], or how many a slow reader has missed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Noticed {
    /// The next notice.
    Notice(Notice),
    /// So many notices were dropped before the next one.
    Missed(u64),
}

impl Notices {
    /// Waits for the next notice; `None` when the controller is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Noticed> {
        match self.0.recv().await {
            Ok(notice) => Some(Noticed::Notice(notice)),
            Err(broadcast::error::RecvError::Lagged(missed)) => Some(Noticed::Missed(missed)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

/// Where notices are told. Costs nothing until someone asks for them, and telling never waits.
#[derive(Debug, Default)]
pub(super) struct NoticeBoard(OnceLock<broadcast::Sender<Notice>>);

impl NoticeBoard {
    pub(super) fn subscribe(&self) -> Notices {
        let sender = self.0.get_or_init(|| broadcast::Sender::new(NOTICES));
        Notices(sender.subscribe())
    }

    /// Whether anyone reads.
    fn is_read(&self) -> bool {
        self.0.get().is_some_and(|told| told.receiver_count() > 0)
    }
}

impl Engine {
    /// Tells something about a run, if anyone reads it.
    pub(super) fn tell(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
        uid: &Uid,
        what: impl FnOnce() -> Option<What>,
    ) {
        if let Some(told) = self.notices.0.get().filter(|_| self.notices.is_read())
            && let Some(what) = what()
        {
            // The last reader may have gone meanwhile.
            let _ = told.send(Notice::new(
                repository.clone(),
                run.clone(),
                uid.clone(),
                what,
            ));
        }
    }

    /// The same, about a run that was seen.
    pub(super) fn tell_of(&self, repository: &RepositoryKey, view: &RunView, what: What) {
        self.tell(repository, &view.key, &view.uid, || Some(what));
    }

    /// Tells that a run waits, if that is what an admission has come to.
    pub(super) fn tell_queued(
        &self,
        repository: &RepositoryKey,
        view: &RunView,
        admission: &Admission,
        again: bool,
    ) {
        let Admission::Queued(waiter) = admission else {
            return;
        };
        self.tell(repository, &view.key, &view.uid, || {
            let RepositorySummary {
                limit,
                running,
                queued: of,
                pause,
                ..
            } = waiter.queue()?;
            Some(What::Queued {
                // `None`: its turn has come already.
                position: waiter.position()?,
                of,
                running,
                limit,
                pause,
                again,
            })
        });
    }

    /// Takes the runs out of a plan that must not be queued, and tells why.
    pub(super) fn refuse(&self, repository: &RepositoryKey, plan: &mut Plan) {
        for runs in [&mut plan.admit_new, &mut plan.readmit] {
            runs.retain(|view| {
                let Some(message) = self.seen().refusal(repository, view) else {
                    return true;
                };
                self.tell_stays_held(repository, view, message);
                false
            });
        }
    }

    /// Tells of the runs that are held back in the name of a Repository that cannot have a queue, and
    /// what is to be done about that.
    pub(super) fn tell_held(&self, repository: &RepositoryKey, message: &str) {
        let mode = self.options.mode;
        let held: Vec<_> = {
            let seen = self.seen();
            let views = seen.views_of(repository);
            let held = views.filter(|view| Phase::in_mode(view, true, mode) == Phase::Held);
            held.map(Arc::clone).collect()
        };
        for view in held {
            self.tell_stays_held(repository, &view, message.to_owned());
        }
    }

    pub(super) fn tell_stays_held(
        &self,
        repository: &RepositoryKey,
        view: &RunView,
        message: String,
    ) {
        tracing::warn!(run = %view.key, message, "a run stays held back");
        self.tell_of(repository, view, What::Refused { message });
    }

    /// Tells, and logs, which annotations of a new run count as absent.
    pub(super) fn tell_invalid(&self, repository: &RepositoryKey, view: &RunView) {
        let faults = self.seen().faults(repository, view);
        for invalid in faults {
            let message = invalid.to_string();
            tracing::warn!(run = %view.key, error = %message, "an annotation is passed over");
            self.tell_of(repository, view, What::InvalidAnnotation { message });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_reader_misses_the_oldest_and_holds_nothing_up() {
        let board = NoticeBoard::default();
        assert!(!board.is_read());
        let mut slow = board.subscribe();
        assert!(board.is_read());
        let notice = |number: u64| Notice {
            repository: "ci/website".parse().unwrap(),
            run: "ci/a".parse().unwrap(),
            uid: "u".parse().unwrap(),
            what: What::Started {
                token: FencingToken::new(number),
            },
        };
        let told = board.0.get().unwrap();
        for number in 0..3_000 {
            told.send(notice(number)).unwrap();
        }
        assert_eq!(slow.next().await, Some(Noticed::Missed(952)));
        assert_eq!(slow.next().await, Some(Noticed::Notice(notice(952))));
        drop(slow);
        assert!(!board.is_read());
    }
}
