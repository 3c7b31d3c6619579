//! What can go wrong: connecting, and single requests.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use pac_pipelines::{ClusterError, ClusterErrorKind};
use thiserror::Error;

/// A cluster cannot be connected to: its kubeconfig or service account cannot be used. Never shows
/// a token, a key or a password.
#[derive(Debug, Error)]
#[error("{what}: {message}")]
pub struct KubernetesError {
    what: &'static str,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl KubernetesError {
    pub(crate) fn new(
        what: &'static str,
        message: impl Into<String>,
        source: impl StdError + Send + Sync + 'static,
    ) -> Self {
        Self {
            what,
            message: message.into(),
            source: Some(Box::new(source)),
        }
    }
}

/// Why a request has failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What a failed request says about the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// There is no object of this name.
    NotFound,
    /// The object was changed meanwhile (409); nothing changed.
    Conflict,
    /// The place in a list or in the history is too old (410).
    Expired,
    /// The server did not take the request in (429), or could not be reached; nothing changed.
    Unavailable,
    /// The server, or a webhook, does not allow it (another 4xx); nothing changed.
    Refused,
    /// No answer, or one from which it cannot be known: a write may have been done, or may still
    /// be.
    Lost,
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    pub(crate) fn caused_by(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// No answer within a deadline.
    pub(crate) fn late(deadline: Duration) -> Self {
        Self::new(FailureKind::Lost, format!("no answer within {deadline:?}"))
    }

    /// Whether a write that failed like this was certainly not done, and never will be.
    pub(crate) fn is_certain(&self) -> bool {
        self.kind != FailureKind::Lost
    }

    /// The failure of a request that changes nothing.
    pub(crate) fn of_read(self, operation: &'static str, object: &str) -> ClusterError {
        let kind = match self.kind {
            FailureKind::Refused => ClusterErrorKind::Refused,
            _ => ClusterErrorKind::Unavailable,
        };
        self.into_error(kind, operation, object)
    }

    /// The failure of a request to change something.
    pub(crate) fn of_write(self, operation: &'static str, object: &str) -> ClusterError {
        let kind = match self.kind {
            FailureKind::Conflict | FailureKind::NotFound => ClusterErrorKind::Conflict,
            FailureKind::Refused => ClusterErrorKind::Refused,
            FailureKind::Unavailable | FailureKind::Expired => ClusterErrorKind::Unavailable,
            FailureKind::Lost => ClusterErrorKind::Indeterminate,
        };
        self.into_error(kind, operation, object)
    }

    fn into_error(
        self,
        kind: ClusterErrorKind,
        operation: &'static str,
        object: &str,
    ) -> ClusterError {
        let error = ClusterError::new(kind, operation, object, self.message);
        match self.source {
            Some(source) => error.caused_by(source),
            None => error,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// An error with its causes: the innermost say what happened. A cause that the text before it has
/// already is left out.
pub(crate) fn with_causes(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    for cause in causes(error) {
        let next = cause.to_string();
        if text.contains(&next) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&next);
    }
    text
}

/// An error and its causes, the innermost last.
pub(crate) fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    // Bounded, should an error be its own cause.
    std::iter::successors(Some(error), |&error| error.source()).take(16)
}
