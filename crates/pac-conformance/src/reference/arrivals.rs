//! What becomes of a run that is asked for.

use super::slots::grantee;
use super::{Answer, Asker, How, Place, Repository, Run, Skip, Supersedes, Wish};

impl Repository {
    /// If the same run is known: its present state. If another run of the name is known: that
    /// one is replaced. If the run is unknown or may come again: it is queued.
    pub(super) fn admit(&mut self, asker: Asker, wish: Wish) -> Answer {
        let mine = Some(asker.session);
        if let Some(other) = self.run(wish.name)
            && other.uid != wish.uid
            && !wish.durable
            && let Some(session) = other.session()
            && session != asker.session
        {
            // A process that asks for its own run does not end another process's run of the
            // name.
            return Answer::HeldElsewhere(session);
        }
        let Some(run) = self.same(wish) else {
            return self.comes_to_the_queue(asker, wish);
        };
        match run.place {
            Place::Over { .. } => {}
            Place::Running {
                session, orphaned, ..
            } => {
                // Given back by the asker itself, it still has it.
                if orphaned && session != asker.session {
                    self.start(wish.name, asker.session);
                } else if !run.durable && session != asker.session {
                    return Answer::HeldElsewhere(session);
                }
            }
            Place::Waiting { owner: Some(owner) } if !run.durable && owner != asker.session => {
                return Answer::HeldElsewhere(owner);
            }
            Place::Waiting { owner } => {
                let wants = run.wanted.unwrap_or(run.priority);
                let (weight, was) = (wish.terms.weight, run.terms.weight);
                if weight > was && !self.has_slots(weight) {
                    return Answer::TooHeavy(weight, self.rules.limit);
                }
                if owner != mine || wants != wish.priority || run.terms != wish.terms {
                    // What an operator has moved stays where it is.
                    let moved = run.wanted.is_some();
                    self.change(wish.name, |run| {
                        run.place = Place::Waiting { owner: mine };
                        run.terms = wish.terms;
                        if !moved {
                            run.priority = wish.priority;
                        }
                        run.wanted = Some(wish.priority).filter(|wanted| *wanted != run.priority);
                    });
                    self.start_all(asker);
                }
            }
        }
        self.stands(wish.name, false)
    }

    fn comes_to_the_queue(&mut self, asker: Asker, wish: Wish) -> Answer {
        if let Some(refusal) = self.refusal(asker, wish) {
            if matches!(refusal, Answer::QueueFull(_)) {
                self.note_refusal(wish);
            }
            return refusal;
        }
        let superseded = self.superseded(wish);
        // It goes before nobody whom it would have come after.
        let as_urgent = |run: &&Run| run.wanted.unwrap_or(run.priority) >= wish.priority;
        let places = superseded.iter().filter(as_urgent).map(|run| run.ticket);
        let place = places.min();
        for run in superseded {
            self.finish(run.name, How::Superseded, false);
        }
        if wish.supersedes == Supersedes::All {
            let of_group = |run: &&Run| {
                run.name != wish.name && run.is_running() && is_of_the_group(run, wish)
            };
            let running = self.runs.iter().filter(of_group).map(|run| run.name);
            for name in running.collect::<Vec<_>>() {
                self.ask_to_end(name);
            }
        }
        let owner = Some(asker.session);
        self.comes(wish, Place::Waiting { owner }, place);
        self.start_all(asker);
        self.stands(wish.name, true)
    }

    /// Why a run that would come to the queue is not let in.
    fn refusal(&self, asker: Asker, wish: Wish) -> Option<Answer> {
        if !self.has_slots(wish.terms.weight) {
            return Some(Answer::TooHeavy(wish.terms.weight, self.rules.limit));
        }
        // A run of its name makes room for it.
        let mut others = self.clone();
        others.runs.retain(|run| run.name != wish.name);
        let (waiting, running) = (others.queue().len(), others.running());
        let counted = |count: usize| u32::try_from(count).unwrap();
        let skipped = match wish.skip_if {
            None => false,
            Some(Skip::Waiting) => waiting > 0,
            Some(Skip::Running) => waiting > 0 || running > 0,
        };
        if skipped {
            return Some(Answer::Skipped(counted(waiting), counted(running)));
        }
        let would_start =
            |run: &&Run| others.has_slots(run.terms.weight) && grantee(run, asker).is_some();
        let behind_others = others.queue().iter().any(would_start);
        let waits = behind_others || !others.has_room(wish.terms.weight);
        let most = self.rules.most_waiting?;
        let full = waits && counted(waiting) >= most && self.superseded(wish).is_empty();
        full.then(|| Answer::QueueFull(counted(waiting)))
    }

    /// Keeps in the history that a run was refused, unless that is there or a run of its name waits
    /// or runs.
    fn note_refusal(&mut self, wish: Wish) {
        let is_there = self.run(wish.name).is_some_and(|known| match known.place {
            Place::Over { how, .. } => known.uid == wish.uid && how == How::QueueFull,
            Place::Waiting { .. } | Place::Running { .. } => true,
        });
        if !is_there {
            let refused = Place::Over {
                how: How::QueueFull,
                token: None,
                abandoned: true,
            };
            self.comes(wish, refused, None);
        }
    }

    /// The waiting runs that a request ends, next first.
    fn superseded(&self, wish: Wish) -> Vec<Run> {
        let mut queue = self.queue();
        queue.retain(|run| {
            let supersedes = wish.supersedes != Supersedes::None;
            supersedes && run.name != wish.name && is_of_the_group(run, wish)
        });
        queue.into_iter().cloned().collect()
    }

    /// The run is running already, so it gets its slots even above the limit.
    pub(super) fn adopt(&mut self, asker: Asker, wish: Wish) -> Answer {
        let Some(run) = self.same(wish) else {
            let owner = Some(asker.session);
            self.comes(wish, Place::Waiting { owner }, None);
            self.start(wish.name, asker.session);
            // The run that had the name may have taken more slots.
            self.start_all(asker);
            return self.stands(wish.name, true);
        };
        let looked_after = match run.place {
            Place::Running {
                orphaned, session, ..
            } => !orphaned || session == asker.session,
            Place::Over { how, .. } => how != How::LeaseLost,
            Place::Waiting { .. } => false,
        };
        if looked_after {
            return self.stands(wish.name, false);
        }
        self.start(wish.name, asker.session);
        self.stands(wish.name, true)
    }

    /// The run with this name and uid, if it is known and may not come again.
    fn same(&self, wish: Wish) -> Option<Run> {
        let may_come_again = |run: &&Run| {
            let Place::Over { abandoned, .. } = run.place else {
                return false;
            };
            abandoned
        };
        let known = self.run(wish.name).filter(|run| run.uid == wish.uid);
        known.filter(|run| !may_come_again(run)).cloned()
    }

    /// Adds a run, in the place that was given up for it or in a new one; an earlier run of the name
    /// is forgotten.
    fn comes(&mut self, wish: Wish, place: Place, ticket: Option<u64>) {
        self.runs.retain(|run| run.name != wish.name);
        let ticket = ticket.unwrap_or_else(|| {
            self.tickets += 1;
            self.tickets
        });
        self.runs.push(Run {
            name: wish.name,
            uid: wish.uid,
            durable: wish.durable,
            priority: wish.priority,
            wanted: None,
            ticket,
            terms: wish.terms,
            queued: self.clock,
            started: None,
            asked: None,
            passed: 0,
            slots: Vec::new(),
            place,
        });
    }

    pub(super) fn stands(&self, name: u8, created: bool) -> Answer {
        let Some(run) = self.run(name) else {
            return Answer::NotHeld;
        };
        match run.place {
            Place::Waiting { .. } => Answer::Waits {
                ticket: run.ticket,
                created,
            },
            Place::Running { token, session, .. } => Answer::Runs {
                token,
                session,
                created,
            },
            Place::Over { how, .. } => Answer::Finished(how),
        }
    }
}

fn is_of_the_group(run: &Run, wish: Wish) -> bool {
    run.terms.group.is_some() && run.terms.group == wish.terms.group
}
