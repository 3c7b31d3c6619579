//! A command given to a manager, and whether the answer seen is the reference model's.

use std::fmt;

use pac_core::manager::{Admission, Ending, LimitChange};
use pac_core::protocol::Outcome;
use pac_core::{Error, ErrorKind};

use super::edge;
use crate::reference::{Answer, Ask, Asker};

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
    Removed(Result<Vec<u8>, Error>),
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
            Self::Removed(removed) => write!(f, "{removed:?}"),
        }
    }
}
