//! Runs leave their places, and are asked to, only for a reason.

use super::{Transition, holder};
use crate::reference::{Ask, GRACE, Place, Run, Supersedes, Way, Which};

impl Transition<'_> {
    pub(super) fn nothing_lost(&self) -> Option<String> {
        self.before.runs.iter().find_map(|was| {
            let now = self.after.run(was.name).filter(|now| now.uid == was.uid);
            let stays = now.is_some_and(|now| match was.place {
                Place::Waiting { .. } => !now.is_over(),
                Place::Running { .. } => now.is_running(),
                Place::Over { .. } => true,
            });
            let lost = !(stays || was.is_over() || self.may_leave(was));
            lost.then(|| format!("{was} has left its place without a reason"))
        })
    }

    /// Whether the command may end this run or free its slot.
    fn may_leave(&self, was: &Run) -> bool {
        let is = |name: u8, uid: Option<u8>| name == was.name && uid.is_none_or(|u| u == was.uid);
        let may_end = |way: Way| was.is_waiting() || way == Way::AtOnce;
        match self.ask {
            Ask::Adopt(wish) => wish.name == was.name && wish.uid != was.uid,
            Ask::Admit(wish) => {
                (wish.name == was.name && wish.uid != was.uid) || self.supersedes(was)
            }
            Ask::Release {
                name, uid, token, ..
            } => {
                let held = holder(was).is_some_and(|(has, _)| token.is_none_or(|t| t == has));
                held && is(name, Some(uid))
            }
            Ask::Cancel { name, uid, way } => is(name, uid) && may_end(way),
            Ask::CancelAll { which, way } => is_among(was, which) && may_end(way),
            Ask::TimeOut => self.is_late(was),
            Ask::Requeue { name, token } => {
                is(name, None) && holder(was).is_some_and(|(has, _)| has == token)
            }
            Ask::Disown {
                name,
                token,
                running,
            } => {
                let ours = (token, Some(self.asker.session));
                let held = holder(was).is_some_and(|(has, of)| ours == (Some(has), Some(of)));
                !running && held && is(name, None)
            }
            Ask::Abandon {
                name,
                uid,
                owner,
                ticket,
                token,
            } => {
                let whose = was.session();
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
            Ask::Reclaim { .. }
            | Ask::SetRules { .. }
            | Ask::Unpin
            | Ask::Bump { .. }
            | Ask::Pause { .. }
            | Ask::Resume { .. }
            | Ask::Promote => false,
        }
    }

    /// Whether a run has waited for as long as it may, or was asked to end long enough ago.
    fn is_late(&self, was: &Run) -> bool {
        let longest = match was.place {
            Place::Waiting { .. } => was.terms.max_wait.map(|longest| was.queued + longest),
            Place::Running { .. } => self.hold_is_over(was).then(|| {
                let asked = was.asked.unwrap_or(self.clock);
                asked + GRACE
            }),
            Place::Over { .. } => None,
        };
        longest.is_some_and(|until| until <= self.clock)
    }

    fn hold_is_over(&self, was: &Run) -> bool {
        let since = was.started.unwrap_or(self.clock);
        let longest = was.terms.max_hold;
        longest.is_some_and(|longest| since + longest <= self.clock)
    }

    /// A holder is asked to end for a reason, once, and stays asked.
    pub(super) fn asked(&self) -> Option<String> {
        let held = self.after.runs.iter().filter(|run| run.is_running());
        held.into_iter().find_map(|run| {
            let was = self.was(run).filter(|was| was.is_running());
            let was = was.filter(|_| !self.requeues(run));
            let before = was.and_then(|was| was.asked);
            match (before, run.asked) {
                (before, now) if before == now => None,
                (None, Some(at)) if at == self.clock && was.is_some_and(|w| self.may_ask(w)) => {
                    None
                }
                // It was over, and is taken up again.
                (None, Some(_)) if was.is_none() && self.was(run).is_some_and(Run::is_over) => None,
                (before, _) => Some(format!("{run}, and before it was {before:?}")),
            }
        })
    }

    fn may_ask(&self, was: &Run) -> bool {
        match self.ask {
            Ask::Cancel { name, uid, way } => {
                let meant = name == was.name && uid.is_none_or(|uid| uid == was.uid);
                meant && way == Way::Ask
            }
            Ask::CancelAll { which, way } => way == Way::Ask && is_among(was, which),
            Ask::TimeOut => self.hold_is_over(was),
            Ask::Admit(wish) => {
                let same_group = was.terms.group.is_some() && was.terms.group == wish.terms.group;
                wish.supersedes == Supersedes::All && same_group
            }
            _ => false,
        }
    }
}

fn is_among(run: &Run, which: Which) -> bool {
    let of_group = which
        .group
        .is_none_or(|group| run.terms.group == Some(group));
    of_group && which.before.is_none_or(|before| run.queued < before)
}
