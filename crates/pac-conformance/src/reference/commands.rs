//! The effect of each command.

use super::{Answer, Ask, Asker, How, Place, Repository, Run};

impl Repository {
    /// Carries a command out, and returns the answer.
    pub(crate) fn ask(&mut self, asker: Asker, ask: &Ask) -> Answer {
        let before = self.clone();
        let answer = self.answer(asker, ask);
        if *self != before && *ask != Ask::Remove {
            self.commits += 1;
            self.exists = true;
        }
        answer
    }

    fn answer(&mut self, asker: Asker, ask: &Ask) -> Answer {
        match *ask {
            Ask::Admit(wish) => self.admit(asker, wish),
            Ask::Adopt(wish) => self.adopt(asker, wish),
            Ask::Release {
                name,
                uid,
                token,
                how,
            } => self.release(asker, (name, uid), token, how),
            Ask::Cancel { name, uid, way } => self.cancel(asker, (name, uid), way),
            Ask::CancelAll { which, way } => self.cancel_all(asker, which, way),
            Ask::Bump { name, uid, to } => self.bump(asker, (name, uid), to),
            Ask::Pause { reason, only_if } => self.pause(reason, only_if),
            Ask::Resume { only_if } => self.resume(asker, only_if),
            Ask::TimeOut => self.time_out(asker),
            Ask::Requeue { name, token } => self.requeue(asker, name, token),
            Ask::Disown {
                name,
                token,
                running,
            } => self.disown(asker, name, token, running),
            Ask::Reclaim { name, uid, former } => self.reclaim(asker, (name, uid), former),
            Ask::Abandon {
                name,
                uid,
                owner,
                ticket,
                token,
            } => {
                let same = self.run(name).is_some_and(|run| run.ticket == ticket);
                if !same {
                    return Answer::Unknown;
                }
                self.abandon(asker, (name, uid), owner, token)
            }
            Ask::SetRules { change, claim } => self.set_rules(asker, change, claim),
            Ask::Unpin => self.unpin(asker),
            Ask::Expire { session, lease_too } => self.expire(asker, session, lease_too),
            Ask::Promote => Answer::Swept(Vec::new(), self.start_all(asker)),
            Ask::Remove => self.remove(),
        }
    }

    /// Only with the token of its slot, or by force.
    fn release(
        &mut self,
        asker: Asker,
        (name, uid): (u8, u8),
        token: Option<u64>,
        how: How,
    ) -> Answer {
        match self.place_of(name, Some(uid)) {
            None => Answer::Unknown,
            Some(Place::Waiting { .. }) => Answer::NotStarted,
            Some(Place::Over { how, .. }) => Answer::EndedBefore(how),
            Some(Place::Running { token: has, .. }) if token.is_some_and(|token| token != has) => {
                Answer::Stale(has)
            }
            Some(Place::Running { .. }) => self.end(asker, name, how, false),
        }
    }

    /// Unless another session owns the run.
    fn abandon(
        &mut self,
        asker: Asker,
        (name, uid): (u8, u8),
        owner: u64,
        token: Option<u64>,
    ) -> Answer {
        let place = self.place_of(name, Some(uid));
        let whose = match place {
            None => return Answer::Unknown,
            Some(Place::Over { how, .. }) => return Answer::EndedBefore(how),
            Some(Place::Waiting { owner }) => owner,
            Some(Place::Running { session, .. }) => Some(session),
        };
        match (whose, place) {
            (Some(other), _) if other != owner && other != asker.session => Answer::Unknown,
            (_, Some(Place::Waiting { .. })) if token.is_some() => Answer::NotStarted,
            (_, Some(Place::Running { token: has, .. })) if token.is_some_and(|t| t != has) => {
                Answer::Stale(has)
            }
            (Some(other), _) if other != asker.session => {
                self.end(asker, name, How::LeaseLost, true)
            }
            _ => self.end(asker, name, How::Cancelled, true),
        }
    }

    /// Returns the run to the place that its ticket gives it.
    fn requeue(&mut self, asker: Asker, name: u8, token: u64) -> Answer {
        match self.place_of(name, None) {
            Some(Place::Running { token: has, .. }) if has == token => {
                self.put_back(name, Some(asker.session));
                self.start_all(asker);
                self.stands(name, false)
            }
            _ => Answer::NotHeld,
        }
    }

    /// Leaves a run of the asker's to any controller: waiting again, or running on as an orphan.
    fn disown(&mut self, asker: Asker, name: u8, token: Option<u64>, running: bool) -> Answer {
        match self.place_of(name, None) {
            Some(Place::Running {
                token: has,
                session,
                orphaned: false,
            }) if session == asker.session && token.is_none_or(|token| token == has) => {
                if running {
                    let orphan = Place::Running {
                        token: has,
                        session,
                        orphaned: true,
                    };
                    self.change(name, |run| run.place = orphan);
                } else {
                    self.put_back(name, None);
                    self.start_all(asker);
                }
                self.stands(name, false)
            }
            _ => Answer::NotHeld,
        }
    }

    fn reclaim(&mut self, asker: Asker, (name, uid): (u8, u8), former: u64) -> Answer {
        let durable = self.run(name).is_some_and(|run| run.durable);
        match self.place_of(name, Some(uid)) {
            Some(Place::Waiting { owner }) if durable && owner.is_none_or(|o| o == former) => {
                self.waits_for(asker, name)
            }
            _ => Answer::NotHeld,
        }
    }

    fn expire(&mut self, asker: Asker, dead: u64, lease_too: bool) -> Answer {
        let mut of_the_dead: Vec<_> = self.runs.clone();
        of_the_dead.retain(|run| run.session() == Some(dead));
        of_the_dead.sort_by_key(|run| run.ticket);
        let mut touched = Vec::new();
        for run in of_the_dead {
            let after = match run.place {
                Place::Waiting { .. } if run.durable => Some(Place::Waiting { owner: None }),
                Place::Running { token, .. } if run.durable && !lease_too => Some(Place::Running {
                    token,
                    session: dead,
                    orphaned: true,
                }),
                _ => None,
            };
            if after == Some(run.place) {
                continue;
            }
            touched.push(run.name);
            match after {
                None => self.finish(run.name, How::LeaseLost, false),
                Some(place) => self.change(run.name, |run| run.place = place),
            }
        }
        Answer::Swept(touched, self.start_all(asker))
    }

    /// The counters continue, for a repository of the same name.
    fn remove(&mut self) -> Answer {
        let live = |run: &&Run| !matches!(run.place, Place::Over { .. });
        let mut live: Vec<_> = self.runs.iter().filter(live).collect();
        live.sort_by_key(|run| run.ticket);
        let live = live.into_iter().map(|run| run.name).collect();
        if self.exists {
            let floor = (self.commits + 1).max(self.tokens).max(self.tickets);
            *self = Self {
                clock: self.clock,
                commits: floor,
                tokens: floor,
                tickets: floor,
                ..Self::default()
            };
        }
        Answer::Removed(live)
    }

    fn waits_for(&mut self, asker: Asker, name: u8) -> Answer {
        let place = Place::Waiting {
            owner: Some(asker.session),
        };
        self.change(name, |run| run.place = place);
        self.start_all(asker);
        self.stands(name, false)
    }

    pub(super) fn end(&mut self, asker: Asker, name: u8, how: How, abandoned: bool) -> Answer {
        self.finish(name, how, abandoned);
        Answer::Ended(self.start_all(asker))
    }

    pub(super) fn place_of(&self, name: u8, uid: Option<u8>) -> Option<Place> {
        let run = self.run(name)?;
        uid.is_none_or(|uid| uid == run.uid).then_some(run.place)
    }
}
