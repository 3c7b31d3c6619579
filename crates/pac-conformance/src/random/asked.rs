//! What was asked of a manager, and whether what was seen of the answer is what the reference
//! model says.

use std::fmt;

use pac_core::manager::{Admission, Ending};
use pac_core::protocol::Outcome;
use pac_core::{Error, ErrorKind};

use super::edge;
use crate::reference::{Answer, Ask, Asker};

/// What one of them asks, and what it saw of the answer.
pub(super) struct Asked {
    pub(super) asker: Asker,
    pub(super) ask: Ask,
    pub(super) seen: Seen,
}

/// What can be seen of an answer.
pub(super) enum Seen {
    Admission(u8, Result<Admission, Error>),
    Ending(Result<Ending, Error>),
    Limit(Result<(u32, bool), Error>),
    Removed(Result<Vec<u8>, Error>),
}

/// Whether this is what the answer looks like.
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
            error.kind() == ErrorKind::InvalidInput
        }
        (_, Seen::Ending(Ok(ending))) => {
            let outcome = Outcome::Ended {
                ended: ending.ended,
                promoted: ending.promoted.clone(),
            };
            edge::answer(&outcome) == *answer
        }
        (Answer::Limit(limit, accepted, _), Seen::Limit(Ok(seen))) => (*limit, *accepted) == *seen,
        (Answer::Removed(runs), Seen::Removed(Ok(seen))) => runs == seen,
        _ => false,
    }
}

/// The same when something else went on: of an admission is said where the run stands by now.
pub(super) fn may_fit(answer: &Answer, seen: &Seen) -> bool {
    let has_a_place = matches!(answer, Answer::Runs { .. } | Answer::Waits { .. });
    let moved_on = match seen {
        Seen::Admission(_, Ok(_)) => has_a_place,
        // Its repository was removed in this instant.
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
            Self::Limit(limit) => write!(f, "{limit:?}"),
            Self::Removed(removed) => write!(f, "{removed:?}"),
        }
    }
}
