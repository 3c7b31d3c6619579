//! What can go wrong with an installation.

use std::fmt;

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InstallErrorKind {
    /// No cluster is named, or the kubeconfig is wrong.
    Config,
    /// The API server could not be reached, or did not answer as one. A change that was asked for
    /// may have happened; every command here can be repeated.
    Unavailable,
    /// The API server does not know the account, or does not let it do this.
    Unauthorised,
    /// The API server refuses the object, or does not serve its kind.
    Refused,
    /// It would be unsafe as things are, or the cluster does not become as it has to be.
    Unsafe,
}

/// An installation, or a step of it, that failed: the object or the step, the rule, and the cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {message}")]
pub struct InstallError {
    kind: InstallErrorKind,
    subject: String,
    message: String,
}

impl InstallError {
    /// A failure of `subject` (`Deployment pac-concurrency/pac-concurrency`, `watcher`). `message`
    /// says what must hold and how to bring it about.
    #[must_use]
    pub fn new(
        kind: InstallErrorKind,
        subject: impl fmt::Display,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            subject: subject.to_string(),
            message: message.into(),
        }
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> InstallErrorKind {
        self.kind
    }

    /// The object, or the step.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The rule, and the cure.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}
