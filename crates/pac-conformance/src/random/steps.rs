//! Random commands of three parties for one repository, and deaths of their sessions.

use std::fmt;

use proptest::prelude::{BoxedStrategy, Just, Strategy, any};
use proptest_state_machine::ReferenceStateMachine;

use super::deeds::{Deed, deed};
use crate::reference::{Answer, Ask, Asker, Place, Repository};

/// The number of parties.
pub(crate) const PARTIES: usize = 3;

/// One step. It stays meaningful when other steps of the sequence are left out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    party: usize,
    takes_ownerless: bool,
    deed: Deed,
}

/// The reference model, and the sessions of the parties.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) repository: Repository,
    /// Each party's sessions; the last one is alive.
    sessions: Vec<Vec<u64>>,
    opened: u64,
}

/// The meaning of a step in a given state.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    Asked(Asker, Ask),
    Died(u64),
    /// Time has passed, since then.
    Waited(u64),
}

impl World {
    fn new() -> Self {
        let opened = PARTIES as u64;
        Self {
            repository: Repository::default(),
            sessions: (1..=opened).map(|session| vec![session]).collect(),
            opened,
        }
    }

    /// The sessions that are dead.
    pub(crate) fn dead(&self) -> Vec<u64> {
        let former = self.sessions.iter().flat_map(|all| &all[..all.len() - 1]);
        former.copied().collect()
    }

    fn session(&self, party: usize) -> u64 {
        *self.sessions[party].last().unwrap()
    }

    fn session_before(&self, party: usize) -> Option<u64> {
        self.sessions[party].iter().rev().nth(1).copied()
    }

    /// The parties whose previous, dead session still owns runs.
    pub(super) fn unnoticed(&self) -> Vec<usize> {
        let left = |session: u64| {
            self.repository.runs.iter().any(|run| match run.place {
                Place::Waiting { owner } => owner == Some(session),
                Place::Running {
                    session: of,
                    orphaned,
                    ..
                } => of == session && !orphaned,
                Place::Over { .. } => false,
            })
        };
        let died = |party: &usize| self.session_before(*party).is_some_and(left);
        (0..PARTIES).filter(died).collect()
    }

    /// The meaning of a step in this state; `None` when it has none.
    pub(crate) fn event(&self, step: &Step) -> Option<Event> {
        let asker = Asker {
            session: self.session(step.party),
            takes_ownerless: step.takes_ownerless,
        };
        let ask = match step.deed {
            // Two dead sessions that still own runs could be granted each other's slots without
            // end: managers prevent that, but the rules alone cannot.
            Deed::Die if !self.unnoticed().is_empty() => return None,
            Deed::Die => return Some(Event::Died(asker.session)),
            Deed::Admit(wish) => Ask::Admit(wish),
            Deed::Adopt(wish) => Ask::Adopt(wish),
            Deed::Release {
                name,
                uid,
                token,
                how,
            } => Ask::Release {
                name,
                uid,
                token: token.shown(&self.repository, name),
                how,
            },
            Deed::Wait(_) => return Some(Event::Waited(self.repository.clock)),
            Deed::Cancel { name, uid, way } => Ask::Cancel { name, uid, way },
            Deed::CancelAll { which, way } => Ask::CancelAll { which, way },
            Deed::Bump { name, uid, to } => Ask::Bump { name, uid, to },
            Deed::Pause { reason, only_if } => Ask::Pause { reason, only_if },
            Deed::Resume { only_if } => Ask::Resume { only_if },
            Deed::TimeOut => Ask::TimeOut,
            Deed::Requeue { name, token } => Ask::Requeue {
                name,
                token: token.shown(&self.repository, name)?,
            },
            Deed::Disown {
                name,
                token,
                running,
            } => Ask::Disown {
                name,
                token: Some(token.shown(&self.repository, name)?),
                running,
            },
            Deed::Reclaim { name, uid } => Ask::Reclaim {
                name,
                uid,
                former: self.session_before(step.party)?,
            },
            Deed::Abandon {
                name,
                uid,
                owner,
                former,
                token,
            } => {
                let ticket = self.repository.run(name).map_or(0, |run| run.ticket);
                Ask::Abandon {
                    name,
                    uid,
                    owner: self.session(owner),
                    ticket: ticket.saturating_sub(u64::from(former)),
                    token: token.shown(&self.repository, name),
                }
            }
            Deed::SetRules { change, claim } => Ask::SetRules { change, claim },
            Deed::Unpin => Ask::Unpin,
            Deed::Expire { of, lease_too } => Ask::Expire {
                session: self.session_before(of)?,
                lease_too,
            },
            Deed::Promote => Ask::Promote,
            Deed::Remove => Ask::Remove,
        };
        Some(Event::Asked(asker, ask))
    }

    /// Carries a step out. Returns the answer if the step is a command.
    pub(crate) fn take(&mut self, step: &Step) -> Option<Answer> {
        match self.event(step)? {
            Event::Died(_) => {
                self.opened += 1;
                self.sessions[step.party].push(self.opened);
                None
            }
            Event::Waited(since) => {
                if let Deed::Wait(longer) = step.deed {
                    self.repository.clock = since + longer;
                }
                None
            }
            Event::Asked(asker, ask) => Some(self.ask(asker, &ask)),
        }
    }

    /// Applies a command. If it would grant a slot to a dead session, that session expires first
    /// and the command is applied again.
    fn ask(&mut self, asker: Asker, ask: &Ask) -> Answer {
        let dead = self.dead();
        loop {
            let mut after = self.repository.clone();
            let answer = after.ask(asker, ask);
            let mut grants: Vec<_> = after
                .runs
                .iter()
                .filter_map(|run| held(run.place))
                .collect();
            grants.sort_unstable();
            let to_the_dead = grants
                .into_iter()
                .find(|(token, session)| *token > self.repository.tokens && dead.contains(session));
            let Some((_, session)) = to_the_dead else {
                self.repository = after;
                return answer;
            };
            let lease_too = false;
            let expire = Ask::Expire { session, lease_too };
            self.ask(asker, &expire);
        }
    }
}

pub(super) fn held(place: Place) -> Option<(u64, u64)> {
    match place {
        Place::Running { token, session, .. } => Some((token, session)),
        Place::Waiting { .. } | Place::Over { .. } => None,
    }
}

/// Generates the next step: any, but more often one that concerns existing runs.
#[derive(Debug)]
pub(crate) struct Steps;

impl ReferenceStateMachine for Steps {
    type State = World;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<World> {
        Just(World::new()).boxed()
    }

    fn transitions(world: &World) -> BoxedStrategy<Step> {
        (0..PARTIES, any::<bool>(), deed(world))
            .prop_map(|(party, takes_ownerless, deed)| Step {
                party,
                takes_ownerless,
                deed,
            })
            .boxed()
    }

    fn apply(mut world: World, step: &Step) -> World {
        world.take(step);
        world
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asked(asker, ask) => {
                let session = asker.session;
                write!(f, "session {session}: {ask}")?;
                if asker.takes_ownerless {
                    f.write_str(" [takes runs without an owner]")?;
                }
                Ok(())
            }
            Self::Died(session) => write!(f, "session {session} dies"),
            Self::Waited(since) => write!(f, "time has passed since {since}"),
        }
    }
}
