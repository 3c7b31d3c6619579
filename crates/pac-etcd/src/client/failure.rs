//! What the failure of a request means, and what to do about it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io;

use pac_core::effect::Effect;
use pac_core::{Error, ErrorKind};
use tonic::Code;

use super::tls::Problem;

/// Why a request did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A file that is needed for a connection cannot be read: nothing was sent.
    Unreadable,
    /// No connection: the request was never sent.
    Unreachable,
    /// No secure connection: the request was never taken.
    Tls(Problem),
    /// Not answered, but perhaps sent: a write may have happened.
    Unanswered,
    /// The member knows no leader, and refused the request for that reason.
    NoLeader,
    /// The member is too busy, and refused the request for that reason.
    Busy,
    /// The token has expired, or users have changed since it was made.
    Token,
    /// The user or the password is wrong, or missing, or given to a server without authentication.
    Credentials,
    /// The user has no permission for the key.
    Denied,
    /// The database has reached its quota.
    Full,
    /// The request has more bytes than the server takes.
    TooLarge,
    /// The answer has more bytes than are taken. It was not read: a write has probably happened.
    AnswerTooLarge,
    /// The request has more operations than the server takes.
    TooManyOperations,
    /// The lease does not exist, or not any more.
    NoLease,
    /// The revision was compacted away.
    Compacted,
    /// None of the above: the server refused a request that it should accept.
    Other,
}

/// A failed request to one member.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    /// What the library or the server said. It never repeats a part of the request.
    detail: String,
    /// The endpoint of the member, where it is known.
    endpoint: Option<String>,
    /// Whether nothing but silence or the end of the connection came from the member.
    unheard: bool,
    /// Whether nothing listens there.
    refused: bool,
    /// Whether there was a connection, and ended.
    broken: bool,
}

impl Failure {
    pub(crate) fn new(cause: Cause, detail: impl Into<String>) -> Self {
        Self {
            cause,
            detail: detail.into(),
            endpoint: None,
            unheard: cause == Cause::Unreachable,
            refused: false,
            broken: false,
        }
    }

    pub(crate) fn unanswered() -> Self {
        Self {
            unheard: true,
            ..Self::new(Cause::Unanswered, "no answer in time")
        }
    }

    /// The same failure, of the member with this endpoint.
    pub(crate) fn at(self, endpoint: &str) -> Self {
        Self {
            endpoint: Some(endpoint.to_owned()),
            ..self
        }
    }

    /// The same failure of a request that cannot have changed anything, as one by which another
    /// request was prepared.
    pub(crate) fn before_the_request(self) -> Self {
        match self.cause {
            Cause::Unanswered => Self {
                cause: Cause::Unreachable,
                ..self
            },
            _ => self,
        }
    }

    /// Whether the member itself has said nothing: its connection ended, or it was silent. The next
    /// request had better not trust that connection.
    pub(crate) fn is_unheard(&self) -> bool {
        self.unheard
    }

    /// Whether nothing listens at the member's address.
    pub(crate) fn was_refused(&self) -> bool {
        self.refused
    }

    /// Whether there was a connection that ended, rather than none or a silent one.
    pub(crate) fn is_a_broken_connection(&self) -> bool {
        self.broken
    }

    /// Whether the failure proves that the member speaks TLS.
    pub(crate) fn speaks_tls(&self) -> bool {
        use Problem::{Client, Issuer, Name, Time};
        matches!(self.cause, Cause::Tls(Client | Issuer | Name | Time))
    }

    /// The same failure with the cause that was found out afterwards.
    pub(crate) fn because(self, cause: Cause) -> Self {
        Self { cause, ..self }
    }

    /// What an answer with this status means. The texts are those of etcd's
    /// `api/v3rpc/rpctypes/error.go`. A status that does not prove that a write did not happen
    /// counts as unanswered.
    pub(crate) fn of_status(
        code: Code,
        message: &str,
        source: Option<&(dyn StdError + 'static)>,
    ) -> Self {
        let detail = match source.map(innermost) {
            Some(innermost) if !message.contains(&innermost) => format!("{message}: {innermost}"),
            _ => message.to_owned(),
        };
        let tls = source.and_then(Problem::of);
        let cause = match (code, message) {
            _ if source.is_some_and(was_not_connected) => {
                tls.map_or(Cause::Unreachable, Cause::Tls)
            }
            // The member has ended the connection in the place of taking a request.
            _ if tls == Some(Problem::Client) => Cause::Tls(Problem::Client),
            (Code::Unauthenticated, _) => Cause::Token,
            (Code::InvalidArgument, m) if m.contains("revision of auth store is old") => {
                Cause::Token
            }
            (Code::InvalidArgument | Code::FailedPrecondition, m)
                if m.contains("authentication failed")
                    || m.contains("authentication is not enabled")
                    || m.contains("user name is empty")
                    || m.contains("user name not found") =>
            {
                Cause::Credentials
            }
            (Code::PermissionDenied, _) => Cause::Denied,
            (Code::ResourceExhausted, m) if m.contains("database space exceeded") => Cause::Full,
            (Code::InvalidArgument, m) if m.contains("request is too large") => Cause::TooLarge,
            (Code::ResourceExhausted, m) if m.contains("larger than max") => Cause::TooLarge,
            // Of the client library, which has read the length of the answer and not the answer.
            (Code::OutOfRange, m) if m.contains("message length too large") => {
                Cause::AnswerTooLarge
            }
            (Code::InvalidArgument, m) if m.contains("too many operations") => {
                Cause::TooManyOperations
            }
            (Code::ResourceExhausted, m) if m.contains("too many requests") => Cause::Busy,
            // It has just started, and does not serve yet.
            (Code::Unavailable, m) if m.ends_with("not capable") => Cause::Busy,
            (Code::Unavailable, m) if m.ends_with("no leader") => Cause::NoLeader,
            (Code::NotFound, m) if m.contains("lease not found") => Cause::NoLease,
            (Code::OutOfRange, m) if m.contains("compacted") => Cause::Compacted,
            (
                Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::Unimplemented,
                _,
            ) => Cause::Other,
            // A deadline, a reset stream, a server that stops, a leader that changes, or an unknown
            // status: the request may have happened.
            _ => Cause::Unanswered,
        };
        Self {
            unheard: source.is_some(),
            refused: source.is_some_and(was_refused),
            broken: source.is_some_and(|source| !was_not_connected(source)),
            ..Self::new(cause, detail)
        }
    }

    /// Whether the request certainly changed nothing.
    pub(crate) fn changed_nothing(&self) -> bool {
        !matches!(self.cause, Cause::Unanswered | Cause::AnswerTooLarge)
    }

    /// Whether the same may be possible with fewer keys or values at once.
    pub(crate) fn is_too_large(&self) -> bool {
        matches!(self.cause, Cause::TooLarge | Cause::AnswerTooLarge)
    }

    /// Whether another member may be able to answer the request.
    pub(crate) fn may_pass_elsewhere(&self) -> bool {
        matches!(
            self.cause,
            Cause::Unreachable | Cause::Tls(_) | Cause::Unanswered | Cause::NoLeader | Cause::Busy
        )
    }

    /// Whether the same request may be answered as soon as any other one is: what failed is the
    /// connection, or the member.
    pub(crate) fn may_pass_with_time(&self) -> bool {
        self.unheard || self.cause == Cause::NoLeader
    }

    /// The error that a caller sees.
    pub(crate) fn error(&self, operation: &'static str, effect: Effect) -> Error {
        let (kind, message) = self.meaning(effect);
        Error::new(kind, operation, message).caused_by(self.detail.clone())
    }

    /// The member: `etcd at etcd-0:2379`.
    fn place(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => {
                let address = endpoint.split_once("://").map_or(&**endpoint, |(_, a)| a);
                format!("etcd at {address}")
            }
            None => "etcd".to_owned(),
        }
    }

    fn meaning(&self, effect: Effect) -> (ErrorKind, Cow<'static, str>) {
        let place = |text: &str| Cow::Owned(format!("{} {text}", self.place()));
        match self.cause {
            Cause::Unreadable => (
                ErrorKind::Unavailable,
                "a file that is needed to connect to etcd cannot be read; put it back".into(),
            ),
            Cause::Unreachable => (
                ErrorKind::Unavailable,
                place("could not be reached; check the endpoints and that etcd runs there"),
            ),
            // A server that was stopped at that moment does the same.
            Cause::Tls(Problem::Ended) => (ErrorKind::Unavailable, place(Problem::Ended.cure())),
            Cause::Tls(problem) => (ErrorKind::Config, place(problem.cure())),
            Cause::Unanswered | Cause::AnswerTooLarge if !effect.may_be_repeated() => (
                ErrorKind::Indeterminate,
                place("did not answer; it may have done what was asked, or not"),
            ),
            Cause::Unanswered => (
                ErrorKind::Unavailable,
                place(
                    "did not answer; check the health of its members (without a majority nothing \
                     can be read)",
                ),
            ),
            Cause::NoLeader => (
                ErrorKind::Unavailable,
                place("has no leader; it needs a majority of its members"),
            ),
            Cause::Busy => (
                ErrorKind::Unavailable,
                place("takes no more requests at the moment; try again"),
            ),
            Cause::Token => (
                ErrorKind::Unauthorised,
                place("does not take the token of the user; check user and password"),
            ),
            Cause::Credentials => (
                ErrorKind::Unauthorised,
                place(
                    "does not let the user in; check user and password, and whether \
                     authentication is enabled at the server",
                ),
            ),
            Cause::Denied => (
                ErrorKind::Unauthorised,
                place(
                    "said permission denied; the user's role needs to read and write all keys \
                     that start with the prefix",
                ),
            ),
            Cause::Full => (
                ErrorKind::Unavailable,
                place(
                    "is full (alarm NOSPACE), and takes no writes; compact and defragment it or \
                     raise --quota-backend-bytes, then disarm the alarm with etcdctl, and set \
                     --auto-compaction-retention or etcd-compaction",
                ),
            ),
            Cause::TooLarge | Cause::AnswerTooLarge if effect.may_be_repeated() => (
                ErrorKind::Corrupt,
                place(
                    "has an answer that is too large to be taken; find out what writes large keys \
                     or values under the prefix, and delete them",
                ),
            ),
            Cause::TooLarge | Cause::AnswerTooLarge => (
                ErrorKind::InvalidInput,
                "the request is too large for etcd; set max_request_bytes to the server's \
                 --max-request-bytes, or ask for less at once"
                    .into(),
            ),
            Cause::TooManyOperations => (
                ErrorKind::Config,
                "the request has too many operations for etcd; set max_txn_ops to the server's \
                 --max-txn-ops"
                    .into(),
            ),
            Cause::Compacted => (
                ErrorKind::Unavailable,
                "etcd was compacted while its answer was read page by page; try again".into(),
            ),
            Cause::NoLease | Cause::Other => (
                ErrorKind::Internal,
                place("refused a request of this software"),
            ),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)
    }
}

/// Whether the request was never sent, because there was no connection.
fn was_not_connected(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        next = error.source();
    }
    false
}

/// Whether nothing listens at the address of the member.
fn was_refused(error: &(dyn StdError + 'static)) -> bool {
    let mut causes = std::iter::successors(Some(error), |cause| (*cause).source());
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    causes.any(|cause| cause.downcast_ref::<io::Error>().is_some_and(refused))
}

fn innermost(error: &(dyn StdError + 'static)) -> String {
    let mut last = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        last = error.to_string();
        next = error.source();
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(code: Code, message: &str) -> (ErrorKind, ErrorKind, String) {
        let failure = Failure::of_status(code, message, None);
        let read = failure.error("test", Effect::Read);
        let write = failure.error("test", Effect::Write);
        (read.kind(), write.kind(), write.to_string())
    }

    #[test]
    fn only_what_proves_that_nothing_happened_is_unavailable() {
        for (code, message) in [
            (Code::Cancelled, "Timeout expired"),
            (Code::Unavailable, "etcdserver: request timed out"),
            (
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to previous leader failure",
            ),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unavailable, "etcdserver: server stopped"),
            (Code::Unavailable, "error reading a body from connection"),
            (Code::Unknown, "transport error"),
            (Code::Unknown, "raft proposal dropped"),
            (Code::Internal, "h2 protocol error"),
            (Code::DeadlineExceeded, "context deadline exceeded"),
        ] {
            let (read, write, _) = kinds(code, message);
            assert_eq!(read, ErrorKind::Unavailable, "{message}");
            assert_eq!(write, ErrorKind::Indeterminate, "{message}");
        }
        let (_, write, _) = kinds(Code::Unavailable, "etcdserver: no leader");
        assert_eq!(write, ErrorKind::Unavailable);
    }

    #[test]
    fn every_cause_names_its_cure() {
        use ErrorKind::{Config, InvalidInput, Unauthorised, Unavailable};
        for (code, message, kind, cure) in [
            (
                Code::ResourceExhausted,
                "etcdserver: mvcc: database space exceeded",
                Unavailable,
                "defragment",
            ),
            (
                Code::InvalidArgument,
                "etcdserver: request is too large",
                InvalidInput,
                "--max-request-bytes",
            ),
            (
                Code::InvalidArgument,
                "etcdserver: too many operations in txn request",
                Config,
                "--max-txn-ops",
            ),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                Unauthorised,
                "user and password",
            ),
            (
                Code::InvalidArgument,
                "etcdserver: user name is empty",
                Unauthorised,
                "user and password",
            ),
            (
                Code::PermissionDenied,
                "etcdserver: permission denied",
                Unauthorised,
                "start with the prefix",
            ),
            (
                Code::Unauthenticated,
                "etcdserver: invalid auth token",
                Unauthorised,
                "user and password",
            ),
        ] {
            let (_, write, shown) = kinds(code, message);
            assert_eq!(write, kind, "{message}");
            assert!(shown.contains(cure), "{shown}");
        }
    }

    #[test]
    fn a_token_of_before_the_users_changed_is_to_be_renewed() {
        let old = "etcdserver: revision of auth store is old";
        let failure = Failure::of_status(Code::InvalidArgument, old, None);
        assert_eq!(failure.cause, Cause::Token);
        assert!(failure.changed_nothing());
    }
}
