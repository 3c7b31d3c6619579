//! What can go wrong with the webhook's server.

use std::fmt;

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WebhookErrorKind {
    /// Options that cannot be used: an address, a directory, a name.
    Config,
    /// The certificate cannot be had now; it is tried again.
    Certificate,
    /// A part of the server has ended by itself: a bug.
    Internal,
}

/// A failure of the webhook's server: what it is about, the rule and the cure. It never shows a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {message}")]
pub struct WebhookError {
    kind: WebhookErrorKind,
    subject: String,
    message: String,
}

impl WebhookError {
    pub(super) fn new(
        kind: WebhookErrorKind,
        subject: impl fmt::Display,
        message: impl fmt::Display,
    ) -> Self {
        Self {
            kind,
            subject: subject.to_string(),
            message: message.to_string(),
        }
    }

    /// A failure about the certificate of `subject`.
    pub(super) fn certificate(subject: impl fmt::Display, message: impl fmt::Display) -> Self {
        Self::new(WebhookErrorKind::Certificate, subject, message)
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> WebhookErrorKind {
        self.kind
    }
}
