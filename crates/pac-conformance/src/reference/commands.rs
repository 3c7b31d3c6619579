//! The effect of each command.

use super::{Answer, Ask, Asker, How, Place, Repository, Run, Wish};

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
            Ask::Cancel { name, uid } => self.cancel(asker, name, uid),
            Ask::Requeue { name, token } => self.requeue(asker, name, token),
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
            Ask::SetLimit { limit, claim } => self.set_limit(asker, limit, claim),
            Ask::Unpin => self.unpin(asker),
            Ask::Expire { session, lease_too } => self.expire(asker, session, lease_too),
            Ask::Promote => Answer::Swept(Vec::new(), self.start_all(asker)),
            Ask::Remove => self.remove(),
        }
    }

    /// If the same run is known: its present state. If another run of the name is known: that
    /// one is replaced. If the run is unknown or was given up: it is queued.
    fn admit(&mut self, asker: Asker, wish: Wish) -> Answer {
        let mine = Some(asker.session);
        if let Some(other) = self.run(wish.name)
            && other.uid != wish.uid
            && !wish.durable
        {
            // A process that asks for its own run does not end another process's run of the
            // name.
            let held_by = match other.place {
                Place::Running { session, .. } => Some(session),
                Place::Waiting { owner } => owner,
                Place::Over { .. } => None,
            };
            if let Some(other) = held_by.filter(|session| *session != asker.session) {
                return Answer::HeldElsewhere(other);
            }
        }
        let Some(run) = self.same(wish) else {
            self.comes(wish, Place::Waiting { owner: mine });
            self.start_all(asker);
            return self.stands(wish.name, true);
        };
        match run.place {
            Place::Over { .. } => {}
            Place::Running {
                session, orphaned, ..
            } => {
                if orphaned {
                    let taken_over = self.slot(asker.session);
                    self.put(wish.name, taken_over);
                } else if !run.durable && session != asker.session {
                    return Answer::HeldElsewhere(session);
                }
            }
            Place::Waiting { owner: Some(owner) } if !run.durable && owner != asker.session => {
                return Answer::HeldElsewhere(owner);
            }
            Place::Waiting { owner } => {
                if owner != mine || run.priority != wish.priority {
                    run.place = Place::Waiting { owner: mine };
                    run.priority = wish.priority;
                    self.start_all(asker);
                }
            }
        }
        self.stands(wish.name, false)
    }

    /// The run is running already, so it gets a slot even above the limit.
    fn adopt(&mut self, asker: Asker, wish: Wish) -> Answer {
        let Some(run) = self.same(wish) else {
            let slot = self.slot(asker.session);
            self.comes(wish, slot);
            return self.stands(wish.name, true);
        };
        let looked_after = match run.place {
            Place::Running { orphaned, .. } => !orphaned,
            Place::Over { how, .. } => how != How::Expired,
            Place::Waiting { .. } => false,
        };
        if looked_after {
            return self.stands(wish.name, false);
        }
        let slot = self.slot(asker.session);
        self.put(wish.name, slot);
        self.stands(wish.name, true)
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

    fn cancel(&mut self, asker: Asker, name: u8, uid: Option<u8>) -> Answer {
        match self.place_of(name, uid) {
            None => Answer::Unknown,
            Some(Place::Over { how, .. }) => Answer::EndedBefore(how),
            Some(_) => self.end(asker, name, How::Cancelled, false),
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
            (Some(other), _) if other != asker.session => self.end(asker, name, How::Expired, true),
            _ => self.end(asker, name, How::Cancelled, true),
        }
    }

    /// Returns the run to the place that its ticket gives it.
    fn requeue(&mut self, asker: Asker, name: u8, token: u64) -> Answer {
        match self.place_of(name, None) {
            Some(Place::Running { token: has, .. }) if has == token => self.waits_for(asker, name),
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
        let mut touched = Vec::new();
        for run in &mut self.runs {
            let over = |token| Place::Over {
                how: How::Expired,
                token,
                abandoned: false,
            };
            let after = match run.place {
                Place::Waiting { owner } if owner == Some(dead) => {
                    if run.durable {
                        Place::Waiting { owner: None }
                    } else {
                        over(None)
                    }
                }
                Place::Running { token, session, .. } if session == dead => {
                    if run.durable && !lease_too {
                        Place::Running {
                            token,
                            session,
                            orphaned: true,
                        }
                    } else {
                        over(Some(token))
                    }
                }
                same => same,
            };
            if after != run.place {
                run.place = after;
                touched.push((run.ticket, run.name));
            }
        }
        touched.sort_unstable();
        let touched = touched.into_iter().map(|(_, name)| name).collect();
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
                commits: floor,
                tokens: floor,
                tickets: floor,
                ..Self::default()
            };
        }
        Answer::Removed(live)
    }

    /// Starts the waiting runs that can start, first of the queue first; passes over runs that
    /// have no owner and that the asker cannot start.
    pub(super) fn start_all(&mut self, asker: Asker) -> Vec<u8> {
        let mut started = Vec::new();
        while self.has_room() {
            let next = self.queue().into_iter().find_map(|run| match run.place {
                Place::Waiting { owner: Some(owner) } => Some((run.name, owner)),
                _ if asker.takes_ownerless && run.durable => Some((run.name, asker.session)),
                _ => None,
            });
            let Some((name, session)) = next else { break };
            let slot = self.slot(session);
            self.put(name, slot);
            started.push(name);
        }
        started
    }

    fn waits_for(&mut self, asker: Asker, name: u8) -> Answer {
        let owner = Some(asker.session);
        self.put(name, Place::Waiting { owner });
        self.start_all(asker);
        self.stands(name, false)
    }

    fn end(&mut self, asker: Asker, name: u8, how: How, abandoned: bool) -> Answer {
        let token = match self.place_of(name, None) {
            Some(Place::Running { token, .. }) => Some(token),
            _ => None,
        };
        let over = Place::Over {
            how,
            token,
            abandoned,
        };
        self.put(name, over);
        Answer::Ended(self.start_all(asker))
    }

    /// The run with this name and uid, if it is known and was not given up.
    fn same(&mut self, wish: Wish) -> Option<&mut Run> {
        self.runs.iter_mut().find(|run| {
            let given_up = matches!(
                run.place,
                Place::Over {
                    abandoned: true,
                    ..
                }
            );
            run.name == wish.name && run.uid == wish.uid && !given_up
        })
    }

    /// Adds a run; an earlier run of the name is forgotten.
    fn comes(&mut self, wish: Wish, place: Place) {
        self.runs.retain(|run| run.name != wish.name);
        self.tickets += 1;
        self.runs.push(Run {
            name: wish.name,
            uid: wish.uid,
            durable: wish.durable,
            priority: wish.priority,
            ticket: self.tickets,
            place,
        });
    }

    fn slot(&mut self, session: u64) -> Place {
        self.tokens += 1;
        Place::Running {
            token: self.tokens,
            session,
            orphaned: false,
        }
    }

    fn put(&mut self, name: u8, place: Place) {
        for run in &mut self.runs {
            if run.name == name {
                run.place = place;
            }
        }
    }

    fn place_of(&self, name: u8, uid: Option<u8>) -> Option<Place> {
        let run = self.run(name)?;
        uid.is_none_or(|uid| uid == run.uid).then_some(run.place)
    }

    fn stands(&self, name: u8, created: bool) -> Answer {
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
