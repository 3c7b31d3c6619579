//! The runs of a removed repository that are too many to be deleted with its head, waiting, running
//! and finished ones alike. They are left behind, which the removal notes under `removed/`, and
//! deleted in small steps: by the process that has removed the repository, and by any other that
//! finds the note later. Until then every read passes over them, also one of a new repository of the
//! same name.
//!
//! A run is left behind if its ticket is not above those that the note names, and its key was not
//! written after the note. New repositories count on from above those tickets, so that the first
//! alone tells their runs apart; but for runs that a migration has brought along with their tickets.
//! The second alone would not do in a store that was copied key by key.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pac_core::effect::Effect;
use pac_core::state::Entry;
use pac_core::{Error, RepositoryKey, Revision, Ticket};
use tokio::time::Instant;

use super::pages::Pages;
use super::{PAGE, Store, one, revision};
use crate::client::failure::Failure;
use crate::client::{Compare, KeyValue, Operation, Range, Transaction};
use crate::keys::{Place, end_of};
use crate::record::decode_removed;

/// How often a process looks for what others have left behind. For the first time within so long,
/// by chance: many that begin at once do not delete the same runs at once.
const LOOK_EVERY: Duration = Duration::from_secs(10 * 60);

/// Most repositories that are remembered. Others are found by a later look.
const REMEMBERED: usize = 1_000;

/// A removal that has left runs behind.
#[derive(Debug, Clone, Copy)]
pub(super) struct Removal {
    at: Revision,
    highest: Ticket,
}

impl Removal {
    pub(super) fn decode(kv: &KeyValue) -> Result<Self, Error> {
        Ok(Self {
            at: revision(kv.modified),
            highest: decode_removed(&kv.key, &kv.value)?,
        })
    }

    /// Whether this run is left behind, with the revision that its key was last written at.
    pub(super) fn has_left(self, entry: &Entry) -> bool {
        entry.ticket <= self.highest && entry.revision <= self.at
    }
}

/// What this process knows of runs that are left behind.
#[derive(Debug)]
pub(crate) struct LeftBehind {
    of: Mutex<BTreeSet<RepositoryKey>>,
    next_look: Mutex<Instant>,
}

impl Default for LeftBehind {
    fn default() -> Self {
        let first = Instant::now() + LOOK_EVERY.mul_f64(fastrand::f64());
        Self {
            of: Mutex::default(),
            next_look: Mutex::new(first),
        }
    }
}

impl LeftBehind {
    fn of(&self) -> MutexGuard<'_, BTreeSet<RepositoryKey>> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that runs of a removed repository are left behind.
    pub(super) fn note(&self, repository: &RepositoryKey) {
        let mut of = self.of();
        if of.len() < REMEMBERED {
            of.insert(repository.clone());
        }
    }

    /// Whether to look now.
    fn is_to_look(&self) -> bool {
        *self.next_look() <= Instant::now()
    }

    fn next_look(&self) -> MutexGuard<'_, Instant> {
        self.next_look
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Goes on deleting what removals have left behind, in small steps. May be dropped at any point:
    /// what is deleted by then stays deleted, and a later call goes on. Mostly makes no request.
    pub(crate) async fn delete_left_behind(&self) {
        if self.left_behind.is_to_look() {
            match self.look_for_left_behind().await {
                Ok(()) => *self.left_behind.next_look() = Instant::now() + LOOK_EVERY,
                Err(failure) => tracing::debug!(%failure, "cannot look what removals have left"),
            }
        }
        let known: Vec<_> = self.left_behind.of().iter().cloned().collect();
        for repository in known {
            match self.delete_left_of(&repository).await {
                Ok(true) => {
                    self.left_behind.of().remove(&repository);
                }
                Ok(false) => {}
                Err(failure) => {
                    tracing::debug!(%repository, %failure, "its runs are not deleted yet");
                }
            }
        }
    }

    async fn look_for_left_behind(&self) -> Result<(), Failure> {
        let prefix = self.keys.all_removed();
        let range = Range {
            end: end_of(&prefix),
            key: prefix.into_bytes(),
            limit: REMEMBERED,
            keys_only: true,
            ..Range::default()
        };
        let found = self.cluster.read(range).await?;
        for kv in &found.entries {
            match self.keys.place(&kv.key) {
                Some(Place::Removed(repository)) => self.left_behind.note(&repository),
                _ => self.oddities.note(&kv.key, &"no key of this software"),
            }
        }
        Ok(())
    }

    /// Deletes the runs that the removal of a repository has left behind, then the note of that.
    /// False when another removal has left more behind meanwhile.
    async fn delete_left_of(&self, repository: &RepositoryKey) -> Result<bool, Failure> {
        let note = self.keys.removed(repository);
        let found = self.cluster.read(one(note.clone())).await?;
        let Some(kv) = found.entries.first() else {
            return Ok(true);
        };
        let removal = match Removal::decode(kv) {
            Ok(removal) => removal,
            Err(error) => {
                self.oddities.note(&kv.key, &error);
                return Ok(true);
            }
        };
        let prefix = self.keys.entries(repository);
        let range = Range {
            end: end_of(&prefix),
            key: prefix.into_bytes(),
            limit: PAGE,
            ..Range::default()
        };
        let mut pages = Pages::of(&self.cluster, range);
        while let Some(page) = pages.next().await? {
            let left = page.entries.into_iter().filter(|kv| {
                // What cannot be decoded is told by the reads of the repository.
                let entry = self.entry(repository, kv);
                entry.is_ok_and(|entry| removal.has_left(&entry))
            });
            let mut left = left.map(|kv| (kv.modified, kv.key)).collect();
            self.delete(&mut left, 1).await?;
        }
        let deletion = Transaction {
            when: vec![Compare::ModifiedAt(note.clone(), kv.modified)],
            then: vec![Operation::Delete(note)],
            otherwise: Vec::new(),
        };
        let answer = self.cluster.transact(&deletion, Effect::Write).await?;
        Ok(answer.succeeded)
    }
}
