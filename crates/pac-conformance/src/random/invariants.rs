//! The invariants of the protocol, judged on one commit from the state before, the command and
//! the state after. Nothing here uses the protocol's own code.

use std::collections::BTreeSet;

use super::check::Check;
use crate::reference::{Ask, Asker, How, Owner, Place, Repository, Run, Wish};

/// One commit.
#[derive(Debug)]
pub(crate) struct Transition<'a> {
    pub(crate) before: &'a Repository,
    pub(crate) after: &'a Repository,
    pub(crate) asker: Asker,
    pub(crate) ask: Ask,
    /// The other sessions that must be alive for the commit to be accepted.
    pub(crate) conditions: &'a [u64],
    /// The dead sessions.
    pub(crate) dead: &'a [u64],
}

/// The violated checks, with descriptions.
pub(crate) type Findings = Vec<(Check, String)>;

/// Judges a commit.
pub(crate) fn judge(transition: &Transition<'_>) -> Findings {
    let judged = [
        (Check::Limit, transition.limit()),
        (Check::Order, transition.order()),
        (Check::NothingLost, transition.nothing_lost()),
        (Check::NoIdleSlot, transition.no_idle_slot()),
        (Check::Fencing, transition.fencing()),
        (Check::LiveOwner, transition.live_owner()),
    ];
    let broken = judged.into_iter();
    broken
        .filter_map(|(check, how)| Some((check, how?)))
        .collect()
}

impl Transition<'_> {
    fn limit(&self) -> Option<String> {
        let after = self.after;
        let started: Vec<_> = self.started().collect();
        if !started.is_empty() && after.limit > 0 && after.running() > after.limit as usize {
            let (running, limit) = (after.running(), after.limit);
            return Some(format!("{running} run within a limit of {limit}"));
        }
        let allowed = match self.ask {
            Ask::SetLimit { claim, .. } => self.before.gives_way_to(claim),
            Ask::Unpin => self.before.owner == Some(Owner::Pinned),
            Ask::Remove => true,
            _ => false,
        };
        let (before, now) = (self.before.limit, after.limit);
        (before != now && !allowed)
            .then(|| format!("the limit went from {before} to {now} although another claim holds"))
    }

    fn order(&self) -> Option<String> {
        let rank = |run: &Run| (-i64::from(run.priority), run.ticket);
        let mut started: Vec<_> = self.started().collect();
        started.sort_by_key(|run| token(run));
        if !started.is_sorted_by_key(|run| rank(run)) {
            return Some(format!("started out of order: {}", list(&started)));
        }
        for waiting in self.after.queue() {
            if let Some(run) = started.iter().find(|run| rank(run) > rank(waiting))
                && self.grantee(waiting).is_some()
            {
                return Some(format!("{run} has overtaken {waiting}"));
            }
        }
        self.after.runs.iter().find_map(|run| match self.was(run) {
            Some(was) if was.ticket == run.ticket => None,
            Some(was) if !given_up(was) => {
                Some(format!("{run} has another ticket than {}", was.ticket))
            }
            _ => (run.ticket <= self.before.tickets || run.ticket > self.after.tickets)
                .then(|| format!("{run} has come with a ticket that is not new")),
        })
    }

    fn nothing_lost(&self) -> Option<String> {
        self.before.runs.iter().find_map(|was| {
            let now = self.after.run(was.name).filter(|now| now.uid == was.uid);
            let stays = now.is_some_and(|now| {
                matches!(
                    (was.place, now.place),
                    (Place::Waiting { .. }, Place::Waiting { .. })
                        | (
                            Place::Waiting { .. } | Place::Running { .. },
                            Place::Running { .. }
                        )
                )
            });
            let over = matches!(was.place, Place::Over { .. });
            let lost = !(stays || over || self.may_leave(was));
            let has_left = || format!("{was} has left its place without a reason");
            lost.then(has_left)
        })
    }

    /// Whether the command may end this run or free its slot.
    fn may_leave(&self, was: &Run) -> bool {
        let is = |name: u8, uid: Option<u8>| name == was.name && uid.is_none_or(|u| u == was.uid);
        match self.ask {
            Ask::Admit(wish) | Ask::Adopt(wish) => wish.name == was.name && wish.uid != was.uid,
            Ask::Release {
                name, uid, token, ..
            } => {
                let held = holder(was).is_some_and(|(has, _)| token.is_none_or(|t| t == has));
                held && is(name, Some(uid))
            }
            Ask::Cancel { name, uid } => is(name, uid),
            Ask::Requeue { name, token } => {
                is(name, None) && holder(was).is_some_and(|(has, _)| has == token)
            }
            Ask::Abandon {
                name,
                uid,
                owner,
                ticket,
                token,
            } => {
                let whose = match was.place {
                    Place::Waiting { owner } => owner,
                    Place::Running { session, .. } => Some(session),
                    Place::Over { .. } => None,
                };
                let ours = whose.is_none_or(|of| of == owner || of == self.asker.session);
                let held = holder(was).map(|(has, _)| has);
                let granted = token.is_none_or(|token| Some(token) == held);
                ours && granted && ticket == was.ticket && is(name, Some(uid))
            }
            Ask::Expire { session, lease_too } => match was.place {
                Place::Waiting { owner } => owner == Some(session) && !was.durable,
                Place::Running { session: of, .. } => of == session && (lease_too || !was.durable),
                Place::Over { .. } => true,
            },
            Ask::Remove => true,
            Ask::Reclaim { .. } | Ask::SetLimit { .. } | Ask::Unpin | Ask::Promote => false,
        }
    }

    fn no_idle_slot(&self) -> Option<String> {
        let waits_for_a_live_one = |run: &&&Run| match run.place {
            Place::Waiting { owner: Some(owner) } => !self.dead.contains(&owner),
            _ => false,
        };
        let queue = self.after.queue();
        let waiting = queue.iter().find(waits_for_a_live_one);
        let idle = waiting.filter(|_| self.after.has_room());
        idle.map(|run| format!("a slot is free and {run}"))
    }

    fn fencing(&self) -> Option<String> {
        let (before, after) = (self.before, self.after);
        if after.tokens < before.tokens {
            return Some(format!(
                "the last token went back from {} to {}",
                before.tokens, after.tokens
            ));
        }
        let mut seen = BTreeSet::new();
        after.runs.iter().find_map(|run| {
            let (token, session) = holder(run)?;
            if !seen.insert(token) {
                return Some(format!("{run}, and so does another run"));
            }
            match self.was(run).and_then(holder) {
                Some((same, _)) if same == token => None,
                Some((_, of))
                    if of == session && !self.dead.contains(&of) && !self.requeues(run) =>
                {
                    let what = "has got another token behind its holder's back";
                    Some(format!("{run} {what}"))
                }
                _ => (token <= before.tokens || token > after.tokens)
                    .then(|| format!("{run}, which is no new token")),
            }
        })
    }

    fn live_owner(&self) -> Option<String> {
        self.after.runs.iter().find_map(|run| {
            let (token, session) = holder(run)?;
            let was = self.was(run);
            if was.and_then(holder).is_some_and(|(same, _)| same == token) {
                return None;
            }
            if self.dead.contains(&session) {
                return Some(format!("{run}, which is dead"));
            }
            if session != self.asker.session && !self.conditions.contains(&session) {
                return Some(format!("{run}, whether that lives or not"));
            }
            let owner = match was.map(|was| was.place) {
                Some(Place::Waiting { owner }) if !self.takes_for_itself(run) => {
                    let owner = owner.filter(|owner| !self.expires(*owner));
                    if owner.is_none() && !self.may_take(run) {
                        return Some(format!("{run}, which cannot start what it did not admit"));
                    }
                    owner.unwrap_or(self.asker.session)
                }
                _ => self.asker.session,
            };
            (owner != session).then(|| format!("{run} instead of session {owner}"))
        })
    }

    /// The runs that this commit granted a slot, without an adopted one.
    fn started(&self) -> impl Iterator<Item = &Run> {
        let adopted = match self.ask {
            Ask::Adopt(Wish { name, .. }) => Some(name),
            _ => None,
        };
        let newly = move |run: &&Run| {
            let ran = self.was(run).and_then(holder);
            // Requeued and, being first in the queue, started again.
            let again =
                self.requeues(run) && ran.is_some_and(|(before, _)| Some(before) != token(run));
            (ran.is_none() || again) && adopted != Some(run.name)
        };
        let running = self.after.runs.iter().filter(|run| token(run).is_some());
        running.filter(newly)
    }

    fn requeues(&self, run: &Run) -> bool {
        matches!(self.ask, Ask::Requeue { name, .. } if name == run.name)
    }

    /// The entry of the same name and uid before the commit.
    fn was(&self, run: &Run) -> Option<&Run> {
        let was = self.before.run(run.name)?;
        (was.uid == run.uid).then_some(was)
    }

    /// The session that a slot for a waiting run should be granted to.
    fn grantee(&self, run: &Run) -> Option<u64> {
        match run.place {
            Place::Waiting { owner: Some(owner) } => Some(owner),
            _ => self.may_take(run).then_some(self.asker.session),
        }
    }

    fn expires(&self, owner: u64) -> bool {
        matches!(self.ask, Ask::Expire { session, .. } if session == owner)
    }

    fn may_take(&self, run: &Run) -> bool {
        self.takes_for_itself(run) || (self.asker.takes_ownerless && run.durable)
    }

    /// Whether the command makes the asker the owner of this run.
    fn takes_for_itself(&self, run: &Run) -> bool {
        match self.ask {
            Ask::Admit(wish) | Ask::Adopt(wish) => wish.name == run.name && wish.uid == run.uid,
            Ask::Requeue { name, .. } | Ask::Reclaim { name, .. } => name == run.name,
            _ => false,
        }
    }
}

fn holder(run: &Run) -> Option<(u64, u64)> {
    match run.place {
        Place::Running { token, session, .. } => Some((token, session)),
        Place::Waiting { .. } | Place::Over { .. } => None,
    }
}

fn token(run: &Run) -> Option<u64> {
    holder(run).map(|(token, _)| token)
}

/// Whether the run was given up, so that it may come again as a new run.
fn given_up(run: &Run) -> bool {
    match run.place {
        Place::Over { how, abandoned, .. } => abandoned && how == How::Cancelled,
        Place::Waiting { .. } | Place::Running { .. } => false,
    }
}

fn list(runs: &[&Run]) -> String {
    let runs: Vec<_> = runs.iter().map(ToString::to_string).collect();
    runs.join("; ")
}
