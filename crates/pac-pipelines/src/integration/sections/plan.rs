//! What is to be done in one section.

use std::sync::Arc;

use pac_core::protocol::RunRequest;
use pac_core::state::RunOutcome;
use pac_core::{FencingToken, PipelineRunKey, Timestamp, Uid};

use crate::integration::decide::Known;
use crate::model::RunView;
use crate::sections::{SectionName, Step, Wish, decide};

/// One run that asks for a section, or of which the store knows something there.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) run: PipelineRunKey,
    /// `None` when the cluster does not have it.
    pub(super) view: Option<Arc<RunView>>,
    pub(super) known: Known,
    /// The token of its slot in the store.
    pub(super) in_store: Option<FencingToken>,
}

/// A run that asks for a slot, as it was seen.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    pub(super) view: Arc<RunView>,
    pub(super) uid: Uid,
    pub(super) asked: Timestamp,
    /// The token that it was told before.
    pub(super) told: Option<FencingToken>,
    /// Which of its requests the store had when this was planned: what is asked on its behalf ends
    /// no other one. One that has come since is newer.
    known: Option<Uid>,
}

/// What is to be done, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// With whether the slot had been lost.
    pub(super) adopt: Vec<(Asking, bool)>,
    pub(super) release: Vec<(PipelineRunKey, Known, RunOutcome)>,
    /// They have a slot, and are to be told of it.
    pub(super) tell: Vec<Asking>,
    pub(super) readmit: Vec<Asking>,
    pub(super) admit: Vec<Asking>,
    pub(super) admit_new: Vec<Asking>,
    pub(super) refuse: Vec<Arc<RunView>>,
    /// To be read past all caches, and decided again.
    pub(super) verify: Vec<Item>,
}

impl Plan {
    /// Adds what is to be done about one run. `certain` says that it was read past all caches.
    pub(super) fn add(&mut self, mut item: Item, name: &SectionName, certain: bool) {
        let wish = match &item.view {
            Some(view) => Wish::of(view, name),
            None => Wish::Nothing(RunOutcome::Cancelled),
        };
        let had = item.known.uid().cloned();
        let mut step = decide(&wish, &item.known, item.in_store, certain);
        if step == Step::Replace {
            let known = std::mem::replace(&mut item.known, Known::Unknown);
            let replaced = (item.run.clone(), known, RunOutcome::Completed);
            self.release.push(replaced);
            step = decide(&wish, &item.known, None, certain);
        }
        match step {
            Step::Nothing | Step::Replace => return,
            Step::Verify => return self.verify.push(item),
            Step::Release(outcome) => {
                return self.release.push((item.run, item.known, outcome));
            }
            _ => {}
        }
        let (Some(view), Some(asking)) = (&item.view, item.asking(&wish, had)) else {
            return;
        };
        match step {
            Step::AdmitNew => self.admit_new.push(asking),
            Step::Admit if item.in_store.is_some() => self.tell.push(asking),
            Step::Admit => self.admit.push(asking),
            Step::Readmit => self.readmit.push(asking),
            Step::Adopt { lost } => self.adopt.push((asking, lost)),
            Step::Refuse => self.refuse.push(Arc::clone(view)),
            Step::Nothing | Step::Verify | Step::Replace | Step::Release(_) => {}
        }
    }
}

impl Item {
    /// The run as one that asks; `None` when it does not. `known` is what the store had of it.
    fn asking(&self, wish: &Wish, known: Option<Uid>) -> Option<Asking> {
        let (asked, told) = match wish {
            Wish::Asks { asked, .. } => (*asked, None),
            Wish::Holds { told, .. } => (Timestamp::from_unix_millis(0), Some(*told)),
            Wish::Nothing(_) => return None,
        };
        Some(Asking {
            view: Arc::clone(self.view.as_ref()?),
            uid: wish.uid()?.clone(),
            asked,
            told,
            known,
        })
    }
}

impl Asking {
    /// What it asks the store with.
    pub(super) fn request(&self) -> RunRequest {
        let request = RunRequest::durable(self.view.key.clone(), self.uid.clone());
        request.replacing(self.known.clone())
    }
}
