//! Which waiting runs start, and with which slots.

use super::{Asker, Place, Repository, Run};

impl Repository {
    /// Starts the waiting runs that can start, first of the queue first.
    pub(super) fn start_all(&mut self, asker: Asker) -> Vec<u8> {
        let mut started = Vec::new();
        while let Some((name, session)) = self.next_to_start(asker) {
            self.start(name, session);
            started.push(name);
        }
        started
    }

    /// The next run to start, and the session that it is granted to. Passes over runs that have no
    /// owner and that the asker cannot start, and over those that there are not slots enough for.
    /// Where the next one does not fit and backfill is allowed, a lighter one goes before it, which
    /// is counted.
    fn next_to_start(&mut self, asker: Asker) -> Option<(u8, u64)> {
        let queue = self.queue();
        let startable: Vec<_> = queue
            .into_iter()
            .filter(|run| self.has_slots(run.terms.weight))
            .filter_map(|run| Some((run, grantee(run, asker)?)))
            .collect();
        let (first, session) = *startable.first()?;
        if self.has_room(first.terms.weight) {
            return Some((first.name, session));
        }
        if first.passed >= self.rules.backfill {
            return None;
        }
        let mut lighter = startable.iter();
        let (run, session) = lighter.find(|(run, _)| self.has_room(run.terms.weight))?;
        let (name, session, first) = (run.name, *session, first.name);
        self.change(first, |run| run.passed += 1);
        Some((name, session))
    }

    /// Gives a run its slots with the next token. One that runs already goes on with those it has.
    pub(super) fn start(&mut self, name: u8, session: u64) {
        self.tokens += 1;
        let (token, clock) = (self.tokens, self.clock);
        let Some(run) = self.run(name) else { return };
        let slots = match run.terms.numbered && !run.is_running() {
            true => self.free_numbers(run.terms.weight),
            false => run.slots.clone(),
        };
        self.change(name, |run| {
            run.slots = slots;
            run.started = run.started.or(Some(clock));
            run.place = Place::Running {
                token,
                session,
                orphaned: false,
            };
        });
    }

    /// So many of the smallest numbers that no run has.
    fn free_numbers(&self, count: u32) -> Vec<u32> {
        let mut numbers = Vec::new();
        let mut number = 0;
        while numbers.len() < count as usize {
            if !self.runs.iter().any(|run| run.slots.contains(&number)) {
                numbers.push(number);
            }
            number += 1;
        }
        numbers
    }

    /// Ends a run: it has no slots any more.
    pub(super) fn finish(&mut self, name: u8, how: super::How, abandoned: bool) {
        self.change(name, |run| {
            let token = match run.place {
                Place::Running { token, .. } => Some(token),
                Place::Waiting { .. } | Place::Over { .. } => None,
            };
            run.slots.clear();
            run.passed = 0;
            run.place = Place::Over {
                how,
                token,
                abandoned,
            };
        });
    }

    /// Lets a run that has slots wait again, without them.
    pub(super) fn put_back(&mut self, name: u8, owner: Option<u64>) {
        self.change(name, |run| {
            run.slots.clear();
            run.passed = 0;
            run.asked = None;
            run.started = None;
            run.place = Place::Waiting { owner };
        });
    }

    pub(super) fn change(&mut self, name: u8, change: impl FnOnce(&mut Run)) {
        if let Some(run) = self.runs.iter_mut().find(|run| run.name == name) {
            change(run);
        }
    }
}

/// The session that a slot for this waiting run would be granted to.
fn grantee(run: &Run, asker: Asker) -> Option<u64> {
    match run.place {
        Place::Waiting { owner: Some(owner) } => Some(owner),
        _ if asker.takes_ownerless && run.durable => Some(asker.session),
        _ => None,
    }
}
