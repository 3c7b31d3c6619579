//! The order of grants, and what may come of it.

use super::{Transition, given_up, list, token};
use crate::reference::{Ask, How, Place, Run, Supersedes};

impl Transition<'_> {
    pub(super) fn order(&self) -> Option<String> {
        let mut started: Vec<_> = self.started().collect();
        started.sort_by_key(|run| token(run));
        if !started.is_sorted_by_key(|run| run.rank()) {
            return Some(format!("started out of order: {}", list(&started)));
        }
        self.overtaken(&started).or_else(|| self.tickets())
    }

    /// A waiting run that could have started is overtaken by none, or where that is allowed by few
    /// that are lighter than it.
    fn overtaken(&self, started: &[&Run]) -> Option<String> {
        let mut waiting = self.after.queue();
        waiting.retain(|run| self.grantee(run).is_some() && self.after.has_slots(run.terms.weight));
        let most = self.after.rules.backfill;
        for (at, waiting) in waiting.into_iter().enumerate() {
            let before_it = started.iter().filter(|run| run.rank() > waiting.rank());
            let before_it: Vec<&Run> = before_it.copied().collect();
            let Some(overtakes) = before_it.first() else {
                continue;
            };
            let lighter = |run: &&Run| run.terms.weight < waiting.terms.weight;
            if most == 0 || !before_it.iter().all(lighter) {
                return Some(format!("{overtakes} has overtaken {waiting}"));
            }
            let was = self.was(waiting).filter(|was| was.is_waiting());
            let counted = waiting.passed - was.map_or(0, |was| was.passed);
            if at == 0 && (counted as usize != before_it.len() || waiting.passed > most) {
                let many = list(&before_it);
                return Some(format!("{waiting} has been overtaken by {many}, of {most}"));
            }
        }
        None
    }

    /// A ticket is new, or was given up for the run that has it.
    fn tickets(&self) -> Option<String> {
        self.after.runs.iter().find_map(|run| match self.was(run) {
            Some(was) if was.ticket == run.ticket => None,
            Some(was) if !given_up(was) => {
                Some(format!("{run} has another ticket than {}", was.ticket))
            }
            _ if self.is_place_of_superseded(run) => None,
            _ => (run.ticket <= self.before.tickets || run.ticket > self.after.tickets)
                .then(|| format!("{run} has come with a ticket that is not new")),
        })
    }

    /// Whether it has the place of the first of those that it superseded.
    fn is_place_of_superseded(&self, run: &Run) -> bool {
        let mut queue = self.before.queue();
        queue.retain(|was| self.supersedes(was));
        let first = queue.first().map(|first| first.ticket);
        matches!(self.ask, Ask::Admit(wish) if wish.name == run.name) && first == Some(run.ticket)
    }

    /// Whether the command ends this run for its group's sake.
    pub(super) fn supersedes(&self, was: &Run) -> bool {
        let Ask::Admit(wish) = self.ask else {
            return false;
        };
        let same_group = was.terms.group.is_some() && was.terms.group == wish.terms.group;
        let now = self.after.run(was.name);
        let ended = now.is_some_and(|now| {
            matches!(
                now.place,
                Place::Over {
                    how: How::Superseded,
                    ..
                }
            )
        });
        let meant = wish.name != was.name && wish.supersedes != Supersedes::None;
        meant && same_group && was.is_waiting() && ended && self.newcomer(wish.name).is_some()
    }
}
