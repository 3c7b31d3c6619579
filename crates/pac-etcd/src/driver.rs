//! [`EtcdDriver`]: the `Driver` trait over the store, the sessions and the watches.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pac_core::driver::{
    Commit, Descriptor, Driver, Finding, ListFilter, Placement, RepositoryCommit, SessionTtl, Watch,
};
use pac_core::effect::Effect;
use pac_core::protocol::Death;
use pac_core::state::{Head, Snapshot};
use pac_core::{Error, ErrorKind, RepositoryKey, SessionId, SessionIdentity, SessionInfo, Version};

use crate::EtcdOptions;
use crate::client::cluster::Cluster;
use crate::client::failure::{Cause, Failure};
use crate::client::{Compare, Operation, Range, Transaction};
use crate::keys::{Keys, end_of};
use crate::options::Access;
use crate::sessions::Sessions;
use crate::store::Store;
use crate::store::chores::Chores;
use crate::store::retention::Finished;
use crate::store::upkeep::{Upkeep, tell};
use crate::watch::Watches;

/// The default of the setting `etcd-lease-ttl`.
const LEASE_TTL: Duration = Duration::from_secs(60 * 60);

/// How many repositories are looked at for foreign keys and values.
const LOOKED_AT: usize = 10_000;

/// etcd writes one batch to its disk while the next one is gathered and sent.
const BATCHES_IN_FLIGHT: usize = 2;

/// A driver that keeps its state in an etcd cluster.
#[derive(Debug)]
pub struct EtcdDriver {
    descriptor: Descriptor,
    store: Arc<Store>,
    sessions: Sessions,
    watches: Watches,
    chores: Chores,
}

impl EtcdDriver {
    /// Connects to a cluster, checks that the user may read and write the keys under the prefix,
    /// and checks the version of the server. Says at *warn* what an operator should know, as that
    /// nothing compacts the store. Writes nothing, so the future may be dropped.
    ///
    /// While the database is full, and for a user that may only read, it connects all the same:
    /// reads work then, and sessions cannot be opened.
    ///
    /// # Errors
    /// `Config` when options contradict each other, a file cannot be read, the server is too
    /// old, or there is no secure connection; `Unauthorised` when user or password is wrong, or the
    /// user may not read the prefix; `Unavailable` when no member could be reached, or there is no
    /// leader.
    pub async fn connect(options: &EtcdOptions) -> Result<Self, Error> {
        Self::connect_by(options, options.checked().await?).await
    }

    /// Connects to one member over this channel, in the place of the endpoints.
    ///
    /// # Errors
    /// Those of [`connect`](Self::connect).
    #[cfg(feature = "channel")]
    #[doc(hidden)]
    pub async fn connect_over(
        options: &EtcdOptions,
        channel: etcd_client::Channel,
    ) -> Result<Self, Error> {
        let mut access = options.checked().await?;
        access.endpoints.truncate(1);
        access.channel = Some(channel);
        Self::connect_by(options, access).await
    }

    async fn connect_by(options: &EtcdOptions, access: Access) -> Result<Self, Error> {
        let keys = Keys::new(&options.prefix)?;
        let cluster = Cluster::new(Arc::new(access));
        tell(&cluster.findings().await);
        probe(&cluster, &keys).await?;
        let finished = Finished::new(options.retention);
        let upkeep = Upkeep::new(options.compaction);
        let sizes = (options.max_txn_ops, options.max_request_bytes);
        let store = Store::new(cluster, keys, finished, upkeep, sizes);
        look(&store).await?;
        let placement = Placement::Remote {
            batches_in_flight: BATCHES_IN_FLIGHT,
        };
        Ok(Self {
            descriptor: Descriptor::new("etcd", placement, LEASE_TTL, options.retention)
                .with_batches_of(
                    options.max_txn_ops / 2,
                    options.max_txn_ops - BESIDE_ENTRIES,
                ),
            store: Arc::new(store),
            sessions: Sessions::default(),
            watches: Watches::default(),
            chores: Chores::default(),
        })
    }
}

/// Operations in a commit to one repository that are not entries: the two transactions around it,
/// the head, and the key that says that the session has runs there. A few are spare, because etcd
/// counts comparisons too.
const BESIDE_ENTRIES: usize = 8;

#[async_trait]
impl Driver for EtcdDriver {
    fn descriptor(&self) -> Descriptor {
        self.descriptor
    }

    async fn open_session(
        &self,
        ttl: SessionTtl,
        identity: &SessionIdentity,
    ) -> Result<SessionId, Error> {
        self.sessions.open(&self.store, ttl, identity).await
    }

    async fn keep_alive(&self, session: SessionId) -> Result<(), Error> {
        self.sessions.keep_alive(&self.store, session).await
    }

    async fn close_session(&self, session: SessionId) -> Result<(), Error> {
        self.sessions.close(&self.store, session).await
    }

    async fn dead_sessions(&self) -> Result<Vec<(SessionId, Death)>, Error> {
        let died = |id| self.sessions.forget(&self.store, id);
        let dead = self.store.dead_sessions(died).await?;
        let store = Arc::clone(&self.store);
        self.chores
            .begin(async move { store.do_chores().await })
            .await;
        Ok(dead)
    }

    async fn sessions(
        &self,
        sessions: &[SessionId],
    ) -> Result<Vec<(SessionId, SessionInfo)>, Error> {
        self.store.session_info(sessions).await
    }

    async fn repositories_of(&self, session: SessionId) -> Result<Vec<RepositoryKey>, Error> {
        self.store.repositories_of(session).await
    }

    async fn load(
        &self,
        repository: &RepositoryKey,
        since: Option<Version>,
    ) -> Result<Snapshot, Error> {
        self.store.load(repository, since).await
    }

    fn commit(&self, session: SessionId, batch: Vec<RepositoryCommit>) -> Commit {
        let store = Arc::clone(&self.store);
        Commit::pending(async move { store.commit(session, batch).await })
    }

    async fn watch(&self, session: SessionId) -> Result<Box<dyn Watch>, Error> {
        self.watches.subscribe(&self.store, session).await
    }

    async fn list(
        &self,
        filter: ListFilter,
        after: Option<&RepositoryKey>,
        limit: usize,
    ) -> Result<Vec<(RepositoryKey, Head)>, Error> {
        self.store.list(filter, after, limit).await
    }

    async fn server_version(&self) -> Result<Option<String>, Error> {
        let standing = self.store.cluster.standing().await;
        let failed = |failure: Failure| failure.error("read version", Effect::Read);
        standing
            .map(|standing| Some(standing.version))
            .map_err(failed)
    }

    async fn diagnose(&self) -> Result<Vec<Finding>, Error> {
        let mut findings = may_write(&self.store.cluster, &self.store.keys).await?;
        // They pass over foreign keys, which are named among the findings.
        self.store.list(ListFilter::All, None, LOOKED_AT).await?;
        let range = self.store.keys.sessions_and_signs();
        let sessions = self.store.keys_in(range).await;
        sessions.map_err(|failure| failure.error("diagnose", Effect::Read))?;
        let found = self.store.findings().await;
        findings.extend(found.map_err(|failure| failure.error("diagnose", Effect::Read))?);
        Ok(findings)
    }
}

/// Checks the permissions for the prefix without writing; what can only be read is let pass.
async fn probe(cluster: &Cluster, keys: &Keys) -> Result<(), Error> {
    let refused = match cluster.first(&permissions(keys, true)).await {
        Ok(_) => return Ok(()),
        Err(failure) => failure,
    };
    if matches!(refused.cause, Cause::Full | Cause::Denied) {
        let may_read = cluster.first(&permissions(keys, false)).await;
        if may_read.is_ok() {
            tracing::debug!(%refused, "only reads work");
            return Ok(());
        }
    }
    Err(refused.error("connect", Effect::Read))
}

/// What is wrong if the user may not write under the prefix. A full store is found elsewhere.
async fn may_write(cluster: &Cluster, keys: &Keys) -> Result<Vec<Finding>, Error> {
    match cluster
        .transact(&permissions(keys, true), Effect::Read)
        .await
    {
        Err(failure) if failure.cause == Cause::Denied => Ok(vec![Finding::failure(
            ErrorKind::Unauthorised,
            format!(
                "the user of etcd may not write keys under {:?}",
                keys.prefix()
            ),
            "give it a role that may read and write them, as docs/deploy/etcd-role.sh does",
        )]),
        Err(failure) if failure.cause == Cause::Full => Ok(Vec::new()),
        Err(failure) => Err(failure.error("diagnose", Effect::Read)),
        Ok(_) => Ok(Vec::new()),
    }
}

/// A transaction that puts a key only if that key exists, which it never does; etcd checks the
/// user's permissions for both branches.
fn permissions(keys: &Keys, to_write: bool) -> Transaction {
    let put = Operation::Put {
        key: keys.never(),
        value: Vec::new(),
        lease: 0,
    };
    Transaction {
        when: vec![Compare::Exists(keys.never())],
        then: Some(put).filter(|_| to_write).into_iter().collect(),
        otherwise: vec![Operation::Get(Range {
            key: keys.prefix().to_owned().into_bytes(),
            end: end_of(keys.prefix()),
            limit: 1,
            keys_only: true,
            ..Range::default()
        })],
    }
}

/// Looks at the server: refuses one that is too old, and says at *warn* what an operator should
/// know. What cannot be found out is left out.
async fn look(store: &Store) -> Result<(), Error> {
    let standing = match store.cluster.standing().await {
        Ok(standing) => standing,
        Err(failure) => {
            tracing::debug!(%failure, "the server does not say how it is");
            return Ok(());
        }
    };
    check_version(&standing.version)?;
    match store.findings_of(&standing).await {
        Ok(findings) => tell(&findings),
        Err(failure) => tracing::debug!(%failure, "the revisions of etcd cannot be looked at"),
    }
    Ok(())
}

fn check_version(version: &str) -> Result<(), Error> {
    match advice(version) {
        Advice::None => Ok(()),
        Advice::Upgrade => {
            tracing::warn!(
                version,
                "this version of etcd may lose watch events or leases; upgrade to 3.5.23, 3.6.5 \
                 or later"
            );
            Ok(())
        }
        Advice::Refuse => {
            let message = format!("etcd is of version {version}; 3.4 or later is needed");
            Err(Error::new(ErrorKind::Config, "connect", message))
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Advice {
    None,
    Upgrade,
    Refuse,
}

/// What to do about a server of this version, from etcd's changelogs of 3.5.23 and 3.6.5.
fn advice(version: &str) -> Advice {
    let release = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Option<Vec<u32>> = release.split('.').map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some([3, minor, _]) if *minor < 4 => Advice::Refuse,
        Some([major, ..]) if *major < 3 => Advice::Refuse,
        Some([3, 4, _]) => Advice::Upgrade,
        Some([3, 5, patch]) if *patch < 23 => Advice::Upgrade,
        Some([3, 6, patch]) if *patch < 5 => Advice::Upgrade,
        _ => Advice::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_refused_warned_of_or_taken() {
        for (version, expected) in [
            ("2.3.8", Advice::Refuse),
            ("3.3.27", Advice::Refuse),
            ("3.4.23", Advice::Upgrade),
            ("3.5.1", Advice::Upgrade),
            ("3.5.22", Advice::Upgrade),
            ("3.5.23", Advice::None),
            ("3.6.0-rc.1", Advice::Upgrade),
            ("3.6.4", Advice::Upgrade),
            ("3.6.5", Advice::None),
            ("3.7.0", Advice::None),
            ("4.0.0", Advice::None),
            ("", Advice::None),
        ] {
            assert_eq!(advice(version), expected, "{version}");
        }
    }
}
