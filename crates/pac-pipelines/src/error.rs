//! What can go wrong here: an object that cannot be understood, a cluster that does not do what
//! it is asked, a store that fails.

use std::error::Error as StdError;
use std::fmt;

use pac_core::ErrorKind;
use thiserror::Error;

/// Any failure of this crate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PipelinesError {
    /// An object of the cluster cannot be understood.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The cluster did not do what it was asked for.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The store of the limits and queues failed.
    #[error(transparent)]
    Store(#[from] pac_core::Error),
}

impl PipelinesError {
    /// Whether the same call may simply be made again: true only where nothing can have happened
    /// yet and time may mend the cause.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Model(_) => false,
            Self::Cluster(error) => error.kind() == ClusterErrorKind::Unavailable,
            Self::Store(error) => error.is_retryable(),
        }
    }
}

impl From<PipelinesError> for pac_core::Error {
    fn from(error: PipelinesError) -> Self {
        let kind = match &error {
            PipelinesError::Store(_) => None,
            PipelinesError::Model(_) => Some(ErrorKind::InvalidInput),
            PipelinesError::Cluster(error) => Some(match error.kind() {
                ClusterErrorKind::Unavailable => ErrorKind::Unavailable,
                ClusterErrorKind::Indeterminate => ErrorKind::Indeterminate,
                ClusterErrorKind::Conflict => ErrorKind::Contended,
                ClusterErrorKind::Refused => ErrorKind::Unauthorised,
            }),
        };
        match (error, kind) {
            (PipelinesError::Store(error), _) => error,
            (error, kind) => Self::new(
                kind.unwrap_or(ErrorKind::Internal),
                "pipelines",
                error.to_string(),
            )
            .caused_by(error),
        }
    }
}

/// An object of the cluster, or a file of them, that cannot be understood: which object, which of
/// its fields, the rule that it breaks and the cure.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{object}: {field}: {rule}")]
pub struct ModelError {
    object: String,
    field: String,
    rule: String,
}

impl ModelError {
    /// An error in `field` (`spec.concurrency_limit`) of `object` (`Repository ci/website`).
    /// `rule` says what must hold and how to bring it about.
    #[must_use]
    pub fn new(
        object: impl Into<String>,
        field: impl Into<String>,
        rule: impl Into<String>,
    ) -> Self {
        Self {
            object: object.into(),
            field: field.into(),
            rule: rule.into(),
        }
    }

    /// The object: its kind, namespace and name as far as they are known.
    #[must_use]
    pub fn object(&self) -> &str {
        &self.object
    }

    /// The field that breaks the rule, as a path from the top of the object.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The rule, and the cure.
    #[must_use]
    pub fn rule(&self) -> &str {
        &self.rule
    }
}

/// What kind of failure of a cluster it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClusterErrorKind {
    /// The cluster could not be reached or did not take the request; certainly nothing changed.
    Unavailable,
    /// The answer was lost: the change may or may not have happened. Read before acting.
    Indeterminate,
    /// The object was changed by somebody else meanwhile; nothing changed.
    Conflict,
    /// The cluster does not allow it, or a webhook refused it; nothing changed.
    Refused,
}

impl fmt::Display for ClusterErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unavailable => "cluster unavailable",
            Self::Indeterminate => "outcome unknown",
            Self::Conflict => "changed meanwhile",
            Self::Refused => "refused",
        })
    }
}

/// The cluster did not do what it was asked for: what kind of failure, in which operation, on
/// which object, and why.
#[derive(Debug, Error)]
#[error("{operation}: {kind} ({object}): {message}")]
pub struct ClusterError {
    kind: ClusterErrorKind,
    operation: &'static str,
    object: String,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl ClusterError {
    /// An error of `kind` in `operation` (`"list runs"`) on `object` (`ci/website`, or what was
    /// listed).
    #[must_use]
    pub fn new(
        kind: ClusterErrorKind,
        operation: &'static str,
        object: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            operation,
            object: object.into(),
            message: message.into(),
            source: None,
        }
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ClusterErrorKind {
        self.kind
    }

    /// The operation that failed.
    #[must_use]
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The object that it was about.
    #[must_use]
    pub fn object(&self) -> &str {
        &self.object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_keeps_its_kind_where_it_becomes_one_of_the_store() {
        let unknown = ClusterError::new(
            ClusterErrorKind::Indeterminate,
            "start",
            "ci/a",
            "the connection broke",
        );
        assert_eq!(
            unknown.to_string(),
            "start: outcome unknown (ci/a): the connection broke"
        );
        let error = pac_core::Error::from(PipelinesError::from(unknown));
        assert_eq!(error.kind(), ErrorKind::Indeterminate);
        assert!(error.to_string().contains("ci/a"), "{error}");
        let store = pac_core::Error::new(ErrorKind::Corrupt, "load", "x");
        assert_eq!(
            pac_core::Error::from(PipelinesError::from(store)).kind(),
            ErrorKind::Corrupt
        );
    }
}
