//! What a request to a server does, and what it means when no answer comes.

use crate::error::ErrorKind;

/// What a request may have done at the server when its answer did not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Nothing: it only connects.
    Connect,
    /// Nothing: it only reads.
    Read,
    /// A write, if it arrived.
    Write,
}

impl Effect {
    /// The kind and the message of the error for a request without an answer: `Unavailable` where
    /// certainly nothing changed, `Indeterminate` where something may have.
    #[must_use]
    pub const fn unanswered(self) -> (ErrorKind, &'static str) {
        match self {
            Self::Connect | Self::Read => (
                ErrorKind::Unavailable,
                "the connection was lost; it is made anew with the next request",
            ),
            Self::Write => (
                ErrorKind::Indeterminate,
                "the connection was lost before the answer came; read before acting",
            ),
        }
    }

    /// Whether a request without an answer may simply be made again, at this server or another
    /// one.
    #[must_use]
    pub const fn may_be_repeated(self) -> bool {
        !matches!(self, Self::Write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn only_what_changed_nothing_is_to_be_retried() {
        for effect in [Effect::Connect, Effect::Read, Effect::Write] {
            let (kind, message) = effect.unanswered();
            let error = Error::new(kind, "test", message);
            assert_eq!(error.is_retryable(), effect.may_be_repeated(), "{effect:?}");
        }
    }
}
