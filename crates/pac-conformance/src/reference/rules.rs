//! The limit, and who has set it.

use super::{Answer, Asker, Claim, Owner, Repository};

impl Repository {
    pub(super) fn set_limit(&mut self, asker: Asker, limit: u32, claim: Claim) -> Answer {
        let accepted = self.gives_way_to(claim);
        let pinned = self.owner == Some(Owner::Pinned);
        if let Claim::Announce(version) = claim
            && self.announced.is_none_or(|announced| version > announced)
        {
            self.announced = Some(version);
            if pinned {
                self.beneath = Some((limit, Owner::Announced));
            }
        }
        if accepted {
            if claim == Claim::Pin && !pinned {
                self.beneath = self.owner.map(|owner| (self.limit, owner));
            }
            self.limit = limit;
            self.owner = match claim {
                Claim::Announce(_) => Some(Owner::Announced),
                Claim::Pin => Some(Owner::Pinned),
                // Nobody has to keep that there is no limit.
                Claim::Set | Claim::Propose if limit == 0 && self.announced.is_none() => None,
                Claim::Set => Some(Owner::Set),
                Claim::Propose => Some(Owner::Proposed),
            };
        }
        self.limit_in_force(asker, accepted)
    }

    /// Whether a limit that is set with this claim would be in force.
    pub(crate) fn gives_way_to(&self, claim: Claim) -> bool {
        let pinned = self.owner == Some(Owner::Pinned);
        match claim {
            Claim::Pin => true,
            Claim::Set => !pinned,
            Claim::Announce(version) => {
                !pinned && self.announced.is_none_or(|announced| version > announced)
            }
            Claim::Propose => match self.owner {
                None => true,
                Some(Owner::Proposed) => self.running() == 0 && self.queue().is_empty(),
                Some(_) => false,
            },
        }
    }

    pub(super) fn unpin(&mut self, asker: Asker) -> Answer {
        let pinned = self.owner == Some(Owner::Pinned);
        if pinned {
            let beneath = self.beneath.take();
            self.limit = beneath.map_or(0, |(limit, _)| limit);
            self.owner = beneath.map(|(_, owner)| owner);
        }
        self.limit_in_force(asker, pinned)
    }

    fn limit_in_force(&mut self, asker: Asker, accepted: bool) -> Answer {
        let started = match accepted {
            true => self.start_all(asker),
            false => Vec::new(),
        };
        Answer::Limit(self.limit, self.owner, accepted, started)
    }
}
