//! The invariants of the protocol, judged on one commit from the state before, the command and
//! the state after. Nothing here uses the protocol's own code.

mod order;
mod reasons;
mod slots;

use std::collections::BTreeSet;

use super::check::Check;
use crate::reference::{Ask, Asker, How, Place, Repository, Run, Wish};

/// One commit.
#[derive(Debug)]
pub(crate) struct Transition<'a> {
    pub(crate) before: &'a Repository,
    pub(crate) after: &'a Repository,
    pub(crate) asker: Asker,
    pub(crate) ask: Ask,
    /// The time of the commit.
    pub(crate) clock: u64,
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
        (Check::Pause, transition.pause()),
        (Check::Order, transition.order()),
        (Check::Bound, transition.bound()),
        (Check::Numbers, transition.numbers()),
        (Check::NothingLost, transition.nothing_lost()),
        (Check::Asked, transition.asked()),
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

    /// Whether the command puts a run that had slots back into the queue.
    fn requeues(&self, run: &Run) -> bool {
        let put_back = match self.ask {
            Ask::Requeue { name, .. } => Some(name),
            Ask::Disown {
                name,
                running: false,
                ..
            } => Some(name),
            _ => None,
        };
        put_back == Some(run.name)
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
        Place::Over { how, abandoned, .. } => {
            abandoned && matches!(how, How::Cancelled | How::LeaseLost | How::QueueFull)
        }
        Place::Waiting { .. } | Place::Running { .. } => false,
    }
}

fn list(runs: &[&Run]) -> String {
    let runs: Vec<_> = runs.iter().map(ToString::to_string).collect();
    runs.join("; ")
}
