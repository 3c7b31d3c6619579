//! A repository under the rules under check, committed as a store does; every commit is judged.

use pac_core::protocol::{Changes, Outcome};
use pac_core::state::{Absorb, RepositoryState, Snapshot};
use pac_core::{Stamp, Timestamp, Version};

use super::check::Check;
use super::edge;
use super::invariants::{Findings, Transition, judge};
use crate::Rules;
use crate::reference::{Answer, Ask, Asker, Repository};

/// See the module.
#[derive(Debug)]
pub(crate) struct Book<'a> {
    rules: &'a dyn Rules,
    state: RepositoryState,
    findings: Findings,
}

impl<'a> Book<'a> {
    pub(crate) fn new(rules: &'a dyn Rules) -> Self {
        Self {
            rules,
            state: RepositoryState::absent(0),
            findings: Vec::new(),
        }
    }

    /// The content, as a repository of the reference model.
    pub(crate) fn picture(&self) -> Repository {
        edge::picture(self.state.exists(), self.state.head(), self.state.entries())
    }

    /// The queue in the order of the state's own queue.
    pub(crate) fn queue(&self) -> Vec<u8> {
        let queue = self.state.queue();
        queue.map(|entry| edge::number(&entry.run)).collect()
    }

    /// The slots that are taken, the runs whose time is limited, and whether a waiting run could
    /// start, as the head of the repository tells them.
    pub(crate) fn counts(&self) -> (u32, usize, bool) {
        let head = self.state.head();
        let timed = head.policy.as_ref().map_or(0, |policy| policy.timed);
        (head.slots(), timed as usize, head.could_start())
    }

    /// The findings since the last call.
    pub(crate) fn findings(&mut self) -> Findings {
        std::mem::take(&mut self.findings)
    }

    /// Applies a command until the store accepts the commit; `None` if the store refuses it for
    /// good.
    pub(crate) fn ask(
        &mut self,
        asker: Asker,
        ask: &Ask,
        (clock, dead): (u64, &[u64]),
    ) -> Option<Answer> {
        loop {
            let (outcome, changes) = self.apply(asker, ask, clock);
            let Some(changes) = changes else {
                return Some(edge::answer(&outcome));
            };
            // The store refuses the commit; the death is committed first.
            let condition = changes.alive.iter().map(|session| session.get());
            if let Some(session) = condition.into_iter().find(|s| dead.contains(s)) {
                let lease_too = false;
                let expire = Ask::Expire { session, lease_too };
                let revision = self.state.head().revision;
                self.ask(asker, &expire, (clock, dead))?;
                if self.state.head().revision == revision {
                    self.found(
                        Check::LiveOwner,
                        "a death changes nothing, and so no end of it",
                    );
                    return None;
                }
                continue;
            }
            let before = self.picture();
            let conditions: Vec<_> = changes.alive.iter().map(|s| s.get()).collect();
            self.commit(changes, clock)?;
            self.findings.extend(judge(&Transition {
                before: &before,
                after: &self.picture(),
                asker,
                ask: *ask,
                clock,
                conditions: &conditions,
                dead,
            }));
            if self.apply(asker, ask, clock).1.is_some() {
                let again = format!("{ask}: once more, and something changes again");
                self.found(Check::Idempotent, &again);
            }
            return Some(edge::answer(&outcome));
        }
    }

    fn apply(&self, asker: Asker, ask: &Ask, clock: u64) -> (Outcome, Option<Changes>) {
        let (issuer, command) = (edge::issuer(asker), edge::command(ask, clock));
        self.rules.apply(&self.state, issuer, &command)
    }

    /// Commits as a store does.
    fn commit(&mut self, changes: Changes, clock: u64) -> Option<()> {
        let head = self.state.head();
        if changes.expected != head.version() {
            self.found(Check::Records, "planned at a revision that is not there");
            return None;
        }
        let snapshot = if changes.remove {
            Snapshot::absent(head.floor_after_removal())
        } else {
            let version = Version::new(changes.expected.revision.next(), Stamp::default());
            let now = Timestamp::from_unix_millis(clock.try_into().unwrap());
            changes.written(version, now)
        };
        if snapshot.exists
            && let Err(reason) = self.state.check(&snapshot)
        {
            self.found(Check::Records, &reason);
            return None;
        }
        match self.state.absorb(&snapshot, |_, _| ()) {
            Ok(Absorb::Applied) => Some(()),
            Ok(other) => {
                self.found(Check::Records, &format!("{other:?}"));
                None
            }
            Err(reason) => {
                self.found(Check::Records, &reason);
                None
            }
        }
    }

    fn found(&mut self, check: Check, what: &str) {
        self.findings.push((check, what.to_owned()));
    }
}
