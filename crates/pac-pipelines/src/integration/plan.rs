//! What is to be done in one Repository, given what the cluster shows and what the store knows.

use std::sync::Arc;

use pac_core::PipelineRunKey;
use pac_core::state::RunOutcome;

use super::decide::{Holder, Known, Step, decide};
use super::options::Mode;
use super::phase::{Phase, bears_marks};
use crate::model::RunView;

/// One run of a Repository: what the cluster shows, and what the store knows.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) run: PipelineRunKey,
    /// `None` when the cluster does not have it.
    pub(super) view: Option<Arc<RunView>>,
    /// It is the run that the store knows here, and it belongs to another queue by now, or to none.
    pub(super) elsewhere: Option<Arc<RunView>>,
    /// As far as is known, the cluster does not have the run that the store knows.
    pub(super) is_gone: bool,
    pub(super) known: Known,
    /// It waits otherwise than its annotations say now.
    pub(super) is_moved: bool,
}

/// What is to be done, in the order in which it is to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// First: what runs is counted before anything else may start.
    pub(super) adopt: Vec<Arc<RunView>>,
    pub(super) adopt_and_release: Vec<(Arc<RunView>, RunOutcome)>,
    pub(super) end: Vec<(PipelineRunKey, Known, RunOutcome)>,
    /// As far as is known the cluster does not have them any more: they are read.
    pub(super) gone: Vec<(PipelineRunKey, Known)>,
    pub(super) end_at_once: Vec<(Arc<RunView>, Known)>,
    /// They were granted a slot and asked to end before they started.
    pub(super) end_before_start: Vec<(Arc<RunView>, Known)>,
    /// They run, and were asked to end.
    pub(super) ask_to_end: Vec<Arc<RunView>>,
    pub(super) give_up: Vec<Arc<RunView>>,
    /// They are counted in another queue from now on.
    pub(super) moved: Vec<(Arc<RunView>, Known)>,
    pub(super) readmit: Vec<Arc<RunView>>,
    pub(super) admit: Vec<Arc<RunView>>,
    /// Last, in batches.
    pub(super) admit_new: Vec<Arc<RunView>>,
    pub(super) verify: Vec<(Arc<RunView>, Known)>,
}

impl Plan {
    /// Plans for the runs of a Repository that has a limit (`limited`) or has none.
    pub(super) fn of(items: Vec<Item>, limited: bool, mode: Mode) -> Self {
        let mut plan = Self::default();
        for item in items {
            let Some(view) = item.view else {
                match item.elsewhere.filter(|_| item.known.is_live()) {
                    // Before its slot is free, it is read.
                    Some(_) if matches!(item.known, Known::Started { .. }) => {
                        plan.gone.push((item.run, item.known));
                    }
                    Some(view) => plan.moved.push((view, item.known)),
                    None if item.is_gone && item.known.is_live() => {
                        plan.gone.push((item.run, item.known));
                    }
                    None => {}
                }
                continue;
            };
            if item.is_moved && is_our_waiter(&view, &item.known, limited, mode) {
                plan.admit.push(view);
                continue;
            }
            plan.add(view, item.known, limited, mode);
        }
        plan
    }

    /// Leaves at most `room` runs that are to be read, those with a slot first. True when there
    /// were more.
    pub(super) fn bound_reads(&mut self, room: usize) -> bool {
        let is_over = self.gone.len() > room;
        if is_over {
            let waits = |(_, known): &(_, Known)| !matches!(known, Known::Started { .. });
            self.gone.sort_by_key(waits);
            self.gone.truncate(room);
        }
        is_over
    }

    /// Adds what is to be done about one run.
    pub(super) fn add(&mut self, view: Arc<RunView>, known: Known, limited: bool, mode: Mode) {
        let phase = Phase::in_mode(&view, limited, mode);
        let marked = matches!(phase, Phase::Ending { .. }) && bears_marks(&view, mode);
        match decide(&view.uid, phase, marked, &known) {
            Step::Nothing => {}
            Step::AdmitNew => self.admit_new.push(view),
            Step::Admit => self.admit.push(view),
            Step::Readmit => self.readmit.push(view),
            Step::Adopt => {
                if matches!(known, Known::Started { asked: true, .. }) {
                    self.add_asked(&view);
                }
                self.adopt.push(view);
            }
            Step::AskToEnd => self.add_asked(&view),
            Step::EndBeforeStart => self.end_before_start.push((view, known)),
            Step::Release(outcome) => self.end.push((view.key.clone(), known, outcome)),
            Step::AdoptAndRelease(outcome) => self.adopt_and_release.push((view, outcome)),
            Step::Leave => self
                .end
                .push((view.key.clone(), known, RunOutcome::Cancelled)),
            Step::GiveUp => self.give_up.push(view),
            Step::EndAtOnce => self.end_at_once.push((view, known)),
            Step::Verify => self.verify.push((view, known)),
        }
    }

    /// The cluster is asked once.
    fn add_asked(&mut self, view: &Arc<RunView>) {
        if !view.spec_status.is_cancel() {
            self.ask_to_end.push(Arc::clone(view));
        }
    }
}

/// Whether a run waits, and this controller looks after it: asked for once more it moves in its
/// queue, and nothing else.
fn is_our_waiter(view: &RunView, known: &Known, limited: bool, mode: Mode) -> bool {
    let is_ours = matches!(known, Known::Queued { uid, holder: Holder::Us } if *uid == view.uid);
    let phase = Phase::in_mode(view, limited, mode);
    is_ours && matches!(phase, Phase::Held | Phase::HeldByUser)
}
