//! The small record at the head of a repository.

use crate::value::{FencingToken, Limit, LimitVersion, Revision, Ticket};

/// What every commit to a repository is conditional on and replaces: the limit, the counters
/// that tickets and tokens come from, and how many runs there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Head {
    /// The commit that wrote this head.
    pub revision: Revision,
    /// The limit in force.
    pub limit: Limit,
    /// The version of the newest announcement of a limit; none if none was ever announced.
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
    /// `floor` is the store's highest revision, ticket or token of any repository that was ever
    /// removed from it: counting goes on from there, so that none can come twice under one name.
    #[must_use]
    pub fn absent(floor: u64) -> Self {
        Self {
            revision: Revision::new(floor),
            limit: Limit::UNLIMITED,
            limit_version: None,
            last_ticket: Ticket::new(floor),
            last_token: FencingToken::new(floor),
            queued: 0,
            started: 0,
        }
    }

    /// What the store's floor has to be once the repository of this head is removed.
    #[must_use]
    pub fn floor_after_removal(&self) -> u64 {
        let given_out = self.last_ticket.get().max(self.last_token.get());
        self.revision.next().get().max(given_out)
    }
}
