//! The head: a small record per repository that every commit compares and replaces.

use crate::value::{FencingToken, Limit, LimitVersion, Revision, Stamp, Ticket, Version};

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
}
