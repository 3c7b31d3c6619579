//! Runs that others end, ask to end, or move.

use std::sync::Arc;

use super::command::{Admitted, Bump, Cancellation, Ended, Outcome, Which};
use super::plan::Plan;
use crate::name::{PipelineRunKey, Uid};
use crate::state::{Entry, EntryState, Moment, RunOutcome, Terms};
use crate::value::{Priority, Timestamp};

/// What is done to a run.
enum Deed {
    End,
    Ask,
}

impl Plan<'_> {
    pub(super) fn cancel(
        &mut self,
        run: &PipelineRunKey,
        uid: Option<&Uid>,
        how: Cancellation,
    ) -> Outcome {
        let same = |entry: &&Arc<Entry>| uid.is_none_or(|uid| entry.uid == *uid);
        let ended = match self.current(run).filter(same) {
            None => Ended::Unknown,
            Some(entry) => match (entry.state, how) {
                (EntryState::Finished { outcome, .. }, _) => Ended::Before(outcome),
                (EntryState::Started { token, .. }, Cancellation::IfWaiting) => {
                    Ended::Started(token)
                }
                (EntryState::Started { token, .. }, Cancellation::Ask) => {
                    let entry = Entry::clone(entry);
                    self.ask_to_end(entry);
                    Ended::Asked(token)
                }
                (EntryState::Queued { .. } | EntryState::Started { .. }, _) => {
                    let entry = Entry::clone(entry);
                    self.end(entry, RunOutcome::Cancelled);
                    Ended::Done
                }
            },
        };
        self.ended(ended)
    }

    pub(super) fn cancel_all(&mut self, which: &Which, how: Cancellation) -> Outcome {
        let deed = |entry: &Entry| {
            if !which.includes(entry) {
                return None;
            }
            match (entry.state, how) {
                (EntryState::Finished { .. }, _)
                | (EntryState::Started { .. }, Cancellation::IfWaiting) => None,
                (EntryState::Started { .. }, Cancellation::Ask) => {
                    (!entry.is_asked_to_end()).then_some(Deed::Ask)
                }
                (EntryState::Queued { .. } | EntryState::Started { .. }, _) => Some(Deed::End),
            }
        };
        let entries = self.current_entries();
        let meant = entries.filter_map(|entry| Some((Arc::clone(entry), deed(entry)?)));
        let meant = meant.collect();
        self.sweep(RunOutcome::Cancelled, meant)
    }

    pub(super) fn time_out(&mut self, now: Timestamp) -> Outcome {
        let due = self.base.deadlines().take_while(|(at, _)| *at <= now);
        let due = due.map(|(_, entry)| entry);
        let due = due.filter(|entry| self.is_untouched(entry));
        let changed = self.overlay.entries();
        let changed = changed.filter(|entry| entry.deadline().is_some_and(|at| at <= now));
        let meant = due.chain(changed).map(|entry| {
            let asks = entry.is_started() && !entry.is_asked_to_end();
            (Arc::clone(entry), if asks { Deed::Ask } else { Deed::End })
        });
        let meant = meant.collect();
        self.sweep(RunOutcome::TimedOut, meant)
    }

    /// Does to each run what is to be done to it, in the order of their arrival.
    fn sweep(&mut self, outcome: RunOutcome, mut meant: Vec<(Arc<Entry>, Deed)>) -> Outcome {
        meant.sort_unstable_by_key(|(entry, _)| entry.ticket);
        let mut affected = Vec::new();
        for (entry, deed) in meant {
            if self.budget_is_spent() {
                break;
            }
            affected.push(entry.run.clone());
            let entry = Entry::clone(&entry);
            match deed {
                Deed::End => self.end(entry, outcome),
                Deed::Ask => self.ask_to_end(entry),
            }
        }
        Outcome::Swept {
            affected,
            promoted: self.promote(),
        }
    }

    /// Asks a run that holds its slots to end, once.
    pub(super) fn ask_to_end(&mut self, entry: Entry) {
        if !entry.is_asked_to_end() {
            let terms = Terms {
                asked: Moment::AT_COMMIT,
                ..entry.terms().clone()
            };
            self.change(entry, |entry| entry.with_terms(terms));
        }
    }

    pub(super) fn bump(&mut self, run: &PipelineRunKey, uid: Option<&Uid>, to: Bump) -> Outcome {
        let meant =
            |entry: &&Arc<Entry>| entry.is_queued() && uid.is_none_or(|uid| entry.uid == *uid);
        let Some(entry) = self
            .current(run)
            .filter(meant)
            .map(|entry| Entry::clone(entry))
        else {
            return Outcome::Moved {
                standing: Admitted::NotHeld,
                promoted: Vec::new(),
            };
        };
        let admitted_as = entry.admitted_as();
        let priority = match to {
            Bump::To(priority) => priority,
            Bump::Back => admitted_as,
            Bump::First => match self.waiters().next() {
                Some(first) if first.run != entry.run => {
                    Priority::new(first.priority.get().saturating_add(1))
                }
                _ => entry.priority,
            },
        };
        if priority != entry.priority {
            let terms = Terms {
                admitted_as: (priority != admitted_as).then_some(admitted_as),
                ..entry.terms().clone()
            };
            self.change(entry, |entry| Entry { priority, ..entry }.with_terms(terms));
        }
        let promoted = self.promote();
        let standing = self.current(run).map(|entry| Admitted::of(entry));
        Outcome::Moved {
            standing: standing.unwrap_or(Admitted::NotHeld),
            promoted,
        }
    }
}
