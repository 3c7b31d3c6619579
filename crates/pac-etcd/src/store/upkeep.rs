//! Keeps etcd from filling up: compacts it where that is asked for, and says where nothing does.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pac_core::ErrorKind;
use pac_core::driver::Finding;
use pac_core::effect::Effect;
use tokio::time::Instant;

use crate::client::failure::{Cause, Failure};
use crate::client::{Client, Compare, Operation, Range, Standing, Transaction};
use crate::store::{Store, all_pages, one_key};

/// An etcd that still has its first revision, and so many more, has never been compacted. Its
/// default quota is full after some 6 million revisions of this driver.
const MANY: i64 = 20_000;

/// An etcd that still has all of so many revisions is compacted too seldom, or not any more.
const TOO_MANY: i64 = 1_000_000;

/// etcd's default of `--quota-backend-bytes`, in bytes (`DefaultQuotaBytes` in etcd's
/// `server/storage/quota.go`).
const DEFAULT_QUOTA: u64 = 2 * 1024 * 1024 * 1024;

/// How often a process looks whether etcd fills up, and says so.
const LOOK_EVERY: Duration = Duration::from_secs(10 * 60);

/// What this process knows of the upkeep of the store.
#[derive(Debug)]
pub(crate) struct Upkeep {
    /// How long revisions are kept; `None`: etcd or somebody else compacts.
    keep: Option<Duration>,
    turn: Mutex<Option<Turn>>,
    /// Whether the user may not compact.
    refused: AtomicBool,
    /// The first revision that the watch of this process has not told of; 0 without a watch.
    awaited: AtomicI64,
    looked: Mutex<Instant>,
}

/// When this process last saw which compaction was the latest.
#[derive(Debug, Clone, Copy)]
struct Turn {
    at: Instant,
    /// The revision of the key that is written before each compaction; 0: there is none yet.
    key: i64,
    /// Of the store, then.
    revision: i64,
    /// It is this process's turn, and it has not compacted to this revision yet.
    owed: Option<i64>,
}

impl Upkeep {
    pub(crate) fn new(keep: Option<Duration>) -> Self {
        Self {
            keep,
            turn: Mutex::default(),
            refused: AtomicBool::default(),
            awaited: AtomicI64::default(),
            looked: Mutex::new(Instant::now()),
        }
    }

    /// Notes from which revision on the watch would have to be resumed; 0: there is no watch.
    pub(crate) fn await_from(&self, revision: i64) {
        self.awaited.store(revision, Ordering::Relaxed);
    }

    fn turn(&self) -> MutexGuard<'_, Option<Turn>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to which revision may be compacted that was the store's long enough ago.
    fn limit(&self, old_enough: i64) -> i64 {
        match self.awaited.load(Ordering::Relaxed) {
            0 => old_enough,
            awaited => old_enough.min(awaited - 1),
        }
    }

    /// Whether to look again. Notes that this was done.
    fn is_to_look(&self) -> bool {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let due = looked.elapsed() >= LOOK_EVERY;
        if due {
            *looked = Instant::now();
        }
        due
    }
}

impl Store {
    /// What an operator should know of this etcd. Up to three requests, which only read.
    pub(crate) async fn findings(&self) -> Result<Vec<Finding>, Failure> {
        let standing = self.cluster.standing().await?;
        let mut findings = self.cluster.findings().await;
        findings.extend(self.findings_of(&standing).await?);
        Ok(findings)
    }

    /// The same, of a member that has told its standing already.
    pub(crate) async fn findings_of(&self, standing: &Standing) -> Result<Vec<Finding>, Failure> {
        let mut findings = troubles(standing);
        findings.extend(self.oddities.finding());
        if self.upkeep.keep.is_none()
            && let Some(kept) = self.kept_too_long(standing.revision).await?
        {
            findings.push(Finding::warning(
                kept,
                "start etcd with --auto-compaction-mode=periodic --auto-compaction-retention=1h, \
                 or set etcd-compaction where nothing else needs its old revisions; all writes \
                 stop when its database is full",
            ));
        }
        Ok(findings)
    }

    async fn kept_too_long(&self, revision: i64) -> Result<Option<String>, Failure> {
        if revision > MANY && self.has_revision(1).await? {
            let text = format!("etcd has never been compacted, and keeps all {revision} revisions");
            return Ok(Some(text));
        }
        if revision > TOO_MANY && self.has_revision(revision - TOO_MANY).await? {
            let text =
                format!("etcd is compacted too seldom: it keeps the last {TOO_MANY} revisions");
            return Ok(Some(text));
        }
        Ok(None)
    }

    /// Whether a revision can still be read.
    async fn has_revision(&self, revision: i64) -> Result<bool, Failure> {
        let range = Range {
            at: revision,
            ..one_key(self.keys.never())
        };
        match self.cluster.read(range).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.cause == Cause::Compacted => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// Compacts if that is this process's turn, and says from time to time what an operator should
    /// know. Mostly makes no request.
    pub(crate) async fn keep_up(&self) {
        if let Err(failure) = self.compact_if_due().await {
            tracing::debug!(%failure, "etcd is not compacted yet");
        }
        if self.upkeep.is_to_look() {
            match self.findings().await {
                Ok(findings) => tell(&findings),
                Err(failure) => tracing::debug!(%failure, "etcd does not say how it is"),
            }
        }
    }

    /// Compacts to a revision that is old enough. All processes look at one key; the first whose
    /// time has come writes it and compacts, and the others begin to wait anew.
    async fn compact_if_due(&self) -> Result<(), Failure> {
        let Some(keep) = self.upkeep.keep else {
            return Ok(());
        };
        if self.upkeep.refused.load(Ordering::Relaxed) {
            return Ok(());
        }
        let Some(turn) = *self.upkeep.turn() else {
            let turn = self.look_at_turn().await?;
            *self.upkeep.turn() = Some(turn);
            return Ok(());
        };
        if let Some(owed) = turn.owed {
            return self.compact_now(owed).await;
        }
        if turn.at.elapsed() < keep {
            return Ok(());
        }
        let key = self.keys.compaction();
        let transaction = Transaction {
            when: vec![Compare::ModifiedAt(key.clone(), turn.key)],
            then: vec![Operation::Put {
                key: key.clone(),
                value: Vec::new(),
                lease: 0,
            }],
            otherwise: vec![Operation::Get(one_key(key))],
        };
        let at = Instant::now();
        let next = match self.cluster.transact(&transaction, Effect::Write).await {
            Ok(answer) if answer.succeeded => Turn {
                at,
                key: answer.revision,
                revision: answer.revision,
                owed: Some(turn.revision),
            },
            Ok(answer) => {
                let revision = answer.revision;
                let page = all_pages(answer.steps).into_iter().next();
                let found = page.and_then(|page| page.entries.into_iter().next());
                Turn {
                    at,
                    key: found.map_or(0, |kv| kv.modified),
                    revision,
                    owed: None,
                }
            }
            // Nothing can be written, but it can be compacted; by more than one process at worst.
            Err(failure) if failure.cause == Cause::Full => Turn {
                owed: Some(turn.revision),
                ..self.look_at_turn().await?
            },
            Err(failure) => return Err(failure),
        };
        // Noted before anything else: a compaction that takes longer than this call may is made up
        // for by the next one.
        *self.upkeep.turn() = Some(next);
        match next.owed {
            Some(owed) => self.compact_now(owed).await,
            None => Ok(()),
        }
    }

    /// The latest compaction and the revision of the store, as they are now.
    async fn look_at_turn(&self) -> Result<Turn, Failure> {
        let page = self.cluster.read(one_key(self.keys.compaction())).await?;
        Ok(Turn {
            at: Instant::now(),
            key: page.entries.first().map_or(0, |kv| kv.modified),
            revision: page.revision,
            owed: None,
        })
    }

    /// Compacts, and notes that this process's turn is over.
    async fn compact_now(&self, owed: i64) -> Result<(), Failure> {
        self.compact(owed).await?;
        if let Some(turn) = &mut *self.upkeep.turn() {
            turn.owed = None;
        }
        Ok(())
    }

    async fn compact(&self, old_enough: i64) -> Result<(), Failure> {
        let to = self.upkeep.limit(old_enough);
        if to < 1 {
            return Ok(());
        }
        let compact = move |client: Client| async move { client.compact(to).await };
        match self.cluster.call(Effect::Write, compact).await {
            Ok(()) => {
                tracing::debug!(revision = to, "compacted etcd");
                Ok(())
            }
            // Somebody else has.
            Err(failure) if failure.cause == Cause::Compacted => Ok(()),
            Err(failure) if failure.cause == Cause::Denied => {
                self.upkeep.refused.store(true, Ordering::Relaxed);
                tracing::warn!(
                    "etcd-compaction is set, but the user of etcd may not compact: give it the \
                     role root, or start etcd with --auto-compaction-retention instead"
                );
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }
}

/// Writes findings to the log.
pub(crate) fn tell(findings: &[Finding]) {
    for finding in findings {
        tracing::warn!("{finding}");
    }
}

/// What is wrong with a member by its own account.
fn troubles(standing: &Standing) -> Vec<Finding> {
    let mut found = Vec::new();
    let has = |alarm: &str| standing.alarms.iter().any(|told| told.contains(alarm));
    if has("NOSPACE") {
        found.push(Finding::failure(
            ErrorKind::Unavailable,
            format!(
                "the database of etcd is full (alarm NOSPACE, {}), and nothing can be written",
                mebibytes(standing.size)
            ),
            "compact and defragment it or raise --quota-backend-bytes, then disarm the alarm with \
             `etcdctl alarm disarm`",
        ));
    }
    if has("CORRUPT") {
        found.push(Finding::failure(
            ErrorKind::Corrupt,
            "a member of etcd has found that its data differs from the others' (alarm CORRUPT)",
            "replace that member; `etcdctl alarm list` names it",
        ));
    }
    let quota = standing.quota.unwrap_or(DEFAULT_QUOTA);
    if !has("NOSPACE") && standing.size / 3 >= quota / 4 {
        let of = match standing.quota {
            Some(quota) => format!("its quota of {}", mebibytes(quota)),
            None => format!(
                "{}, the default of --quota-backend-bytes (this version does not tell its own)",
                mebibytes(quota)
            ),
        };
        let (size, in_use) = (mebibytes(standing.size), mebibytes(standing.in_use));
        found.push(Finding::warning(
            format!("the database of etcd has {size}, of which {in_use} are in use; {of} is near"),
            if standing.in_use < standing.size / 2 {
                "defragment its members, one after the other, with `etcdctl defrag`"
            } else {
                "raise --quota-backend-bytes, and see to it that etcd is compacted \
                 (--auto-compaction-retention, or etcd-compaction)"
            },
        ));
    }
    found
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes / (1024 * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pac_core::driver::Level;

    const GIB: u64 = 1024 * 1024 * 1024;

    fn standing(size: u64, in_use: u64, quota: Option<u64>, alarm: &str) -> Standing {
        Standing {
            version: "3.5.23".to_owned(),
            revision: 7,
            size,
            in_use,
            quota,
            alarms: Some(alarm.to_owned())
                .filter(|a| !a.is_empty())
                .into_iter()
                .collect(),
        }
    }

    #[test]
    fn a_database_that_fills_up_is_found_with_its_cure() {
        for (size, in_use, quota, alarm, expected) in [
            (GIB, GIB, None, "", None),
            (GIB, GIB, Some(GIB), "", Some("quota of 1024 MiB")),
            (GIB, GIB, Some(8 * GIB), "", None),
            (2 * GIB, 2 * GIB, None, "", Some("etcd-compaction")),
            (2 * GIB, GIB / 8, None, "", Some("etcdctl defrag")),
            (
                GIB,
                GIB,
                None,
                "memberID:1 alarm:NOSPACE",
                Some("alarm disarm"),
            ),
            (GIB, GIB, None, "memberID:1 alarm:CORRUPT", Some("replace")),
        ] {
            let found = troubles(&standing(size, in_use, quota, alarm));
            let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
            assert_eq!(shown.len(), usize::from(expected.is_some()), "{shown:?}");
            let said = expected.is_none_or(|words| shown.iter().all(|said| said.contains(words)));
            assert!(said, "{shown:?}");
            let fails = found.iter().any(|f| f.level() != Level::Warning);
            assert_eq!(fails, !alarm.is_empty(), "{shown:?}");
        }
    }

    #[test]
    fn what_a_watch_still_needs_is_not_compacted() {
        let upkeep = Upkeep::new(Some(Duration::from_secs(60)));
        assert_eq!(upkeep.limit(100), 100);
        upkeep.await_from(80);
        assert_eq!(upkeep.limit(100), 79);
        upkeep.await_from(200);
        assert_eq!(upkeep.limit(100), 100);
        upkeep.await_from(0);
        assert_eq!(upkeep.limit(100), 100);
    }
}
