//! A command given to a manager, and whether the answer seen is the reference model's.

use std::fmt;

use pac_core::manager::{Admission, Ending, LimitChange, PauseChange, Swept};
use pac_core::protocol::Outcome;
use pac_core::{Error, ErrorKind, FencingToken, RepositoryKey};

use super::edge;
use super::moves::Deed;
use super::process::Process;
use crate::reference::{Answer, Ask, Asker, Repository, Which};

/// The command of one process, and the answer that it saw.
pub(super) struct Asked {
    pub(super) asker: Asker,
    pub(super) ask: Ask,
    pub(super) seen: Seen,
}

/// The visible part of an answer.
pub(super) enum Seen {
    Admission(u8, Result<Admission, Error>),
    Ending(Result<Ending, Error>),
    Limit(Result<LimitChange, Error>),
    Paused(Result<PauseChange, Error>),
    Swept(Result<Swept, Error>),
    /// A run was moved; the state tells where to.
    Moved(Result<(), Error>),
    Removed(Result<Vec<u8>, Error>),
}

/// Lets a process make a call that names a run or the repository.
pub(super) async fn call(
    process: &Process,
    key: &RepositoryKey,
    known: &Repository,
    deed: Deed,
) -> Asked {
    let manager = &process.manager;
    let (ask, seen) = match deed {
        Deed::Admit(wish) => {
            let admission = manager.admit(key, edge::request(wish)).await;
            (Ask::Admit(wish), Seen::Admission(wish.uid, admission))
        }
        Deed::Adopt(wish) => {
            let admission = manager.adopt(key, edge::request(wish)).await;
            (Ask::Adopt(wish), Seen::Admission(wish.uid, admission))
        }
        Deed::Release {
            name,
            uid,
            token,
            how,
        } => {
            let token = token.shown(known, name);
            let ask = Ask::Release {
                name,
                uid,
                token,
                how,
            };
            let (run, uid) = (edge::key(name), edge::uid(uid));
            let (token, how) = (token.map(FencingToken::new), edge::outcome(how));
            let ending = manager.release_run(key, &run, &uid, token, how).await;
            (ask, Seen::Ending(ending))
        }
        Deed::Cancel { name, uid, way } => {
            let (run, of) = (edge::key(name), uid.map(edge::uid));
            let ending = manager.cancel_as(key, &run, of.as_ref(), edge::way(way));
            (Ask::Cancel { name, uid, way }, Seen::Ending(ending.await))
        }
        Deed::CancelAll { group, way } => {
            let which = Which {
                group,
                before: None,
            };
            let runs = edge::which(which);
            let swept = manager.cancel_all(key, &runs, edge::way(way)).await;
            (Ask::CancelAll { which, way }, Seen::Swept(swept))
        }
        Deed::Bump { name, uid, to } => {
            let (run, of) = (edge::key(name), uid.map(edge::uid));
            let moved = manager.bump(key, &run, of.as_ref(), edge::bump(to)).await;
            (Ask::Bump { name, uid, to }, Seen::Moved(moved.map(|_| ())))
        }
        Deed::Pause { reason, only_if } => {
            let (why, condition) = (reason.map(edge::reason), edge::pause(only_if));
            let paused = Box::pin(manager.pause_if(key, why, condition)).await;
            (Ask::Pause { reason, only_if }, Seen::Paused(paused))
        }
        Deed::Resume { only_if } => {
            let resumed = Box::pin(manager.resume_if(key, edge::pause(only_if))).await;
            (Ask::Resume { only_if }, Seen::Paused(resumed))
        }
        Deed::SetRules { change, claim } => {
            let set = manager.set_rules(key, edge::change(change), edge::claim(claim));
            (Ask::SetRules { change, claim }, Seen::Limit(set.await))
        }
        Deed::Unpin => (Ask::Unpin, Seen::Limit(manager.unpin(key).await)),
        Deed::Remove => {
            let ended = manager.remove_repository(key).await;
            let ended = ended.map(|runs| edge::numbers(&runs));
            (Ask::Remove, Seen::Removed(ended))
        }
    };
    Asked {
        asker: process.asker(),
        ask,
        seen,
    }
}

/// Whether the reference model's answer looks like the one seen.
pub(super) fn fits(answer: &Answer, seen: &Seen) -> bool {
    match (answer, seen) {
        (
            Answer::Runs { token, session, .. },
            Seen::Admission(_, Ok(Admission::Started(lease))),
        ) => lease.token().get() == *token && lease.session().get() == *session,
        (Answer::Waits { .. }, Seen::Admission(_, Ok(Admission::Queued(_)))) => true,
        (Answer::Finished(how), Seen::Admission(_, Ok(Admission::Finished(outcome)))) => {
            edge::outcome(*how) == *outcome
        }
        (Answer::HeldElsewhere(_), Seen::Admission(_, Err(error))) => {
            error.kind() == ErrorKind::NameInUse
        }
        (Answer::QueueFull(_), Seen::Admission(_, Err(error))) => {
            error.kind() == ErrorKind::QueueFull
        }
        (Answer::Skipped(..), Seen::Admission(_, Err(error))) => error.kind() == ErrorKind::Skipped,
        (Answer::TooHeavy(..), Seen::Admission(_, Err(error))) => {
            error.kind() == ErrorKind::InvalidInput
        }
        (_, Seen::Ending(Ok(ending))) => {
            let outcome = Outcome::Ended {
                ended: ending.ended,
                promoted: ending.promoted.clone(),
            };
            edge::answer(&outcome) == *answer
        }
        (_, Seen::Limit(Ok(change))) => {
            let outcome = Outcome::LimitSet {
                limit: change.limit,
                owner: change.owner,
                accepted: change.accepted,
                promoted: change.promoted.clone(),
            };
            edge::answer(&outcome) == *answer
        }
        (_, Seen::Paused(Ok(change))) => {
            let outcome = Outcome::Paused {
                before: change.before,
                accepted: change.accepted,
                promoted: change.promoted.clone(),
            };
            edge::answer(&outcome) == *answer
        }
        (Answer::Swept(affected, promoted), Seen::Swept(Ok(swept))) => {
            *affected == edge::numbers(&swept.affected)
                && *promoted == edge::numbers(&swept.promoted)
        }
        (Answer::Moved(..), Seen::Moved(Ok(()))) => true,
        (Answer::Removed(runs), Seen::Removed(Ok(seen))) => runs == seen,
        _ => false,
    }
}

/// Like [`fits`], when other commands ran at the same time: an admission then answers with the
/// run's state at a later moment.
pub(super) fn may_fit(answer: &Answer, seen: &Seen) -> bool {
    let has_a_place = matches!(answer, Answer::Runs { .. } | Answer::Waits { .. });
    let moved_on = match seen {
        Seen::Admission(_, Ok(_)) => has_a_place,
        // The repository was removed at this moment.
        Seen::Admission(_, Err(error)) => has_a_place && error.kind() == ErrorKind::Contended,
        _ => false,
    };
    moved_on || fits(answer, seen)
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admission(_, Ok(Admission::Started(lease))) => {
                let (token, session) = (lease.token(), lease.session());
                write!(f, "started with token {token} of session {session}")
            }
            Self::Admission(_, Ok(Admission::Queued(_))) => f.write_str("queued"),
            Self::Admission(_, Ok(Admission::Finished(how))) => write!(f, "over: {how}"),
            Self::Admission(_, Err(error)) => write!(f, "{error}"),
            Self::Ending(ending) => match ending {
                Ok(ending) => write!(f, "{:?}", ending.ended),
                Err(error) => write!(f, "{error}"),
            },
            Self::Limit(change) => write!(f, "{change:?}"),
            Self::Paused(paused) => write!(f, "{paused:?}"),
            Self::Swept(swept) => write!(f, "{swept:?}"),
            Self::Moved(moved) => write!(f, "{moved:?}"),
            Self::Removed(removed) => write!(f, "{removed:?}"),
        }
    }
}
