//! Polling for changes, where notifications do not arrive.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};

use pac_core::hints::{Hints, Reached};
use pac_core::pauses::jittered;
use pac_core::{Error, RepositoryKey, Revision};
use tokio::time::sleep;

use super::{Watches, locked};
use crate::client::{Effect, Row, Type};
use crate::record::cell;

/// The time between two polls, where there are no notifications.
const POLL: Duration = Duration::from_millis(250);
/// A repository that this process has not used for so long is polled no more.
const INTEREST: Duration = Duration::from_secs(600);

/// What to poll for.
#[derive(Debug, Default)]
pub(super) struct Interest {
    /// The repositories, each with the revision to compare with and the time of its last use.
    known: HashMap<RepositoryKey, (Revision, Instant)>,
    /// There are more than at the last poll.
    has_grown: bool,
}

impl Watches {
    /// Notes that this process uses a repository, which one of its managers knows at a revision.
    /// Other managers may know an earlier one, so only a poll, which tells all of them, raises the
    /// revision to compare with.
    pub(crate) fn dealt_with(&self, repository: &RepositoryKey, revision: Revision) {
        if let Some(interest) = &mut *locked(&self.interest) {
            let now = Instant::now();
            let known = interest.known.entry(repository.clone());
            interest.has_grown |= matches!(known, Entry::Vacant(_));
            known.or_insert((revision, now)).1 = now;
        }
    }

    /// From now on changes are found by polling.
    pub(crate) fn poll_from_now_on(&self) {
        *locked(&self.interest) = Some(Interest::default());
    }

    pub(super) fn polls(&self) -> bool {
        locked(&self.interest).is_some()
    }

    /// Polls for changes in place of notifications, for ever.
    pub(crate) async fn poll(&self) {
        let mut seen = String::new();
        loop {
            sleep(jittered(POLL)).await;
            // Sends nothing that could fail.
            let _ = self.send().await;
            match self.look(&mut seen).await {
                Ok(()) => *locked(&self.trouble) = None,
                Err(error) => {
                    if locked(&self.trouble).is_none() {
                        tracing::warn!(%error, "could not poll for changes; trying again");
                    }
                    self.broken(&error);
                }
            }
        }
    }

    /// Looks at the revisions of what is of interest, unless nothing has been committed to the
    /// database since the last look, as of which the snapshot `seen` was.
    async fn look(&self, seen: &mut String) -> Result<(), Error> {
        let (known, has_grown) = self.interesting();
        if known.is_empty() {
            return Ok(());
        }
        let sql = "SELECT pg_catalog.pg_current_snapshot()::text";
        let rows = self.client.query("poll", Effect::Read, sql, &[]).await?;
        let now = rows.first().map_or(Ok(String::new()), |row| cell(row, 0))?;
        if now == *seen && !has_grown {
            return Ok(());
        }
        let names: Vec<_> = known.keys().map(RepositoryKey::as_str).collect();
        let found = self.revisions(&names).await.inspect_err(|_| seen.clear())?;
        self.compare(known, &found);
        *seen = now;
        Ok(())
    }

    /// The revisions of those of the named repositories that exist.
    async fn revisions(&self, names: &[&str]) -> Result<Vec<(String, Revision)>, Error> {
        let sql = format!(
            "SELECT repository, revision FROM {}.repositories WHERE repository = ANY ($1)",
            self.client.schema()
        );
        let params = [(&names as _, Type::TEXT_ARRAY)];
        let rows = self.client.query("poll", Effect::Read, &sql, &params);
        let read = |row: &Row| {
            let revision = u64::try_from(cell::<i64>(row, 1)?).unwrap_or(0);
            Ok((cell(row, 0)?, Revision::new(revision)))
        };
        rows.await?.iter().map(read).collect()
    }

    /// The repositories to look at, and whether there are more than at the last look.
    fn interesting(&self) -> (HashMap<RepositoryKey, Revision>, bool) {
        let mut interest = locked(&self.interest);
        let Some(interest) = &mut *interest else {
            return (HashMap::new(), false);
        };
        interest.known.retain(|_, (_, at)| at.elapsed() < INTEREST);
        let known = interest
            .known
            .iter()
            .map(|(key, (revision, _))| (key.clone(), *revision));
        (known.collect(), std::mem::take(&mut interest.has_grown))
    }

    fn compare(&self, known: HashMap<RepositoryKey, Revision>, found: &[(String, Revision)]) {
        let found: HashMap<&str, Revision> = found
            .iter()
            .map(|(name, revision)| (name.as_str(), *revision))
            .collect();
        for (key, before) in known {
            // A repository that was removed counts as at a later revision than any it had.
            let now = found.get(key.as_str()).copied();
            match now {
                // What was known before the question is there, unless the store went back in time.
                Some(now) if now < before => self.tell(Hints::missed),
                Some(now) if now == before => {}
                now => {
                    let now = now.unwrap_or(before.next());
                    self.tell(|hints| hints.changed(&key, Reached::revision(now)));
                }
            }
            if let Some(interest) = &mut *locked(&self.interest) {
                match (now, interest.known.get_mut(&key)) {
                    (Some(now), Some(known)) if now < before => known.0 = now,
                    (Some(now), Some(known)) => known.0 = now.max(known.0),
                    (None, _) => drop(interest.known.remove(&key)),
                    (_, None) => {}
                }
            }
        }
    }
}
