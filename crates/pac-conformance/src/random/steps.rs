//! Random commands of three parties for one repository, and deaths of their sessions.

use std::fmt;

use proptest::prelude::{BoxedStrategy, Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use proptest_state_machine::ReferenceStateMachine;

use crate::reference::{Answer, Ask, Asker, Claim, How, Owner, Place, Repository, Wish};

/// The number of parties.
pub(crate) const PARTIES: usize = 3;
/// The number of run names: few, so that commands concern the same runs.
pub(crate) const NAMES: u8 = 5;

/// One step. It stays meaningful when other steps of the sequence are left out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    party: usize,
    takes_ownerless: bool,
    deed: Deed,
}

#[derive(Debug, Clone, Copy)]
enum Deed {
    Admit(Wish),
    Adopt(Wish),
    Release {
        name: u8,
        uid: u8,
        token: Token,
        how: How,
    },
    Cancel {
        name: u8,
        uid: Option<u8>,
    },
    Requeue {
        name: u8,
        token: Token,
    },
    /// Names the party's previous session as the former owner.
    Reclaim {
        name: u8,
        uid: u8,
    },
    Abandon {
        name: u8,
        uid: u8,
        owner: usize,
        /// Names an earlier ticket of the run.
        former: bool,
        token: Token,
    },
    SetLimit {
        limit: u32,
        claim: Claim,
    },
    Unpin,
    /// The asker records the death of another party's previous session.
    Expire {
        of: usize,
        lease_too: bool,
    },
    Promote,
    Remove,
    /// The party's session dies, and it opens another one.
    Die,
}

/// The token that a command carries.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Token {
    /// The token of the run's slot.
    Right,
    /// The token before that.
    Older,
    /// No token: by force.
    None,
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
    fn unnoticed(&self) -> Vec<usize> {
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
            Deed::Cancel { name, uid } => Ask::Cancel { name, uid },
            Deed::Requeue { name, token } => Ask::Requeue {
                name,
                token: token.shown(&self.repository, name)?,
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
            Deed::SetLimit { limit, claim } => Ask::SetLimit { limit, claim },
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

fn held(place: Place) -> Option<(u64, u64)> {
    match place {
        Place::Running { token, session, .. } => Some((token, session)),
        Place::Waiting { .. } | Place::Over { .. } => None,
    }
}

impl Token {
    /// The token to show. If the run holds no slot, one that it might have held.
    pub(crate) fn shown(self, repository: &Repository, name: u8) -> Option<u64> {
        let held = repository.run(name).and_then(|run| held(run.place));
        let token = held.map_or(repository.tokens, |(token, _)| token);
        match self {
            Self::Right => Some(token),
            Self::Older => Some(token.saturating_sub(1)),
            Self::None => None,
        }
    }

    pub(crate) fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            4 => Just(Self::Right),
            1 => Just(Self::None),
            1 => Just(Self::Older),
        ]
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

fn deed(world: &World) -> impl Strategy<Value = Deed> + use<> {
    let runs = &world.repository.runs;
    let known: Vec<_> = runs.iter().map(|run| run.name).collect();
    let running = runs.iter().filter(|run| held(run.place).is_some());
    let running: Vec<_> = running.map(|run| run.name).collect();
    let name = |among: &[u8]| match among {
        [] => (0..NAMES).boxed(),
        among => prop_oneof![3 => select(among.to_vec()), 1 => 0..NAMES].boxed(),
    };
    // Prefer low limits: without a limit no run waits, and little happens.
    let limited = (1..NAMES.into()).contains(&world.repository.limit);
    let limit = if limited { 2 } else { 10 };
    // A pin keeps others from changing the limit: it is taken back soon.
    let pinned = world.repository.owner == Some(Owner::Pinned);
    let unpin = if pinned { 5 } else { 1 };
    // Make it likely that the death of a session that still owns runs is recorded soon.
    let unnoticed = world.unnoticed();
    let expire = if unnoticed.is_empty() { 1 } else { 6 };
    let of = match unnoticed {
        unnoticed if unnoticed.is_empty() => (0..PARTIES).boxed(),
        unnoticed => select(unnoticed).boxed(),
    };
    let release = (name(&running), any_uid(), Token::any(), any_end());
    let cancel = (name(&known), proptest::option::of(any_uid()));
    prop_oneof![
        10 => any_wish().prop_map(Deed::Admit),
        5 => release.prop_map(|(name, uid, token, how)| Deed::Release { name, uid, token, how }),
        2 => cancel.prop_map(|(name, uid)| Deed::Cancel { name, uid }),
        2 => (name(&running), Token::any())
            .prop_map(|(name, token)| Deed::Requeue { name, token }),
        limit => (any_limit(), any_claim())
            .prop_map(|(limit, claim)| Deed::SetLimit { limit, claim }),
        unpin => Just(Deed::Unpin),
        1 => any_wish().prop_map(Deed::Adopt),
        expire => (of, proptest::bool::weighted(0.3))
            .prop_map(|(of, lease_too)| Deed::Expire { of, lease_too }),
        1 => (name(&known), any_uid()).prop_map(|(name, uid)| Deed::Reclaim { name, uid }),
        2 => (name(&known), any_uid(), 0..PARTIES, proptest::bool::weighted(0.2), Token::any())
            .prop_map(|(name, uid, owner, former, token)| {
                Deed::Abandon { name, uid, owner, former, token }
            }),
        1 => proptest::bool::weighted(0.2)
            .prop_map(|remove| if remove { Deed::Remove } else { Deed::Promote }),
        2 => Just(Deed::Die),
    ]
}

pub(crate) fn any_wish() -> impl Strategy<Value = Wish> {
    let priority = prop_oneof![3 => Just(0), 1 => -1..=1, 1 => any::<i32>()];
    (0..NAMES, any_uid(), any::<bool>(), priority).prop_map(|(name, uid, ephemeral, priority)| {
        Wish {
            name,
            uid,
            durable: !ephemeral,
            priority,
        }
    })
}

/// Mostly the same uid.
pub(crate) fn any_uid() -> impl Strategy<Value = u8> {
    prop_oneof![5 => Just(0), 1 => Just(1)]
}

pub(crate) fn any_limit() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 1..=3_u32, 1 => Just(0), 1 => Just(u32::MAX)]
}

pub(crate) fn any_claim() -> impl Strategy<Value = Claim> {
    prop_oneof![
        5 => Just(Claim::Set),
        5 => (0..4_u64).prop_map(Claim::Announce),
        2 => Just(Claim::Propose),
        1 => Just(Claim::Pin),
    ]
}

pub(crate) fn any_end() -> impl Strategy<Value = How> {
    select(vec![How::Completed, How::Failed, How::Cancelled])
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
        }
    }
}
