//! What the parties of the random commands do: any command, but more often one that concerns
//! existing runs.

use proptest::option;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;

use super::steps::{PARTIES, World, held};
use crate::reference::{
    Bump, Change, Claim, GRACE, How, Owner, Paused, Repository, Skip, Supersedes, Terms, Way,
    Which, Wish,
};

/// The number of run names: few, so that commands concern the same runs.
pub(crate) const NAMES: u8 = 5;

#[derive(Debug, Clone, Copy)]
pub(super) enum Deed {
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
        way: Way,
    },
    CancelAll {
        which: Which,
        way: Way,
    },
    Bump {
        name: u8,
        uid: Option<u8>,
        to: Bump,
    },
    Pause {
        reason: Option<u8>,
        only_if: Paused,
    },
    Resume {
        only_if: Paused,
    },
    /// Ends what has waited or run for too long.
    TimeOut,
    /// So much time passes.
    Wait(u64),
    Requeue {
        name: u8,
        token: Token,
    },
    Disown {
        name: u8,
        token: Token,
        running: bool,
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
    SetRules {
        change: Change,
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

pub(super) fn deed(world: &World) -> impl Strategy<Value = Deed> + use<> {
    let runs = &world.repository.runs;
    let known: Vec<_> = runs.iter().map(|run| run.name).collect();
    let running = runs.iter().filter(|run| held(run.place).is_some());
    let running: Vec<_> = running.map(|run| run.name).collect();
    let waiting = runs.iter().filter(|run| run.is_waiting());
    let waiting: Vec<_> = waiting.map(|run| run.name).collect();
    let name = |among: &[u8]| match among {
        [] => (0..NAMES).boxed(),
        among => prop_oneof![3 => select(among.to_vec()), 1 => 0..NAMES].boxed(),
    };
    // Prefer low limits: without a limit no run waits, and little happens.
    let limited = (1..NAMES.into()).contains(&world.repository.rules.limit);
    let rules = if limited { 3 } else { 10 };
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
    let cancel = (name(&known), option::of(any_uid()), any_way());
    let bump = (name(&waiting), option::of(any_uid()), any_bump());
    // A pause ends soon, or little happens.
    let paused = world.repository.paused.is_some();
    let resume = if paused { 5 } else { 1 };
    let clock = world.repository.clock;
    // Make it likely that those whose time is limited meet its end, and that those of a group that
    // wait are superseded.
    let is_timed = world.repository.timed() > 0;
    let late = if is_timed { 4 } else { 1 };
    let waiting = runs.iter().filter(|run| run.is_waiting());
    let groups: Vec<_> = waiting.filter_map(|run| run.terms.group).collect();
    let supersede = if groups.is_empty() { 1 } else { 5 };
    prop_oneof![
        12 => timed(any_wish()).prop_map(Deed::Admit),
        5 => release.prop_map(|(name, uid, token, how)| Deed::Release { name, uid, token, how }),
        2 => cancel.prop_map(|(name, uid, way)| Deed::Cancel { name, uid, way }),
        2 => bump.prop_map(|(name, uid, to)| Deed::Bump { name, uid, to }),
        resume => any_pause().prop_map(|only_if| Deed::Resume { only_if }),
        3 => operation(clock),
        late => prop_oneof![Just(Deed::TimeOut), (4..8_u64).prop_map(Deed::Wait)],
        supersede => superseding(groups).prop_map(Deed::Admit),
        2 => (name(&running), Token::any())
            .prop_map(|(name, token)| Deed::Requeue { name, token }),
        rules => (any_change(), any_claim())
            .prop_map(|(change, claim)| Deed::SetRules { change, claim }),
        unpin => Just(Deed::Unpin),
        1 => timed(any_wish()).prop_map(Deed::Adopt),
        expire => (of, proptest::bool::weighted(0.3))
            .prop_map(|(of, lease_too)| Deed::Expire { of, lease_too }),
        1 => (name(&running), Token::any(), any::<bool>())
            .prop_map(|(name, token, running)| Deed::Disown { name, token, running }),
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

/// What an operator, or time, does to more than one run.
fn operation(clock: u64) -> impl Strategy<Value = Deed> {
    let before = option::of(clock.saturating_sub(10)..=clock + 1);
    let which = (any_group(), before).prop_map(|(group, before)| Which { group, before });
    prop_oneof![
        2 => (any_reason(), any_pause())
            .prop_map(|(reason, only_if)| Deed::Pause { reason, only_if }),
        2 => (which, any_way()).prop_map(|(which, way)| Deed::CancelAll { which, way }),
        1 => Just(Deed::TimeOut),
        2 => (1..8_u64).prop_map(Deed::Wait),
        1 => Just(Deed::Wait(GRACE)),
    ]
}

pub(crate) fn any_wish() -> impl Strategy<Value = Wish> {
    let priority = prop_oneof![3 => Just(0), 1 => -1..=1, 1 => any::<i32>()];
    let plain = (0..NAMES, any_uid(), any::<bool>(), priority);
    let plain = plain.prop_map(|(name, uid, ephemeral, priority)| Wish {
        name,
        uid,
        durable: !ephemeral,
        priority,
        terms: Terms::NONE,
        supersedes: Supersedes::None,
        skip_if: None,
    });
    let weight = prop_oneof![3 => Just(1), 2 => 2..=4_u32];
    let supersedes = select(vec![Supersedes::None, Supersedes::Waiting, Supersedes::All]);
    let skip_if = prop_oneof![
        8 => Just(None),
        1 => Just(Some(Skip::Waiting)),
        1 => Just(Some(Skip::Running)),
    ];
    let wishes = (weight, any_group(), any::<bool>(), supersedes, skip_if);
    // Half of them ask for nothing, as nearly all do.
    (plain, option::of(wishes)).prop_map(|(plain, wishes)| match wishes {
        None => plain,
        Some((weight, group, numbered, supersedes, skip_if)) => Wish {
            terms: Terms {
                weight,
                group,
                numbered,
                ..Terms::NONE
            },
            supersedes,
            skip_if,
            ..plain
        },
    })
}

/// One that supersedes those of one of these groups.
fn superseding(groups: Vec<u8>) -> impl Strategy<Value = Wish> {
    let group = match groups {
        groups if groups.is_empty() => (0..2_u8).boxed(),
        groups => select(groups).boxed(),
    };
    let supersedes = select(vec![Supersedes::Waiting, Supersedes::All]);
    (any_wish(), group, supersedes).prop_map(|(wish, group, supersedes)| Wish {
        terms: Terms {
            group: Some(group),
            ..wish.terms
        },
        supersedes,
        ..wish
    })
}

/// The same, some of them for a time only.
fn timed(wish: impl Strategy<Value = Wish>) -> impl Strategy<Value = Wish> {
    let longest = || prop_oneof![3 => Just(None), 1 => (1..8_u64).prop_map(Some)];
    (wish, longest(), longest()).prop_map(|(wish, max_wait, max_hold)| Wish {
        terms: Terms {
            max_wait,
            max_hold,
            ..wish.terms
        },
        ..wish
    })
}

pub(crate) fn any_reason() -> impl Strategy<Value = Option<u8>> {
    option::of(0..2_u8)
}

pub(crate) fn any_pause() -> impl Strategy<Value = Paused> {
    let paused = |number| match number {
        0..4 => Paused::Any,
        4 => Paused::No,
        5 => Paused::For(None),
        number => Paused::For(Some(number - 6)),
    };
    (0..8_u8).prop_map(paused)
}

pub(crate) fn any_group() -> impl Strategy<Value = Option<u8>> {
    option::of(0..2_u8)
}

pub(crate) fn any_way() -> impl Strategy<Value = Way> {
    select(vec![Way::AtOnce, Way::IfWaiting, Way::Ask])
}

pub(crate) fn any_bump() -> impl Strategy<Value = Bump> {
    let to = prop_oneof![3 => -2..=2, 1 => any::<i32>()];
    prop_oneof![Just(Bump::First), to.prop_map(Bump::To), Just(Bump::Back)]
}

/// Mostly of the limit alone.
pub(crate) fn any_change() -> impl Strategy<Value = Change> {
    let limit = prop_oneof![8 => any_limit().prop_map(Some), 1 => Just(None)];
    let most_waiting = prop_oneof![4 => Just(None), 1 => option::of(0..3_u32).prop_map(Some)];
    let backfill = prop_oneof![4 => Just(None), 3 => (0..=3_u32).prop_map(Some)];
    (limit, most_waiting, backfill).prop_map(|(limit, most_waiting, backfill)| Change {
        limit,
        most_waiting,
        backfill,
    })
}

/// Mostly the same uid.
pub(crate) fn any_uid() -> impl Strategy<Value = u8> {
    prop_oneof![5 => Just(0), 1 => Just(1)]
}

pub(crate) fn any_limit() -> impl Strategy<Value = u32> {
    prop_oneof![8 => 1..=4_u32, 1 => Just(0), 1 => Just(u32::MAX)]
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
