//! The repositories in their tables: reads, commits and lists.

pub(crate) mod batch;
mod commits;
mod retention;
mod statement;

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use pac_core::driver::ListFilter;
use pac_core::pauses::Seldom;
use pac_core::state::{Entry, Head, Snapshot};
use pac_core::{Error, ErrorKind, PipelineRunKey, RepositoryKey, Timestamp, Version};

use self::statement::Statements;
use crate::client::{Client, Effect, Row, Sql, Type};
use crate::places::Places;
use crate::record::{self, HEAD, HEAD_COLUMNS, cell, saturated};

/// The tables. Each operation is one statement.
#[derive(Debug)]
pub(crate) struct Store {
    client: Client,
    load: String,
    commit: String,
    statements: Statements,
    places: Places,
    /// How many runs this process has ended in each repository since the last deletion there.
    ended: Mutex<HashMap<RepositoryKey, usize>>,
    next_purge: Mutex<Instant>,
    /// To say that a repository has too many finished runs.
    tell: Mutex<Seldom>,
}

impl Store {
    pub(crate) fn new(client: Client) -> Self {
        let schema = client.schema();
        let load = format!("SELECT * FROM {schema}.load_repository($1, $2, $3, $4, $5)");
        let params: Vec<_> = (1..=33).map(|n| format!("${n}")).collect();
        let commit = format!("SELECT * FROM {schema}.commit_batch({})", params.join(", "));
        Self {
            load,
            commit,
            statements: Statements::new(schema),
            client,
            places: Places::default(),
            ended: Mutex::default(),
            next_purge: Mutex::new(Instant::now()),
            tell: Mutex::new(Seldom::every(retention::TELL)),
        }
    }

    pub(crate) async fn load(
        &self,
        key: &RepositoryKey,
        since: Option<Version>,
    ) -> Result<Snapshot, Error> {
        let loaded = self.load_once(key, since).await?;
        if loaded.ends <= self.most_finished() {
            return Ok(loaded.snapshot);
        }
        self.note_too_many(key);
        if loaded.snapshot.since.is_none() {
            return Ok(loaded.snapshot);
        }
        // What was left out may be the end of a run that the caller takes for queued or started. A
        // whole snapshot does not need it.
        Ok(self.load_once(key, None).await?.snapshot)
    }

    async fn load_once(
        &self,
        key: &RepositoryKey,
        since: Option<Version>,
    ) -> Result<Loaded, Error> {
        let (name, at) = (key.as_str(), self.places.get(key));
        let most = i64::try_from(self.most_finished()).unwrap_or(i64::MAX - 1);
        let known = since.map(|since| saturated(since.revision.get()));
        let stamp = since.map(|since| saturated(since.stamp.get()));
        let params = [
            (&name as _, Type::TEXT),
            (&known as _, Type::INT8),
            (&stamp as _, Type::INT8),
            (&at as _, Type::TEXT),
            (&most as _, Type::INT8),
        ];
        let rows = self
            .client
            .query("load", Effect::Read, Sql::Often(&self.load), &params)
            .await?;
        let loaded = loaded(&rows, 0, since).map_err(|error| error.in_repository(key))?;
        self.places.note(key, loaded.at.as_deref());
        Ok(loaded)
    }

    pub(crate) async fn server_version(&self) -> Result<String, Error> {
        let sql = "SELECT pg_catalog.current_setting('server_version')";
        let client = &self.client;
        let rows = client.query("read version", Effect::Read, sql, &[]).await?;
        rows.first().map_or(Ok(String::new()), |row| cell(row, 0))
    }

    pub(crate) async fn now(&self) -> Result<Timestamp, Error> {
        let sql = format!("SELECT {}.now_millis()", self.client.schema());
        let client = &self.client;
        let rows = client
            .query("read the clock", Effect::Read, &sql, &[])
            .await?;
        let row = rows.first().ok_or_else(|| {
            let message = "the server answered without a row";
            Error::new(ErrorKind::Internal, "read the clock", message)
        })?;
        cell(row, 0).map(Timestamp::from_unix_millis)
    }

    pub(crate) async fn list(
        &self,
        filter: ListFilter,
        after: Option<&RepositoryKey>,
        limit: usize,
    ) -> Result<Vec<(RepositoryKey, Head)>, Error> {
        let schema = self.client.schema();
        let sql = match filter {
            ListFilter::All => format!(
                "SELECT repository, {HEAD} FROM {schema}.repositories \
                 WHERE repository > $1 ORDER BY repository LIMIT $2"
            ),
            // Goes along an index from one repository with queued runs to the next.
            ListFilter::Startable => format!(
                "WITH RECURSIVE waiting (repository) AS ( \
                   SELECT pg_catalog.min(repository) FROM {schema}.queue \
                   WHERE repository > $1 \
                   UNION ALL \
                   SELECT (SELECT pg_catalog.min(e.repository) FROM {schema}.queue e \
                     WHERE e.repository > w.repository) \
                   FROM waiting w WHERE w.repository IS NOT NULL) \
                 SELECT repository, {HEAD} FROM {schema}.repositories \
                 WHERE repository = ANY (ARRAY(SELECT w.repository FROM waiting w)) \
                   AND {schema}.could_start(run_limit, queued, started, policy) \
                 ORDER BY repository LIMIT $2"
            ),
            // Asked for seldom, and seldom are there any.
            ListFilter::Timed => format!(
                "SELECT repository, {HEAD} FROM {schema}.repositories \
                 WHERE repository > $1 \
                   AND CASE policy WHEN '' THEN false ELSE {schema}.number_in(policy, 'timed') > 0 END \
                 ORDER BY repository LIMIT $2"
            ),
        };
        let mut page = Vec::new();
        let mut after = after.map_or(String::new(), |key| key.as_str().to_owned());
        while page.len() < limit {
            let rest = i64::try_from(limit - page.len()).unwrap_or(i64::MAX);
            let params = [(&after as _, Type::TEXT), (&rest as _, Type::INT8)];
            let rows = self
                .client
                .query("list", Effect::Read, &sql, &params)
                .await?;
            for row in &rows {
                let (name, head) = (cell::<&str>(row, 0)?, record::head(row, 1));
                name.clone_into(&mut after);
                match (name.parse::<RepositoryKey>(), head) {
                    (Ok(key), Ok(head)) if filter.passes(&head) => page.push((key, head)),
                    (Ok(_), Ok(_)) => {}
                    (Err(error), _) => {
                        tracing::warn!(%error, "left out of a list: not written by this software");
                    }
                    (_, Err(error)) => {
                        tracing::warn!(repository = name, %error, "left out of a list");
                    }
                }
            }
            if i64::try_from(rows.len()).is_ok_and(|found| found < rest) {
                break;
            }
        }
        Ok(page)
    }
}

/// What a read has found.
#[derive(Debug)]
struct Loaded {
    snapshot: Snapshot,
    /// Where the head is.
    at: Option<String>,
    /// How many ends of runs there were. With more than are asked for, there may be others.
    ends: usize,
}

/// What is in the rows of `load_repository`, which was called with the version `since`, from the column
/// `at` on.
fn loaded(rows: &[Row], at: usize, since: Option<Version>) -> Result<Loaded, Error> {
    /// The floor comes first, then whether the entries are a part, and the place of the head.
    const HEAD_AT: usize = 3;
    const ENTRY_AT: usize = HEAD_AT + HEAD_COLUMNS;
    let mut first = None;
    let mut entries = Vec::with_capacity(rows.len().saturating_sub(1));
    for row in rows {
        match cell::<Option<i64>>(row, at)? {
            Some(floor) => first = Some((floor, row)),
            None => entries.push(Arc::new(record::entry(row, at + ENTRY_AT)?)),
        }
    }
    let Some((floor, row)) = first else {
        let message = "the table floor is empty; restore its one row from a backup";
        return Err(Error::new(ErrorKind::Corrupt, "load", message));
    };
    let Some(part) = cell::<Option<bool>>(row, at + 1)? else {
        if let Some(entry) = entries.first() {
            let message = format!(
                "run {} has a record, and its repository has none",
                entry.run
            );
            return Err(Error::new(ErrorKind::Corrupt, "load", message));
        }
        return Ok(Loaded {
            snapshot: Snapshot::absent(record::floor(floor)?),
            at: None,
            ends: 0,
        });
    };
    let ends = entries.iter().filter(|entry| entry.is_finished()).count();
    if ends > 0 {
        without_former_ends(&mut entries);
    }
    let snapshot = Snapshot {
        since: since.filter(|_| part),
        exists: true,
        head: record::head(row, at + HEAD_AT)?,
        entries,
    };
    let at = cell(row, at + 2)?;
    Ok(Loaded { snapshot, at, ends })
}

/// Leaves out how runs ended whose names were used again since: the history keeps it.
fn without_former_ends(entries: &mut Vec<Arc<Entry>>) {
    // Those that wait or run first, then the ends, latest first.
    entries.sort_by_key(|entry| (entry.is_finished(), Reverse(entry.revision)));
    let mut seen: HashSet<PipelineRunKey> = HashSet::with_capacity(entries.len());
    // Two that wait or run are left to be reported.
    entries.retain(|entry| seen.insert(entry.run.clone()) || !entry.is_finished());
}
