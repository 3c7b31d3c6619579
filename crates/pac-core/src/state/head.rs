//! The head: a small record per repository that every commit compares and replaces.

use crate::value::{
    FencingToken, Limit, LimitVersion, MAX_COUNTER, MAX_FLOOR, Revision, Stamp, Ticket, Version,
};

/// The limit of a repository, the counters that tickets and tokens are taken from, and the
/// number of its runs. Every commit is conditional on the head's version and replaces the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
        }
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
