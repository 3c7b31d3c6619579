//! The one error type of all crates of this family: its kind, its place, and whether to retry.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use crate::name::{InvalidValue, RepositoryKey};
use crate::text::one_line;
use crate::value::SessionId;

/// The most causes that an error keeps, each the cause of the one before. No library has as many.
const CAUSES: usize = 8;

/// The kind of a failure: the part of an [`Error`] to branch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is wrong, or names something that this build does not have.
    Config,
    /// An argument breaks a rule that the message names.
    InvalidInput,
    /// Another live process has a run of this name: choose another name, or wait until that run
    /// has ended.
    NameInUse,
    /// Another process has ended the run while it waited or ran, or removed its repository.
    RunEnded,
    /// As many runs wait as may: ask again later.
    QueueFull,
    /// Others wait or run, and the request asked to be dropped then.
    Skipped,
    /// The store rejected the credentials, or does not permit the operation.
    Unauthorised,
    /// The store could not be reached or did not accept the request; certainly nothing changed.
    Unavailable,
    /// The store has no room for another client, and this one has not got in; nothing changed. It
    /// may have room later.
    TooManyClients,
    /// Other controllers changed the repository at every attempt until the deadline; nothing
    /// changed.
    Contended,
    /// The answer was lost: the operation may or may not have happened. Read before acting.
    Indeterminate,
    /// The stored state breaks the rules of the protocol. Nothing was changed or deleted.
    Corrupt,
    /// The store's state was written by a newer version of this software.
    Incompatible,
    /// The session of this process ended at the store: its slots may have been freed.
    SessionLost,
    /// The manager was closed, or its background task failed, before the answer came.
    Closed,
    /// A bug in this software.
    Internal,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Config => "wrong settings",
            Self::InvalidInput => "invalid input",
            Self::NameInUse => "name in use",
            Self::RunEnded => "run ended",
            Self::QueueFull => "queue full",
            Self::Skipped => "skipped",
            Self::Unauthorised => "not authorised",
            Self::Unavailable => "store unavailable",
            Self::TooManyClients => "too many clients",
            Self::Contended => "too much contention",
            Self::Indeterminate => "outcome unknown",
            Self::Corrupt => "corrupt state",
            Self::Incompatible => "state of a newer version",
            Self::SessionLost => "session lost",
            Self::Closed => "closed",
            Self::Internal => "internal error",
        })
    }
}

/// A failure: its [kind](ErrorKind), the operation that failed, the repository concerned if it
/// is a single one, what to do about it, and the cause.
///
/// Neither `Display` nor `Debug` ever contains a secret: drivers must put none in. Nor do they
/// contain what a terminal or a log would act on, whatever a server or a record says: the message
/// and each cause went through [`text::one_line`](one_line), and causes are texts.
#[derive(Debug, thiserror::Error)]
#[error("{operation}: {kind}{}: {message}", in_repository(.repository.as_ref()))]
pub struct Error {
    kind: ErrorKind,
    operation: &'static str,
    repository: Option<RepositoryKey>,
    message: Cow<'static, str>,
    source: Option<Cause>,
}

impl Error {
    /// An error of `kind` in `operation` (`"commit"`, `"open session"`). `message` should name
    /// the thing, the rule and the cure. It becomes one line of at most
    /// [`text::LONGEST`](crate::text::LONGEST) bytes.
    pub fn new(
        kind: ErrorKind,
        operation: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            kind,
            operation,
            repository: None,
            message: match message.into() {
                // Written by this software.
                Cow::Borrowed(text) => Cow::Borrowed(text),
                Cow::Owned(text) => Cow::Owned(shown(text)),
            },
            source: None,
        }
    }

    /// The error that a driver returns when the session is dead at its store.
    #[must_use]
    pub fn session_lost(operation: &'static str, session: SessionId) -> Self {
        let message =
            format!("session {session} has ended: it was closed, or not renewed within its TTL");
        Self::new(ErrorKind::SessionLost, operation, message)
    }

    /// Adds the repository concerned.
    #[must_use]
    pub fn in_repository(mut self, repository: &RepositoryKey) -> Self {
        self.repository = Some(repository.clone());
        self
    }

    /// Adds the cause, with its own causes. They become texts, each one line of at most
    /// [`text::LONGEST`](crate::text::LONGEST) bytes.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source: Box<dyn StdError + Send + Sync> = source.into();
        self.source = Some(Cause::of(&*source, CAUSES));
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The operation that failed.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The repository concerned, if it is a single one.
    #[must_use]
    pub fn repository(&self) -> Option<&RepositoryKey> {
        self.repository.as_ref()
    }

    /// Whether the same call may simply be repeated: true only if certainly nothing has happened
    /// yet and the cause may pass with time.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::Unavailable | ErrorKind::TooManyClients | ErrorKind::Contended
        )
    }

    /// A copy for another caller that waited for the same result.
    #[must_use]
    pub(crate) fn replicate(&self) -> Self {
        Self {
            kind: self.kind,
            operation: self.operation,
            repository: self.repository.clone(),
            message: self.message.clone(),
            source: self.source.clone(),
        }
    }
}

/// A cause of an error, as a text that is fit to be shown.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
struct Cause {
    text: String,
    source: Option<Box<Self>>,
}

impl Cause {
    /// The cause and its causes, `most` of them in all.
    fn of(cause: &(dyn StdError + 'static), most: usize) -> Self {
        let further = cause.source().filter(|_| most > 1);
        Self {
            text: shown(cause.to_string()),
            source: further.map(|further| Box::new(Self::of(further, most - 1))),
        }
    }
}

fn shown(text: String) -> String {
    match one_line(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(shown) => shown,
    }
}

/// The part of an error's text that names the repository.
fn in_repository(repository: Option<&RepositoryKey>) -> String {
    repository.map_or_else(String::new, |repository| format!(" ({repository})"))
}

impl From<InvalidValue> for Error {
    fn from(invalid: InvalidValue) -> Self {
        Self::new(ErrorKind::InvalidInput, "parse", invalid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_operation_the_thing_and_the_cure() {
        let key = "ns/repo".parse::<RepositoryKey>().unwrap();
        let error = Error::new(
            ErrorKind::Unavailable,
            "commit",
            "connect to the store first",
        )
        .in_repository(&key)
        .caused_by("connection refused");
        assert_eq!(
            error.to_string(),
            "commit: store unavailable (ns/repo): connect to the store first"
        );
        assert_eq!(error.source().unwrap().to_string(), "connection refused");
        assert_eq!(error.replicate().to_string(), error.to_string());
    }

    #[test]
    fn no_server_reaches_a_terminal_through_an_error() {
        let hostile = format!("{}\u{1b}[2J\nforged line\u{202e}", "x".repeat(5_000_000));
        let inner = Error::new(ErrorKind::Internal, "read", format!("\u{9b}2J{hostile}"));
        let error = Error::new(
            ErrorKind::Corrupt,
            "load",
            format!("\u{1b}]0;t\u{7}{hostile}"),
        )
        .caused_by(inner.caused_by(hostile));
        let mut shown = vec![error.to_string(), format!("{error:?}")];
        let mut causes = 0;
        let mut cause = error.source();
        while let Some(error) = cause {
            shown.push(error.to_string());
            causes += 1;
            cause = error.source();
        }
        assert_eq!(causes, 2);
        for text in shown {
            assert!(text.chars().all(crate::text::is_plain), "{text}");
            assert!(text.len() < 20_000, "{}", text.len());
        }
        assert!(
            error.to_string().contains("\\u{1b}]0;t\\u{7}xxx"),
            "{error}"
        );
        assert!(error.to_string().contains("more bytes)"), "{error}");
    }

    #[test]
    fn only_failures_that_changed_nothing_and_may_pass_are_retryable() {
        for (kind, retryable) in [
            (ErrorKind::Unavailable, true),
            (ErrorKind::TooManyClients, true),
            (ErrorKind::Contended, true),
            (ErrorKind::Indeterminate, false),
            (ErrorKind::Unauthorised, false),
            (ErrorKind::SessionLost, false),
            (ErrorKind::Corrupt, false),
        ] {
            assert_eq!(
                Error::new(kind, "x", "y").is_retryable(),
                retryable,
                "{kind}"
            );
        }
    }
}
