//! The head: a small record per repository that every commit compares and replaces.

use std::sync::Arc;

use super::entry::{Entry, EntryState};
use super::policy::{Owner, Pause, Policy, Rules};
use super::terms::Weight;
use crate::value::{
    FencingToken, Limit, LimitVersion, MAX_COUNTER, MAX_FLOOR, Revision, Stamp, Ticket, Timestamp,
    Version,
};

/// The limit of a repository, the counters that tickets and tokens are taken from, and the
/// number of its runs. Every commit is conditional on the head's version and replaces the head.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Head {
    /// The revision of the commit that wrote this head.
    pub revision: Revision,
    /// The stamp of that commit.
    pub stamp: Stamp,
    /// The limit in force.
    pub limit: Limit,
    /// The version of the newest announced limit; `None` if none was announced.
    pub limit_version: Option<LimitVersion>,
    /// The last ticket given out.
    pub last_ticket: Ticket,
    /// The last fencing token given out.
    pub last_token: FencingToken,
    /// How many runs wait.
    pub queued: u32,
    /// How many runs hold a slot, orphans among them.
    pub started: u32,
    /// What the repository has beside a limit; `None` where that is nothing, and never was anything.
    pub policy: Option<Arc<Policy>>,
}

impl Head {
    /// The head of a repository that has no state in the store.
    ///
    /// `floor` is the highest revision, ticket or token of any repository that was ever removed
    /// from the store. Counting continues from there, so that none of them is given out twice
    /// for one repository.
    #[must_use]
    pub fn absent(floor: u64) -> Self {
        Self {
            revision: Revision::new(floor),
            stamp: Stamp::default(),
            limit: Limit::UNLIMITED,
            limit_version: None,
            last_ticket: Ticket::new(floor),
            last_token: FencingToken::new(floor),
            queued: 0,
            started: 0,
            policy: None,
        }
    }

    /// Puts in what the commit that writes this head gives it: its version, and the store's time in
    /// place of [`Moment::AT_COMMIT`](super::Moment::AT_COMMIT).
    pub fn stamp(&mut self, version: Version, now: Timestamp) {
        self.revision = version.revision;
        self.stamp = version.stamp;
        if let Some(policy) = &mut self.policy
            && policy.pause.is_some()
        {
            Arc::make_mut(policy).stamp(now);
        }
    }

    /// The pause, while nothing is started.
    #[must_use]
    pub fn pause(&self) -> Option<&Pause> {
        self.policy.as_ref()?.pause.as_ref()
    }

    /// The rules in force.
    #[must_use]
    pub fn rules(&self) -> Rules {
        let beside = self.policy.as_ref().map(|policy| policy.rules.clone());
        Rules {
            limit: self.limit,
            ..beside.unwrap_or_default()
        }
    }

    /// Who has set the rules in force; `None` if nobody ever did.
    #[must_use]
    pub fn owner(&self) -> Option<Owner> {
        let told = self.policy.as_ref().and_then(|policy| policy.owner);
        told.or(match self.limit_version {
            Some(_) => Some(Owner::Announced),
            None => self.limit.get().map(|_| Owner::Set),
        })
    }

    /// How many slots the runs that hold some take beyond one each.
    #[must_use]
    pub fn surplus(&self) -> u32 {
        self.policy.as_ref().map_or(0, |policy| policy.surplus)
    }

    /// How many slots are taken.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.started.saturating_add(self.surplus())
    }

    /// Whether one more run of this weight may start: nothing is paused, and there are as many slots
    /// left.
    #[must_use]
    pub fn admits(&self, weight: Weight) -> bool {
        self.pause().is_none() && self.limit.admits_all(self.slots(), weight.get().into())
    }

    /// Whether there are as many slots as a run of this weight takes, taken or not.
    #[must_use]
    pub fn has_slots_for(&self, weight: Weight) -> bool {
        self.limit.admits_all(0, weight.get().into())
    }

    /// Whether the first waiting run that can be started may start.
    #[must_use]
    pub fn could_start(&self) -> bool {
        let needs = self.policy.as_ref().map_or(0, |policy| policy.needs);
        let pause = self.pause();
        let taken = self.slots().saturating_add(needs);
        self.queued > 0 && pause.is_none() && self.limit.admits(taken)
    }

    /// Counts a run that this head is to count.
    pub(crate) fn count(&mut self, entry: &Entry) {
        match entry.state {
            EntryState::Queued { .. } => {
                self.queued = self.queued.saturating_add(1);
                if entry.weight() != Weight::ONE {
                    // What the first of them needs has to be put down.
                    self.policy_mut();
                }
            }
            EntryState::Started { .. } => {
                self.started = self.started.saturating_add(1);
                self.count_surplus(entry, u32::saturating_add);
            }
            EntryState::Finished { .. } => return,
        }
        if entry.terms().is_timed() {
            let timed = &mut self.policy_mut().timed;
            *timed = timed.saturating_add(1);
        }
    }

    /// Takes back that a run was counted.
    pub(crate) fn discount(&mut self, entry: &Entry) {
        match entry.state {
            EntryState::Queued { .. } => self.queued = self.queued.saturating_sub(1),
            EntryState::Started { .. } => {
                self.started = self.started.saturating_sub(1);
                self.count_surplus(entry, u32::saturating_sub);
            }
            EntryState::Finished { .. } => return,
        }
        if entry.terms().is_timed() {
            let timed = &mut self.policy_mut().timed;
            *timed = timed.saturating_sub(1);
        }
    }

    fn count_surplus(&mut self, entry: &Entry, count: impl FnOnce(u32, u32) -> u32) {
        let surplus = entry.weight().surplus();
        if surplus > 0 {
            let policy = self.policy_mut();
            policy.surplus = count(policy.surplus, surplus);
        }
    }

    /// The policy, to be changed; an empty one if there was none.
    pub(crate) fn policy_mut(&mut self) -> &mut Policy {
        Arc::make_mut(self.policy.get_or_insert_default())
    }

    /// The version of the state that this head is part of.
    #[must_use]
    pub fn version(&self) -> Version {
        Version::new(self.revision, self.stamp)
    }

    /// The floor that the store needs once this repository is removed.
    #[must_use]
    pub fn floor_after_removal(&self) -> u64 {
        let given_out = self.last_ticket.get().max(self.last_token.get());
        self.revision.next().get().max(given_out)
    }

    /// Checks that no counter is above [`MAX_COUNTER`]: the next number would be near the end of
    /// what stores can hold, where two runs would get the same one.
    ///
    /// # Errors
    /// A sentence with the counter, its value, the rule and the cure.
    pub fn check_counters(&self) -> Result<(), String> {
        let counters = [
            ("revision", self.revision.get()),
            ("last ticket", self.last_ticket.get()),
            ("last fencing token", self.last_token.get()),
        ];
        match counters.into_iter().find(|(_, at)| *at > MAX_COUNTER) {
            None => Ok(()),
            Some((counter, at)) => Err(format!(
                "its {counter} is {at}, and must be at most {MAX_COUNTER} (2^62), which counting \
                 does not come to: another program wrote it, or it was damaged; restore the \
                 records of the repository from a backup, or delete them"
            )),
        }
    }

    /// Checks that the repository may be removed: the floor of the store would be at most
    /// [`MAX_FLOOR`], so that all others go on.
    ///
    /// # Errors
    /// A sentence with the value, the rule and the cure.
    pub fn check_removal(&self) -> Result<(), String> {
        let floor = self.floor_after_removal();
        if floor <= MAX_FLOOR {
            return Ok(());
        }
        Err(format!(
            "its counters are at {floor}; a repository can be removed up to {MAX_FLOOR} (2^61), \
             because all others would count on from there: restore its records from a backup, or \
             delete them"
        ))
    }
}

/// The floor of the store: the number from which repositories that do not exist count on.
pub(crate) fn check_absent(floor: &Head) -> Result<(), String> {
    floor.check_counters().map_err(|_| {
        let at = floor.last_ticket.get().max(floor.last_token.get());
        format!(
            "the repository does not exist, and the store says that new ones count on from \
             {at}, which must be at most {MAX_COUNTER} (2^62): another program wrote it, or it was \
             damaged; set it to the largest fencing token that is known"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ticket: u64, token: u64, revision: u64) -> Head {
        Head {
            revision: Revision::new(revision),
            last_ticket: Ticket::new(ticket),
            last_token: FencingToken::new(token),
            ..Head::absent(0)
        }
    }

    #[test]
    fn a_counter_that_was_never_counted_is_named_with_rule_and_cure() {
        let most = MAX_COUNTER;
        at(most, most, most).check_counters().unwrap();
        for (head, counter) in [
            (at(most + 1, 0, 0), "last ticket"),
            (at(0, u64::MAX, 0), "last fencing token"),
            (at(0, 0, most + 1), "revision"),
        ] {
            let reason = head.check_counters().unwrap_err();
            for part in [counter, "at most 4611686018427387904", "backup"] {
                assert!(reason.contains(part), "{reason}");
            }
        }
        let reason = check_absent(&at(u64::MAX, 0, 7)).unwrap_err();
        assert!(reason.contains("new ones count on"), "{reason}");
    }

    #[test]
    fn what_a_removal_leaves_behind_has_room_for_all_others() {
        at(MAX_FLOOR, 1, MAX_FLOOR - 1).check_removal().unwrap();
        for head in [at(MAX_FLOOR + 1, 0, 0), at(0, MAX_COUNTER, 0)] {
            let reason = head.check_removal().unwrap_err();
            assert!(reason.contains("2305843009213693952"), "{reason}");
        }
    }
}
