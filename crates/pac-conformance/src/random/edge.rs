//! Conversions between the types of the reference model and those of the protocol.

use std::sync::Arc;

use pac_core::protocol::{Admitted, Command, Death, Ended, Issuer, Outcome, RunRequest};
use pac_core::state::{Entry, EntryState, Head, RulesChange, RunKind, RunOutcome};
use pac_core::{
    FencingToken, Limit, LimitVersion, PipelineRunKey, Priority, SessionId, Ticket, Uid,
};
use pac_core::{protocol, state};

use crate::reference::{Answer, Ask, Asker, Claim, How, Owner, Place, Repository, Run, Wish};

/// The run with a number.
pub(crate) fn key(name: u8) -> PipelineRunKey {
    crate::run(&format!("run-{name}"))
}

/// The uid with a number.
pub(crate) fn uid(uid: u8) -> Uid {
    uid.to_string().parse().unwrap()
}

/// The number of a run.
pub(crate) fn number(run: &PipelineRunKey) -> u8 {
    let number = run.name().strip_prefix("run-");
    number.and_then(|number| number.parse().ok()).unwrap()
}

pub(crate) fn issuer(asker: Asker) -> Issuer {
    Issuer {
        session: SessionId::new(asker.session),
        takes_ownerless: asker.takes_ownerless,
    }
}

pub(crate) fn request(wish: Wish) -> RunRequest {
    let (run, uid) = (key(wish.name), uid(wish.uid));
    let request = if wish.durable {
        RunRequest::durable(run, uid)
    } else {
        RunRequest::ephemeral(run, uid)
    };
    request.with_priority(Priority::new(wish.priority))
}

pub(crate) fn command(ask: &Ask) -> Command {
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
        Ask::Cancel { name, uid: number } => Command::cancel(key(name), number.map(uid)),
        Ask::Requeue { name, token } => Command::Requeue {
            run: key(name),
            // The token decides.
            uid: uid(0),
            token: FencingToken::new(token),
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
        Ask::SetLimit { limit, claim: by } => Command::SetLimit {
            rules: RulesChange::limit(Limit::new(limit)),
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

pub(crate) fn answer(outcome: &Outcome) -> Answer {
    match outcome {
        Outcome::Admitted { admitted, created } => match *admitted {
            Admitted::Started { token, session } => Answer::Runs {
                token: token.get(),
                session: session.get(),
                created: *created,
            },
            Admitted::Queued { ticket } => Answer::Waits {
                ticket: ticket.get(),
                created: *created,
            },
            Admitted::Finished(outcome) => Answer::Finished(how(outcome)),
            Admitted::HeldElsewhere(session) => Answer::HeldElsewhere(session.get()),
            Admitted::NotHeld => Answer::NotHeld,
            admitted => panic!("the reference model does not know {admitted:?}"),
        },
        Outcome::Ended { ended, promoted } => match *ended {
            Ended::Done => Answer::Ended(numbers(promoted)),
            Ended::Before(outcome) => Answer::EndedBefore(how(outcome)),
            Ended::NotStarted => Answer::NotStarted,
            Ended::Stale(token) => Answer::Stale(token.get()),
            Ended::Unknown => Answer::Unknown,
            ended => panic!("the reference model does not know {ended:?}"),
        },
        Outcome::LimitSet {
            limit,
            owner: by,
            accepted,
            promoted,
        } => Answer::Limit(
            limit.get().unwrap_or(0),
            by.map(owner),
            *accepted,
            numbers(promoted),
        ),
        Outcome::Swept { affected, promoted } => {
            Answer::Swept(numbers(affected), numbers(promoted))
        }
        Outcome::Removed(ended) => Answer::Removed(numbers(ended)),
        outcome => panic!("the reference model does not know {outcome:?}"),
    }
}

/// Converts a repository to the reference model's type.
pub(crate) fn picture<'a>(
    exists: bool,
    head: &Head,
    entries: impl Iterator<Item = &'a Arc<Entry>>,
) -> Repository {
    let beneath = head.policy.as_ref().and_then(|p| p.beneath.clone());
    Repository {
        exists,
        limit: head.limit.get().unwrap_or(0),
        owner: head.owner().map(owner),
        beneath: beneath.map(|(rules, by)| (rules.limit.get().unwrap_or(0), owner(by))),
        announced: head.limit_version.map(LimitVersion::get),
        commits: head.revision.get(),
        tickets: head.last_ticket.get(),
        tokens: head.last_token.get(),
        runs: entries.map(|entry| run(entry)).collect(),
    }
    .sorted()
}

fn run(entry: &Entry) -> Run {
    Run {
        name: number(&entry.run),
        uid: entry.uid.as_str().parse().unwrap(),
        durable: entry.kind == RunKind::Durable,
        priority: entry.priority.get(),
        ticket: entry.ticket.get(),
        place: match entry.state {
            EntryState::Queued { owner } => Place::Waiting {
                owner: owner.map(SessionId::get),
            },
            EntryState::Started {
                token,
                session,
                orphaned,
            } => Place::Running {
                token: token.get(),
                session: session.get(),
                orphaned,
            },
            EntryState::Finished {
                outcome,
                token,
                abandoned,
            } => Place::Over {
                how: how(outcome),
                token: token.map(FencingToken::get),
                abandoned,
            },
        },
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

pub(crate) fn owner(owner: state::Owner) -> Owner {
    match owner {
        state::Owner::Proposed => Owner::Proposed,
        state::Owner::Set => Owner::Set,
        state::Owner::Announced => Owner::Announced,
        state::Owner::Pinned => Owner::Pinned,
        owner => panic!("the reference model does not know {owner:?}"),
    }
}

pub(crate) fn outcome(how: How) -> RunOutcome {
    match how {
        How::Completed => RunOutcome::Completed,
        How::Failed => RunOutcome::Failed,
        How::Cancelled => RunOutcome::Cancelled,
        How::Expired => RunOutcome::Expired,
        How::Superseded => RunOutcome::Superseded,
        How::TimedOut => RunOutcome::TimedOut,
        How::QueueFull => RunOutcome::QueueFull,
    }
}

pub(crate) fn how(outcome: RunOutcome) -> How {
    match outcome {
        RunOutcome::Completed => How::Completed,
        RunOutcome::Failed => How::Failed,
        RunOutcome::Cancelled => How::Cancelled,
        RunOutcome::Expired => How::Expired,
        RunOutcome::Superseded => How::Superseded,
        RunOutcome::TimedOut => How::TimedOut,
        RunOutcome::QueueFull => How::QueueFull,
    }
}

pub(crate) fn numbers(runs: &[PipelineRunKey]) -> Vec<u8> {
    runs.iter().map(number).collect()
}
