//! How many slots are taken, which, and how many wait for one.

use super::{Transition, token};
use crate::reference::{Ask, Claim, Owner, Paused, Place, Run};

impl Transition<'_> {
    pub(super) fn limit(&self) -> Option<String> {
        let (taken, limit) = (self.after.taken(), self.after.rules.limit);
        if limit > 0 && taken > limit && self.started().next().is_some() {
            return Some(format!("{taken} slots are taken within a limit of {limit}"));
        }
        let heavy = |run: &&Run| limit > 0 && run.terms.weight > limit && run.is_waiting();
        if let Ask::Admit(wish) = self.ask
            && let Some(run) = self.newcomer(wish.name).filter(heavy)
        {
            return Some(format!("{run} has come within a limit of {limit}"));
        }
        let (before, now) = (self.before, self.after);
        if self.may_set_rules() {
            return None;
        }
        let same = (before.rules, before.owner) == (now.rules, now.owner);
        let what = "although another claim holds";
        (!same).then(|| format!("{} has become {} {what}", before.rules, now.rules))
    }

    /// Whether the rules in force may be others afterwards.
    fn may_set_rules(&self) -> bool {
        let before = self.before;
        match (self.ask, before.owner) {
            (Ask::Remove, _) => true,
            (Ask::Unpin, owner) => owner == Some(Owner::Pinned),
            (Ask::SetRules { claim, .. }, owner) => match (claim, owner) {
                (Claim::Pin, _) => true,
                (_, Some(Owner::Pinned)) => false,
                (Claim::Announce(version), _) => before.announced.is_none_or(|was| version > was),
                (Claim::Set, _) | (Claim::Propose, None) => true,
                (Claim::Propose, Some(Owner::Proposed)) => before.runs.iter().all(Run::is_over),
                (Claim::Propose, _) => false,
            },
            _ => false,
        }
    }

    pub(super) fn pause(&self) -> Option<String> {
        let (before, after) = (self.before.paused, self.after.paused);
        if after.is_some()
            && let Some(run) = self.started().next()
        {
            return Some(format!("{run} in spite of the pause"));
        }
        let may_change = match self.ask {
            Ask::Pause { only_if, .. } | Ask::Resume { only_if } => match only_if {
                Paused::Any => true,
                Paused::No => before.is_none(),
                Paused::For(reason) => before.is_some_and(|(_, known)| known == reason),
            },
            Ask::Remove => true,
            _ => false,
        };
        let same = before == after || may_change;
        (!same).then(|| format!("the pause was {before:?} and is {after:?}"))
    }

    /// No more wait than may, unless they did before or the bound is a new one.
    pub(super) fn bound(&self) -> Option<String> {
        let Ask::Admit(wish) = self.ask else {
            return None;
        };
        let most = self.after.rules.most_waiting?;
        let (before, now) = (self.before.queue().len(), self.after.queue().len());
        let comes = self.newcomer(wish.name).is_some_and(Run::is_waiting);
        let full = now > before && now > most as usize;
        (comes && full).then(|| format!("{now} wait where {most} may"))
    }

    /// Each holder that asks for numbers has as many as slots, the smallest that were free.
    pub(super) fn numbers(&self) -> Option<String> {
        let mut used = Vec::new();
        let mut granted = Vec::new();
        for run in self.after.runs.iter().filter(|run| run.terms.numbered) {
            if !run.is_running() {
                if !run.slots.is_empty() {
                    return Some(format!("{run} has numbers, and no slots"));
                }
                continue;
            }
            let was = self.was(run).filter(|was| was.is_running());
            match was.filter(|_| !self.requeues(run)) {
                Some(was) if was.slots == run.slots => used.extend(&run.slots),
                Some(was) => return Some(format!("{run} had the slots {:?}", was.slots)),
                None => granted.push(run),
            }
        }
        granted.sort_by_key(|run| token(run));
        for run in granted {
            let free = (0..).filter(|number| !used.contains(number));
            let smallest: Vec<u32> = free.take(run.terms.weight as usize).collect();
            if run.slots != smallest {
                return Some(format!("{run}, and {smallest:?} were free"));
            }
            used.extend(smallest);
        }
        None
    }

    /// A free slot, and a run that could start in it.
    pub(super) fn no_idle_slot(&self) -> Option<String> {
        let mut queue = self.after.queue();
        let has_grantee = |run: &Run| match run.place {
            Place::Waiting { owner: Some(_) } => true,
            _ => self.may_take(run),
        };
        queue.retain(|run| self.after.has_slots(run.terms.weight) && has_grantee(run));
        let first = *queue.first()?;
        let backfill = first.passed < self.after.rules.backfill;
        // One without a live owner starts once a manager has noticed.
        let lives = |run: &Run| {
            run.session()
                .is_some_and(|owner| !self.dead.contains(&owner))
        };
        let fits = |run: &&&Run| self.after.has_room(run.terms.weight) && lives(run);
        let candidates = if backfill { &queue[..] } else { &queue[..1] };
        let idle = candidates.iter().find(fits);
        idle.map(|run| format!("slots are free and {run}"))
    }

    /// The run of this name, if it has come with the command.
    pub(super) fn newcomer(&self, name: u8) -> Option<&Run> {
        let run = self.after.run(name)?;
        let was_there = self.was(run).is_some_and(|was| !was.is_over());
        (!was_there).then_some(run)
    }
}
