//! The kinds of requests.

/// A kind of request: one method of one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// `KV.Range`: reads.
    Range,
    /// `KV.Put`.
    Put,
    /// `KV.DeleteRange`.
    DeleteRange,
    /// `KV.Txn`.
    Txn,
    /// `KV.Compact`.
    Compact,
    /// `Lease.LeaseGrant`.
    LeaseGrant,
    /// `Lease.LeaseRevoke`.
    LeaseRevoke,
    /// `Lease.LeaseKeepAlive`: each renewal on an open stream.
    LeaseKeepAlive,
    /// `Lease.LeaseTimeToLive`.
    LeaseTimeToLive,
    /// `Lease.LeaseLeases`.
    LeaseLeases,
    /// `Watch.Watch`: each watch that is created on an open stream.
    WatchCreate,
    /// `Watch.Watch`: each watch that its client cancels.
    WatchCancel,
    /// `Watch.Watch`: each request for progress.
    WatchProgress,
    /// `Auth.Authenticate`.
    Authenticate,
    /// Every other method of `Auth`.
    Auth,
    /// `Cluster.MemberList`.
    Cluster,
    /// `Maintenance.Status`.
    Status,
    /// `Maintenance.Alarm`.
    Alarm,
    /// `Lock.Lock` and `Lock.Unlock`. What they read and write is not counted by itself.
    Lock,
    /// The methods of `Election`. What they read and write is not counted by itself.
    Election,
}

impl Operation {
    /// All kinds.
    pub const ALL: [Self; 20] = [
        Self::Range,
        Self::Put,
        Self::DeleteRange,
        Self::Txn,
        Self::Compact,
        Self::LeaseGrant,
        Self::LeaseRevoke,
        Self::LeaseKeepAlive,
        Self::LeaseTimeToLive,
        Self::LeaseLeases,
        Self::WatchCreate,
        Self::WatchCancel,
        Self::WatchProgress,
        Self::Authenticate,
        Self::Auth,
        Self::Cluster,
        Self::Status,
        Self::Alarm,
        Self::Lock,
        Self::Election,
    ];
}
