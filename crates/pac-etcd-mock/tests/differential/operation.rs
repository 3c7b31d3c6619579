//! What a sequence consists of: requests to etcd, in terms that mean the same on every server.
//! A revision is given by its distance from the present one, a lease by its number in the sequence.

use std::fmt;

/// A key or a value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) &'static [u8]);

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

impl Text {
    pub(crate) fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

/// Keys: as many as etcd sorts without changing the order of equals, since its sorting of more
/// than 12 is not stable.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Span {
    One(Text),
    Prefix(Text),
    From(Text),
    All,
    /// From the first to before the second, which may be the lesser one.
    Between(Text, Text),
}

impl Span {
    /// The fields `key` and `range_end`.
    pub(crate) fn range(self) -> (Vec<u8>, Vec<u8>) {
        match self {
            Self::One(key) => (key.to_vec(), Vec::new()),
            Self::Prefix(Text(b"")) | Self::All => (vec![0], vec![0]),
            Self::Prefix(key) => (key.to_vec(), after_prefix(key.0)),
            Self::From(key) => (key.to_vec(), vec![0]),
            Self::Between(from, to) => (from.to_vec(), to.to_vec()),
        }
    }

    /// A key inside, as a watch understands it: for a watch, an empty key is the least one.
    pub(crate) fn inside(self) -> Vec<u8> {
        match self.range().0 {
            key if key.is_empty() => vec![0],
            key => key,
        }
    }
}

/// The first key that is greater than all keys with the prefix.
fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

/// A revision in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Revision {
    /// The field's default.
    Unset,
    /// So many after the present one; before it, if negative.
    Now(i8),
    /// As it is.
    Raw(i64),
}

/// A lease in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lease {
    /// No lease; in a grant: the server chooses the id.
    None,
    /// The id that the client chooses.
    Chosen(i64),
    /// The one to which the server has given the id in this sequence: the first is 0.
    Assigned(usize),
}

#[derive(Debug, Clone)]
pub(crate) struct Range {
    pub(crate) span: Span,
    pub(crate) limit: i64,
    pub(crate) revision: Revision,
    pub(crate) order: i32,
    pub(crate) target: i32,
    pub(crate) serializable: bool,
    pub(crate) keys_only: bool,
    pub(crate) count_only: bool,
    /// Least and greatest modification, least and greatest creation.
    pub(crate) bounds: [Revision; 4],
}

#[derive(Debug, Clone)]
pub(crate) struct Put {
    pub(crate) key: Text,
    pub(crate) value: Text,
    pub(crate) lease: Lease,
    pub(crate) prev_kv: bool,
    pub(crate) ignore_value: bool,
    pub(crate) ignore_lease: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Delete {
    pub(crate) span: Span,
    pub(crate) prev_kv: bool,
}

/// What a compare compares with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Union {
    Version(i64),
    Create(Revision),
    Mod(Revision),
    Value(Text),
    Lease(Lease),
    Absent,
}

#[derive(Debug, Clone)]
pub(crate) struct Compare {
    pub(crate) span: Span,
    /// Equal, greater, less, not equal.
    pub(crate) result: i32,
    /// Version, creation, modification, value, lease: as a rule that of the union.
    pub(crate) target: i32,
    pub(crate) union: Union,
}

#[derive(Debug, Clone)]
pub(crate) enum TxnOp {
    Range(Range),
    Put(Put),
    Delete(Delete),
    Txn(Txn),
    /// A request without content.
    Nothing,
    /// So many reads of one key: for the limit of requests in a transaction.
    Many(u8),
}

#[derive(Debug, Clone)]
pub(crate) struct Txn {
    pub(crate) compares: Vec<Compare>,
    pub(crate) success: Vec<TxnOp>,
    pub(crate) failure: Vec<TxnOp>,
}

impl Txn {
    /// It alone.
    pub(crate) fn without_nested(&self) -> Self {
        let mut alone = self.clone();
        for branch in [&mut alone.success, &mut alone.failure] {
            branch.retain(|op| !matches!(op, TxnOp::Txn(_)));
        }
        alone
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Watch {
    pub(crate) span: Span,
    pub(crate) start: Revision,
    /// 0 leaves the choice to the server.
    pub(crate) id: i64,
    pub(crate) prev_kv: bool,
    pub(crate) no_put: bool,
    pub(crate) no_delete: bool,
    pub(crate) fragment: bool,
    pub(crate) progress: bool,
}

/// An operation on users and roles.
#[derive(Debug, Clone)]
pub(crate) enum Auth {
    Enable,
    Disable,
    Status,
    Authenticate(&'static str, &'static str),
    UserAdd(&'static str, &'static str),
    /// A user without a password.
    UserAddBare(&'static str),
    UserDelete(&'static str),
    UserPassword(&'static str, &'static str),
    UserGrant(&'static str, &'static str),
    UserRevoke(&'static str, &'static str),
    UserGet(&'static str),
    UserList,
    RoleAdd(&'static str),
    RoleDelete(&'static str),
    /// Read, write or both.
    RoleGrant(&'static str, i32, Span),
    RoleRevoke(&'static str, Span),
    RoleGet(&'static str),
    RoleList,
}

/// The client that sends what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// Without a token.
    Nobody,
    /// With the last token that this user got in this sequence, or without if it got none.
    User(&'static str),
    /// With a token that no server gave.
    Forger,
}

#[derive(Debug, Clone)]
pub(crate) enum Op {
    Range(Range),
    Put(Put),
    /// A put of so many bytes.
    PutLarge(Text, usize),
    Delete(Delete),
    Txn(Txn),
    Compact(Revision, bool),
    Grant(Lease, i64),
    /// A lease too short to last for a sequence, which is revoked at once.
    GrantShort(i64),
    Revoke(Lease),
    KeepAlive(Lease),
    TimeToLive(Lease, bool),
    Leases,
    Watch(Watch),
    /// Cancels the watch that this sequence created as the n-th.
    Cancel(usize),
    /// Asks for the progress of all watches.
    Progress,
    Auth(Auth),
    As(Caller),
}

impl Op {
    /// The name under which it is counted.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Range(_) => "range",
            Self::Put(_) | Self::PutLarge(..) => "put",
            Self::Delete(_) => "delete",
            Self::Txn(_) => "txn",
            Self::Compact(..) => "compact",
            Self::Grant(..) | Self::GrantShort(_) => "lease grant",
            Self::Revoke(_) => "lease revoke",
            Self::KeepAlive(_) => "lease keep-alive",
            Self::TimeToLive(..) => "lease time-to-live",
            Self::Leases => "lease list",
            Self::Watch(_) => "watch create",
            Self::Cancel(_) => "watch cancel",
            Self::Progress => "watch progress",
            Self::Auth(auth) => auth.kind(),
            Self::As(_) => "change of user",
        }
    }
}

impl Auth {
    fn kind(&self) -> &'static str {
        match self {
            Self::Enable | Self::Disable | Self::Status => "auth enable, disable, status",
            Self::Authenticate(..) => "authenticate",
            Self::UserAdd(..)
            | Self::UserAddBare(_)
            | Self::UserDelete(_)
            | Self::UserPassword(..) => "user add, delete, password",
            Self::UserGrant(..) | Self::UserRevoke(..) => "user grant, revoke",
            Self::UserGet(_) | Self::UserList => "user get, list",
            Self::RoleAdd(_) | Self::RoleDelete(_) => "role add, delete",
            Self::RoleGrant(..) | Self::RoleRevoke(..) => "role grant, revoke",
            Self::RoleGet(_) | Self::RoleList => "role get, list",
        }
    }
}
