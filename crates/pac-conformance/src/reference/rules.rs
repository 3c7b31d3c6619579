//! The rules, and the party that has set them; pauses.

use super::{Answer, Asker, Change, Claim, Owner, Paused, Repository, Rules};

impl Repository {
    pub(super) fn set_rules(&mut self, asker: Asker, change: Change, claim: Claim) -> Answer {
        let accepted = self.gives_way_to(claim);
        let pinned = self.owner == Some(Owner::Pinned);
        if let Claim::Announce(version) = claim
            && self.announced.is_none_or(|announced| version > announced)
        {
            self.announced = Some(version);
            if pinned {
                let before = self.beneath.map_or(Rules::default(), |(rules, _)| rules);
                self.beneath = Some((change.of(before), Owner::Announced));
            }
        }
        if accepted {
            if claim == Claim::Pin && !pinned {
                self.beneath = self.owner.map(|owner| (self.rules, owner));
            }
            self.rules = change.of(self.rules);
            let none = self.rules == Rules::default() && self.announced.is_none();
            self.owner = match claim {
                Claim::Announce(_) => Some(Owner::Announced),
                Claim::Pin => Some(Owner::Pinned),
                // Nobody has to keep that there are no rules.
                Claim::Set | Claim::Propose if none => None,
                Claim::Set => Some(Owner::Set),
                Claim::Propose => Some(Owner::Proposed),
            };
        }
        self.limit_in_force(asker, accepted)
    }

    /// Whether rules that are set with this claim would be in force.
    fn gives_way_to(&self, claim: Claim) -> bool {
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
            self.rules = beneath.map_or(Rules::default(), |(rules, _)| rules);
            self.owner = beneath.map(|(_, owner)| owner);
        }
        self.limit_in_force(asker, pinned)
    }

    fn limit_in_force(&mut self, asker: Asker, accepted: bool) -> Answer {
        let started = match accepted {
            true => self.start_all(asker),
            false => Vec::new(),
        };
        Answer::Limit(self.rules.limit, self.owner, accepted, started)
    }

    /// Paused already, it gets another reason.
    pub(super) fn pause(&mut self, reason: Option<u8>, only_if: Paused) -> Answer {
        let before = self.paused;
        if !self.is_paused_as(only_if) {
            return Answer::Paused(before.is_some(), false, Vec::new());
        }
        let since = before.map_or(self.clock, |(since, _)| since);
        self.paused = Some((since, reason));
        Answer::Paused(before.is_some(), true, Vec::new())
    }

    pub(super) fn resume(&mut self, asker: Asker, only_if: Paused) -> Answer {
        if !self.is_paused_as(only_if) {
            return Answer::Paused(self.paused.is_some(), false, Vec::new());
        }
        let before = self.paused.take().is_some();
        Answer::Paused(before, true, self.start_all(asker))
    }

    fn is_paused_as(&self, wanted: Paused) -> bool {
        match (wanted, self.paused) {
            (Paused::Any, _) | (Paused::No, None) => true,
            (Paused::For(wanted), Some((_, reason))) => wanted == reason,
            (Paused::No, Some(_)) | (Paused::For(_), None) => false,
        }
    }
}
