//! The commands, as the protocol takes them.

use std::num::NonZeroU32;
use std::time::Duration;

use pac_core::protocol::{self, Cancellation, Command, Death, PauseCondition, RunRequest, SkipIf};
use pac_core::state::{RulesChange, RunOutcome, Weight};
use pac_core::{
    FencingToken, Group, Limit, LimitVersion, Priority, Reason, SessionId, Ticket, Timestamp,
};

use super::{key, uid};
use crate::reference::{Ask, Bump, Change, Claim, How, Paused, Skip, Supersedes, Way, Which, Wish};

pub(crate) fn request(wish: Wish) -> RunRequest {
    let (run, uid) = (key(wish.name), uid(wish.uid));
    let request = if wish.durable {
        RunRequest::durable(run, uid)
    } else {
        RunRequest::ephemeral(run, uid)
    };
    let request = request.with_priority(Priority::new(wish.priority));
    let request = match wish.terms.weight {
        1 => request,
        weight => request.with_weight(Weight::new(weight.try_into().unwrap()).unwrap()),
    };
    let request = match wish.terms.group {
        None => request,
        Some(number) => request.in_group(group(number)),
    };
    let request = match wish.terms.max_wait {
        None => request,
        Some(longest) => request.with_max_wait(Duration::from_millis(longest)),
    };
    let request = match wish.terms.max_hold {
        None => request,
        Some(longest) => request.with_max_hold(Duration::from_millis(longest)),
    };
    let request = match wish.terms.numbered {
        true => request.numbered(),
        false => request,
    };
    let request = match wish.supersedes {
        Supersedes::None => request,
        Supersedes::Waiting => request.superseding(protocol::Supersedes::Waiting),
        Supersedes::All => request.superseding(protocol::Supersedes::All),
    };
    match wish.skip_if {
        None => request,
        Some(Skip::Waiting) => request.skip_if(SkipIf::Waiting),
        Some(Skip::Running) => request.skip_if(SkipIf::Running),
    }
}

/// The command, at a time.
pub(crate) fn command(ask: &Ask, clock: u64) -> Command {
    match *ask {
        Ask::Admit(wish) => Command::Admit(request(wish)),
        Ask::Adopt(wish) => Command::Adopt(request(wish)),
        Ask::Release {
            name,
            uid: number,
            token,
            how,
        } => Command::Release {
            run: key(name),
            uid: uid(number),
            token: token.map(FencingToken::new),
            outcome: outcome(how),
        },
        Ask::Cancel {
            name,
            uid: number,
            way: how,
        } => Command::Cancel {
            run: key(name),
            uid: number.map(uid),
            how: way(how),
        },
        Ask::CancelAll {
            which: runs,
            way: how,
        } => Command::CancelAll {
            which: which(runs),
            how: way(how),
        },
        Ask::Bump {
            name,
            uid: number,
            to,
        } => Command::Bump {
            run: key(name),
            uid: number.map(uid),
            to: bump(to),
        },
        Ask::Pause {
            reason: number,
            only_if,
        } => Command::Pause {
            reason: number.map(reason),
            only_if: pause(only_if),
        },
        Ask::Resume { only_if } => Command::Resume {
            only_if: pause(only_if),
        },
        Ask::TimeOut => Command::TimeOut {
            now: Timestamp::from_unix_millis(clock.try_into().unwrap()),
        },
        Ask::Requeue { name, token } => Command::Requeue {
            run: key(name),
            // The token decides.
            uid: uid(0),
            token: FencingToken::new(token),
        },
        Ask::Disown {
            name,
            token,
            running,
        } => Command::Disown {
            run: key(name),
            token: FencingToken::new(token.unwrap_or(0)),
            running,
        },
        Ask::Reclaim {
            name,
            uid: number,
            former,
        } => Command::Reclaim {
            run: key(name),
            uid: uid(number),
            former: SessionId::new(former),
        },
        Ask::Abandon {
            name,
            uid: number,
            owner,
            ticket,
            token,
        } => Command::Abandon {
            run: key(name),
            uid: uid(number),
            owner: SessionId::new(owner),
            ticket: Ticket::new(ticket),
            token: token.map(FencingToken::new),
        },
        Ask::SetRules {
            change: rules,
            claim: by,
        } => Command::SetLimit {
            rules: change(rules),
            claim: claim(by),
        },
        Ask::Unpin => Command::Unpin,
        Ask::Expire { session, lease_too } => Command::Expire {
            session: SessionId::new(session),
            death: if lease_too {
                Death::Lease
            } else {
                Death::Session
            },
        },
        Ask::Promote => Command::Promote,
        Ask::Remove => Command::RemoveRepository,
    }
}

pub(crate) fn claim(claim: Claim) -> protocol::Claim {
    match claim {
        Claim::Propose => protocol::Claim::Propose,
        Claim::Set => protocol::Claim::Set,
        Claim::Announce(version) => protocol::Claim::Announce(LimitVersion::new(version)),
        Claim::Pin => protocol::Claim::Pin,
    }
}

pub(crate) fn outcome(how: How) -> RunOutcome {
    match how {
        How::Completed => RunOutcome::Completed,
        How::Failed => RunOutcome::Failed,
        How::Cancelled => RunOutcome::Cancelled,
        How::LeaseLost => RunOutcome::LeaseLost,
        How::Superseded => RunOutcome::Superseded,
        How::TimedOut => RunOutcome::TimedOut,
        How::QueueFull => RunOutcome::QueueFull,
    }
}

pub(crate) fn change(change: Change) -> RulesChange {
    let rules = match change.limit {
        None => RulesChange::default(),
        Some(limit) => RulesChange::limit(Limit::new(limit)),
    };
    let rules = match change.most_waiting {
        None => rules,
        Some(most) => rules.with_max_queued(most),
    };
    match change.backfill {
        None => rules,
        Some(most) => rules.with_backfill(NonZeroU32::new(most)),
    }
}

fn group(number: u8) -> Group {
    number.to_string().parse().unwrap()
}

pub(crate) fn pause(paused: Paused) -> PauseCondition {
    match paused {
        Paused::Any => PauseCondition::Always,
        Paused::No => PauseCondition::NotPaused,
        Paused::For(number) => PauseCondition::PausedFor(number.map(reason)),
    }
}

pub(crate) fn reason(number: u8) -> Reason {
    number.to_string().parse().unwrap()
}

pub(crate) fn way(way: Way) -> Cancellation {
    match way {
        Way::AtOnce => Cancellation::AtOnce,
        Way::IfWaiting => Cancellation::IfWaiting,
        Way::Ask => Cancellation::Ask,
    }
}

pub(crate) fn which(which: Which) -> protocol::Which {
    let runs = protocol::Which::all();
    let runs = match which.group {
        None => runs,
        Some(number) => runs.of_group(group(number)),
    };
    match which.before {
        None => runs,
        Some(before) => runs.queued_before(Timestamp::from_unix_millis(before.try_into().unwrap())),
    }
}

pub(crate) fn bump(to: Bump) -> protocol::Bump {
    match to {
        Bump::First => protocol::Bump::First,
        Bump::To(priority) => protocol::Bump::To(Priority::new(priority)),
        Bump::Back => protocol::Bump::Back,
    }
}
