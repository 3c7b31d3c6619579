//! The errors of etcd, with its own codes and texts: clients match on both.
//!
//! Source: `api/v3rpc/rpctypes/error.go` and `server/etcdserver/api/v3rpc/util.go` of etcd 3.5.

use std::borrow::Cow;

/// The codes of gRPC that etcd answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Unknown,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    OutOfRange,
    Unavailable,
    Unauthenticated,
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) text: Cow<'static, str>,
}

impl Refusal {
    pub(crate) const fn new(code: Code, text: &'static str) -> Self {
        Self {
            code,
            text: Cow::Borrowed(text),
        }
    }
}

/// What a request comes to.
pub(crate) type Answer<T> = Result<T, Refusal>;

macro_rules! refusals {
    ($($name:ident = $code:ident, $text:literal;)*) => {
        $(pub(crate) const $name: Refusal = Refusal::new(Code::$code, $text);)*
    };
}

refusals! {
    EMPTY_KEY = InvalidArgument, "etcdserver: key is not provided";
    KEY_NOT_FOUND = InvalidArgument, "etcdserver: key not found";
    VALUE_PROVIDED = InvalidArgument, "etcdserver: value is provided";
    LEASE_PROVIDED = InvalidArgument, "etcdserver: lease is provided";
    TOO_MANY_OPS = InvalidArgument, "etcdserver: too many operations in txn request";
    DUPLICATE_KEY = InvalidArgument, "etcdserver: duplicate key given in txn request";
    INVALID_SORT = InvalidArgument, "etcdserver: invalid sort option";
    COMPACTED = OutOfRange, "etcdserver: mvcc: required revision has been compacted";
    FUTURE_REVISION = OutOfRange, "etcdserver: mvcc: required revision is a future revision";
    NO_SPACE = ResourceExhausted, "etcdserver: mvcc: database space exceeded";

    LEASE_NOT_FOUND = NotFound, "etcdserver: requested lease not found";
    LEASE_EXISTS = FailedPrecondition, "etcdserver: lease already exists";
    LEASE_TTL_TOO_LARGE = OutOfRange, "etcdserver: too large lease TTL";

    REQUEST_TOO_LARGE = InvalidArgument, "etcdserver: request is too large";

    ROOT_USER_NOT_EXIST = FailedPrecondition, "etcdserver: root user does not exist";
    ROOT_ROLE_NOT_EXIST = FailedPrecondition, "etcdserver: root user does not have root role";
    USER_EXISTS = FailedPrecondition, "etcdserver: user name already exists";
    USER_EMPTY = InvalidArgument, "etcdserver: user name is empty";
    USER_NOT_FOUND = FailedPrecondition, "etcdserver: user name not found";
    ROLE_EXISTS = FailedPrecondition, "etcdserver: role name already exists";
    ROLE_NOT_FOUND = FailedPrecondition, "etcdserver: role name not found";
    ROLE_EMPTY = InvalidArgument, "etcdserver: role name is empty";
    AUTH_FAILED = InvalidArgument,
        "etcdserver: authentication failed, invalid user ID or password";
    PASSWORD_OF_NO_PASSWORD_USER = Unknown,
        "auth: authentication failed, password was given for no password user";
    PERMISSION_NOT_GIVEN = InvalidArgument, "etcdserver: permission not given";
    PERMISSION_DENIED = PermissionDenied, "etcdserver: permission denied";
    ROLE_NOT_GRANTED = FailedPrecondition, "etcdserver: role is not granted to the user";
    PERMISSION_NOT_GRANTED = FailedPrecondition,
        "etcdserver: permission is not granted to the role";
    AUTH_NOT_ENABLED = FailedPrecondition, "etcdserver: authentication is not enabled";
    INVALID_TOKEN = Unauthenticated, "etcdserver: invalid auth token";
    // As of 3.4 and of 3.5 from 3.5.2 on.
    OLD_AUTH_REVISION = InvalidArgument, "etcdserver: revision of auth store is old";
    INVALID_AUTH_MANAGEMENT = InvalidArgument, "etcdserver: invalid auth management";

    TIMED_OUT = Unavailable, "etcdserver: request timed out";
    NO_LEADER = Unavailable, "etcdserver: no leader";
}
