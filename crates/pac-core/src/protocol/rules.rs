//! The rules of a repository: its limit with what is beside it, who has set it, and pauses.

use super::command::{Claim, Outcome, PauseCondition};
use super::plan::Plan;
use crate::name::Reason;
use crate::state::{Moment, Owner, Pause, Rules, RulesChange};
use crate::value::Limit;

impl Plan<'_> {
    pub(super) fn set_rules(&mut self, change: &RulesChange, claim: Claim) -> Outcome {
        let owner = self.head.owner();
        let pinned = owner == Some(Owner::Pinned);
        let accepted = match claim {
            Claim::Announce(version) => {
                let newer = Some(version) > self.head.limit_version;
                if newer {
                    self.head.limit_version = Some(version);
                }
                if newer && pinned {
                    self.set_beneath(change);
                }
                newer && !pinned
            }
            Claim::Pin => true,
            Claim::Set => !pinned,
            Claim::Propose => match owner {
                None => true,
                Some(Owner::Proposed) => self.head.queued == 0 && self.head.started == 0,
                Some(_) => false,
            },
        };
        if accepted {
            let before = self.head.rules();
            let rules = change.apply(&before);
            if let (Claim::Pin, Some(owner)) = (claim, owner.filter(|_| !pinned)) {
                self.head.policy_mut().beneath = Some((before, owner));
            }
            self.put_in_force(rules);
            let none = self.head.rules() == Rules::default();
            self.note_owner(match claim {
                Claim::Announce(_) => Some(Owner::Announced),
                Claim::Pin => Some(Owner::Pinned),
                // No rules, and nobody who wants them to be kept so.
                Claim::Set | Claim::Propose if none && self.head.limit_version.is_none() => None,
                Claim::Set => Some(Owner::Set),
                Claim::Propose => Some(Owner::Proposed),
            });
        }
        self.limit_set(accepted)
    }

    /// What is announced while rules are pinned comes into force afterwards.
    fn set_beneath(&mut self, change: &RulesChange) {
        let policy = self.head.policy_mut();
        let before = policy.beneath.take().map(|(rules, _)| rules);
        let rules = change.apply(&before.unwrap_or_default());
        policy.beneath = Some((rules, Owner::Announced));
    }

    pub(super) fn unpin(&mut self) -> Outcome {
        let pinned = self.head.owner() == Some(Owner::Pinned);
        if pinned {
            let beneath = self.head.policy_mut().beneath.take();
            let (rules, owner) = match beneath {
                Some((rules, owner)) => (rules, Some(owner)),
                None => (Rules::limit(Limit::UNLIMITED), None),
            };
            self.put_in_force(rules);
            self.note_owner(owner);
        }
        self.limit_set(pinned)
    }

    fn put_in_force(&mut self, rules: Rules) {
        self.head.limit = rules.limit;
        let beside = Rules {
            limit: Limit::UNLIMITED,
            ..rules
        };
        let known = self.head.policy.as_ref().map(|policy| &policy.rules);
        if *known.unwrap_or(&Rules::default()) != beside {
            self.head.policy_mut().rules = beside;
        }
        self.look_again();
    }

    /// Puts down who has set the rules in force, where the other fields of the head do not say so.
    fn note_owner(&mut self, owner: Option<Owner>) {
        if let Some(policy) = &self.head.policy
            && policy.owner.is_some()
        {
            self.head.policy_mut().owner = None;
        }
        if self.head.owner() != owner {
            self.head.policy_mut().owner = owner;
        }
    }

    fn limit_set(&mut self, accepted: bool) -> Outcome {
        Outcome::LimitSet {
            limit: self.head.limit,
            owner: self.head.owner(),
            accepted,
            promoted: if accepted { self.promote() } else { Vec::new() },
        }
    }

    pub(super) fn pause(&mut self, reason: Option<Reason>, only_if: &PauseCondition) -> Outcome {
        let before = self.head.pause();
        let since = before.map(|pause| pause.since);
        let accepted = only_if.holds(before);
        if accepted {
            self.head.policy_mut().pause = Some(Pause {
                since: since.unwrap_or(Moment::AT_COMMIT),
                reason,
            });
        }
        Outcome::Paused {
            before: since.is_some(),
            accepted,
            promoted: Vec::new(),
        }
    }

    pub(super) fn resume(&mut self, only_if: &PauseCondition) -> Outcome {
        let pause = self.head.pause();
        let (before, accepted) = (pause.is_some(), only_if.holds(pause));
        if before && accepted {
            self.head.policy_mut().pause = None;
        }
        Outcome::Paused {
            before,
            accepted,
            promoted: if accepted { self.promote() } else { Vec::new() },
        }
    }
}
