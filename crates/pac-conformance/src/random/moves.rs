//! Random use of managers: the calls of three processes on one repository, and their failures.

use std::fmt;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{BoxedStrategy, Just, Strategy, any, prop_oneof};

use super::deeds::{
    NAMES, Token, any_bump, any_change, any_claim, any_end, any_group, any_pause, any_reason,
    any_uid, any_way, any_wish,
};
use super::steps::PARTIES;
use crate::reference::{Bump, Change, Claim, How, Paused, Way, Wish};

/// The most moves of a sequence.
const MOVES: usize = 20;

/// The connection between the managers and the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// No connection: the store answers at once.
    Direct,
    /// A connection that can be cut.
    Gated,
    /// Like `Gated`, and slow, with commits in batches.
    Distant,
}

/// One move. It stays meaningful when other moves of the sequence are left out.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Move {
    /// One process makes a call.
    One(usize, Deed),
    /// Two processes make a call at the same time.
    Both((usize, Deed), (usize, Deed)),
    /// A process admits a run, and drops the call after a number of polls.
    Impatient(usize, Wish, usize),
    /// A process drops one of its waiters.
    DropWaiter(usize, usize),
    /// A process detaches one of its waiters: the grant then comes on its stream of grants.
    Detach(usize, usize),
    /// A process drops one of its leases.
    DropLease(usize, usize),
    /// A process releases one of its leases.
    Release(usize, usize, How),
    /// A process requeues one of its leases.
    Requeue(usize, usize),
    /// A process closes its manager, and a new process replaces it.
    Close(usize),
    /// A process loses its connection for good, and a new process replaces it.
    Crash(usize),
    /// A process is disconnected for longer than its session lives.
    CutOff(usize),
    /// The lease TTL passes.
    LeaseTtl,
}

/// A call that names a run or the repository.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deed {
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
        group: Option<u8>,
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
    SetRules {
        change: Change,
        claim: Claim,
    },
    Unpin,
    Remove,
}

/// A connection, and moves over it.
pub(crate) fn moves() -> impl Strategy<Value = (Line, Vec<Move>)> {
    let line = prop_oneof![Just(Line::Direct), Just(Line::Gated), Just(Line::Distant)];
    (line, vec(one_move(), 1..=MOVES))
}

fn one_move() -> impl Strategy<Value = Move> {
    let party = || 0..PARTIES;
    let which = || 0..3_usize;
    prop_oneof![
        16 => (party(), deed()).prop_map(|(party, deed)| Move::One(party, deed)),
        4 => ((party(), deed()), (party(), deed())).prop_map(|(a, b)| Move::Both(a, b)),
        2 => (party(), any_wish(), 0..80_usize)
            .prop_map(|(party, wish, polls)| Move::Impatient(party, wish, polls)),
        2 => (party(), which()).prop_map(|(party, which)| Move::DropWaiter(party, which)),
        1 => (party(), which()).prop_map(|(party, which)| Move::Detach(party, which)),
        1 => (party(), which()).prop_map(|(party, which)| Move::DropLease(party, which)),
        5 => (party(), which(), any_end())
            .prop_map(|(party, which, how)| Move::Release(party, which, how)),
        2 => (party(), which()).prop_map(|(party, which)| Move::Requeue(party, which)),
        1 => party().prop_map(Move::Close),
        1 => party().prop_map(Move::Crash),
        1 => party().prop_map(Move::CutOff),
        1 => proptest::bool::weighted(0.2)
            .prop_map(|long| if long { Move::LeaseTtl } else { Move::Crash(0) }),
    ]
}

/// Boxed: within the other strategies, it would take more of the stack than a test has.
fn deed() -> BoxedStrategy<Deed> {
    let name = || 0..NAMES;
    let low = (1..=2_u32, any_change()).prop_map(|(limit, change)| Change {
        limit: Some(limit),
        ..change
    });
    let change = prop_oneof![4 => low, 1 => any_change()];
    prop_oneof![
        10 => any_wish().prop_map(Deed::Admit),
        1 => any_wish().prop_map(Deed::Adopt),
        3 => (name(), any_uid(), Token::any(), any_end())
            .prop_map(|(name, uid, token, how)| Deed::Release { name, uid, token, how }),
        2 => (name(), option::of(any_uid()), any_way())
            .prop_map(|(name, uid, way)| Deed::Cancel { name, uid, way }),
        1 => (name(), option::of(any_uid()), any_bump())
            .prop_map(|(name, uid, to)| Deed::Bump { name, uid, to }),
        2 => operation(),
        5 => (change, any_claim())
            .prop_map(|(change, claim)| Deed::SetRules { change, claim }),
        1 => any::<bool>().prop_map(|remove| match remove {
            true => Deed::Remove,
            false => Deed::Unpin,
        }),
    ]
    .boxed()
}

fn operation() -> impl Strategy<Value = Deed> {
    prop_oneof![
        2 => (any_reason(), any_pause())
            .prop_map(|(reason, only_if)| Deed::Pause { reason, only_if }),
        4 => any_pause().prop_map(|only_if| Deed::Resume { only_if }),
        1 => (any_group(), any_way()).prop_map(|(group, way)| Deed::CancelAll { group, way }),
    ]
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(party, deed) => write!(f, "process {party}: {deed}"),
            Self::Both((one, a), (other, b)) => {
                write!(
                    f,
                    "process {one}: {a} | at the same time process {other}: {b}"
                )
            }
            Self::Impatient(party, wish, polls) => {
                write!(
                    f,
                    "process {party}: admit {wish}, and gone after {polls} polls"
                )
            }
            Self::DropWaiter(party, which) => {
                write!(f, "process {party}: drop the waiter in place {which}")
            }
            Self::Detach(party, which) => {
                write!(f, "process {party}: detach the waiter in place {which}")
            }
            Self::DropLease(party, which) => {
                write!(f, "process {party}: drop the lease in place {which}")
            }
            Self::Release(party, which, how) => {
                write!(
                    f,
                    "process {party}: release the lease in place {which} as {how:?}"
                )
            }
            Self::Requeue(party, which) => {
                write!(f, "process {party}: requeue the lease in place {which}")
            }
            Self::Close(party) => write!(f, "process {party}: close, and start again"),
            Self::Crash(party) => write!(f, "process {party}: crash, and start again"),
            Self::CutOff(party) => write!(f, "process {party}: cut off for a while"),
            Self::LeaseTtl => f.write_str("the lease TTL passes"),
        }
    }
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admit(wish) => write!(f, "admit {wish}"),
            Self::Adopt(wish) => write!(f, "adopt {wish}"),
            Self::Release {
                name,
                uid,
                token,
                how,
            } => {
                let token = match token {
                    Token::Right => "with its token",
                    Token::Older => "with an older token",
                    Token::None => "by force",
                };
                write!(f, "release run-{name}/{uid} {token} as {how:?}")
            }
            Self::Cancel { name, uid, way } => {
                write!(f, "cancel run-{name} of uid {uid:?}: {way:?}")
            }
            Self::CancelAll { group, way } => write!(f, "cancel all of group {group:?}: {way:?}"),
            Self::Bump { name, uid, to } => write!(f, "bump run-{name} of uid {uid:?} {to}"),
            Self::Pause { reason, only_if } => {
                write!(f, "pause because of {reason:?} if {only_if:?}")
            }
            Self::Resume { only_if } => write!(f, "resume if {only_if:?}"),
            Self::SetRules { change, claim } => write!(f, "{claim} {change}"),
            Self::Unpin => f.write_str("unpin the rules"),
            Self::Remove => f.write_str("remove the repository"),
        }
    }
}
