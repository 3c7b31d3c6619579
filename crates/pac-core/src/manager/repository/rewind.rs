//! After the store has gone back in time: it was restored from an older copy, or a standby was
//! promoted that did not have the last commits.
//!
//! A repository notices when a read shows a revision below the one that it knew when it asked, or
//! the same revision with another stamp. What is read then is what holds; all that was known is of
//! a history that is no more.

use std::sync::Arc;

use super::Repository;
use super::effects::{Effects, Rewound};
use super::env::Port;
use crate::protocol::Command;
use crate::value::Version;

impl<P: Port> Repository<P> {
    /// Looks whether what was read, of which `found` is the version, is of an earlier time than
    /// `above`, which was known as the read began. If it is, all that is known is forgotten.
    pub(super) fn notice_rewind(
        &mut self,
        found: Version,
        above: Version,
        effects: &mut Effects<P>,
    ) {
        // Once it has been noticed, the floor is that of the new history: reads that began before
        // are not news any more.
        let known = self.floor;
        if found.is_rewound_from(above) && found.is_rewound_from(known) {
            effects.rewound = Some(Rewound { known, found });
            self.drop_history();
        }
    }

    /// Another repository has shown that the store has gone back in time: what is known of this one
    /// may be of a history that is no more. As [`look_again`](Self::look_again) else.
    #[must_use = "a right that nobody has leaves the repository unattended for good"]
    pub fn on_store_rewound(&mut self, effects: &mut Effects<P>) -> bool {
        self.drop_history();
        self.needs_attention(effects)
    }

    /// Forgets the state, but for the counters and for what this manager had in it: what has become
    /// of that is news.
    fn drop_history(&mut self) {
        if let Some(state) = &self.state {
            let (head, before) = (state.head(), self.given_out.as_deref());
            let (ticket, token) = before.copied().unwrap_or_default();
            let counters = (head.last_ticket.max(ticket), head.last_token.max(token));
            self.given_out = Some(Box::new(counters));
        }
        self.forget();
        self.floor = Version::default();
        // A hint of that history must not make the new one seem behind for ever.
        self.wanted = self.floor.revision;
    }

    /// What was known does not hold: nothing is known.
    pub(super) fn forget(&mut self) {
        self.recheck = true;
        let Some(state) = self.state.take() else {
            return;
        };
        for entry in state.entries().filter(|e| e.owner() == Some(self.session)) {
            self.forgotten.insert(entry.run.clone(), Arc::clone(entry));
        }
        self.owned_count = 0;
    }

    /// Has the counters of the head raised to what was given out before the store went back, so
    /// that no ticket and no fencing token comes twice that this manager knew of. Every plan does
    /// it; this makes sure that there is one.
    pub(super) fn count_on(&mut self) {
        let (Some(state), Some((ticket, token))) = (&self.state, self.given_out.as_deref()) else {
            return;
        };
        let head = state.head();
        if head.last_ticket >= *ticket && head.last_token >= *token {
            self.given_out = None;
        } else if state.exists() {
            self.inbox.add(Command::Promote);
        }
    }
}
