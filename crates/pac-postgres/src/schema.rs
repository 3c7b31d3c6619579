//! The tables and functions of the schema, its versions, and what a role needs to use them.

mod privileges;
mod status;
mod trust;

use std::cmp::Ordering;
use std::error::Error as _;

use pac_core::{Error, ErrorKind};

use crate::PostgresOptions;
use crate::client::{Client, Effect, Session};
use crate::options::Migrate;

pub(crate) use privileges::missing_privileges;
pub use status::{PostgresSchema, SchemaStatus};
pub(crate) use trust::{is_trusted, open_to_all};

/// What version 1, 2, … of the schema adds to the one before, in one or more files.
const VERSIONS: [&[&str]; 1] = [&[
    include_str!("schema/0001_tables.sql"),
    include_str!("schema/0002_sessions.sql"),
    include_str!("schema/0003_guards.sql"),
    include_str!("schema/0004_commit.sql"),
    include_str!("schema/0005_retention.sql"),
    include_str!("schema/0006_views.sql"),
]];

/// Makes sure that the schema has the version of this software: makes or changes it where `migrate`
/// allows that. If it has that version already, a role that can only read and write is enough; else
/// the role has to be allowed to create.
pub(crate) async fn prepare(client: &Client, migrate: Migrate) -> Result<Isolation, Error> {
    let session = client.first().await?;
    let found = Found::read(&session, client).await?;
    if found != Found::Current {
        found.may_be_changed(client, migrate)?;
        bring_up_to_date(&session, client, migrate).await?;
    }
    isolation(&session).await
}

/// Whether there is a schema of this version; changes nothing. One of another version is an error.
pub(crate) async fn is_there(client: &Client) -> Result<Option<Isolation>, Error> {
    let session = client.first().await?;
    match Found::read(&session, client).await? {
        Found::Nothing { .. } => Ok(None),
        Found::Current => isolation(&session).await.map(Some),
        other => other.may_be_changed(client, Migrate::Never).map(|()| None),
    }
}

/// The isolation of transactions for which none is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    ReadCommitted,
    Other,
}

/// The default of the role, the database or the server.
const USUAL: &str =
    "SELECT pg_catalog.current_setting('default_transaction_isolation') = 'read committed'";

async fn isolation(session: &Session) -> Result<Isolation, Error> {
    let rows = session.query("connect", Effect::Read, USUAL, &[]).await?;
    Ok(match rows.first().map(|row| row.try_get::<_, bool>(0)) {
        Some(Ok(false)) => Isolation::Other,
        _ => Isolation::ReadCommitted,
    })
}

/// Fails if connections that ask for READ COMMITTED do not get it.
pub(crate) async fn check_isolation(client: &Client) -> Result<(), Error> {
    match isolation(&*client.first().await?).await? {
        Isolation::ReadCommitted => Ok(()),
        Isolation::Other => {
            let cause = "a proxy in between has dropped the option of the connection";
            let message = client.options().isolation();
            Err(Error::new(ErrorKind::Config, "connect", message).caused_by(cause))
        }
    }
}

/// What to do where connecting failed because it asked for READ COMMITTED: proxies refuse options
/// that they do not know.
pub(crate) fn with_isolation(options: &PostgresOptions, error: Error) -> Error {
    let cause = error.source().map(ToString::to_string);
    match cause.filter(|cause| cause.contains("startup parameter")) {
        Some(cause) => {
            Error::new(ErrorKind::Config, "connect", options.isolation()).caused_by(cause)
        }
        None => error,
    }
}

/// What there is of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// No table of this software.
    Nothing { schema_exists: bool },
    /// It has this version, which is older than this software's.
    Older(u32),
    /// It is of this software's version.
    Current,
    /// It has this version, which is newer than this software's.
    Newer(u32),
}

impl Found {
    async fn read(session: &Session, client: &Client) -> Result<Self, Error> {
        let place = trust::place(session, client).await?;
        if !place.is_some_and(|place| place.has_version) {
            let schema_exists = place.is_some();
            return Ok(Self::Nothing { schema_exists });
        }
        let found = version(session, client).await?;
        Ok(match found.cmp(&latest()) {
            Ordering::Less => Self::Older(found),
            Ordering::Greater => Self::Newer(found),
            Ordering::Equal => Self::Current,
        })
    }

    /// The version, if there is one.
    fn version(self) -> Option<u32> {
        match self {
            Self::Nothing { .. } => None,
            Self::Older(version) | Self::Newer(version) => Some(version),
            Self::Current => Some(latest()),
        }
    }

    /// An error if it would have to be changed, and may not be.
    fn may_be_changed(self, client: &Client, migrate: Migrate) -> Result<(), Error> {
        let schema = &client.options().schema;
        let needed = latest();
        let (kind, message) = match (self, migrate) {
            (Self::Nothing { .. }, Migrate::New | Migrate::Always)
            | (Self::Older(_), Migrate::Always)
            | (Self::Current, _) => return Ok(()),
            (Self::Nothing { .. }, Migrate::Never) => (
                ErrorKind::Config,
                format!(
                    "{}, and postgresql-migrate is never: create it with `pac schema apply`, or \
                     correct the names",
                    client.options().no_schema()
                ),
            ),
            (Self::Older(found), _) => (
                ErrorKind::Incompatible,
                format!(
                    "the schema {schema:?} has version {found}, older than this software's, which \
                     is {needed}: bring it up to date with `pac schema apply`, or let \
                     controllers do so with postgresql-migrate: always; software of the older \
                     version cannot use it then"
                ),
            ),
            (Self::Newer(found), _) => (
                ErrorKind::Incompatible,
                format!(
                    "the schema {schema:?} has version {found}, and this software knows up to \
                     {needed}: use a newer version of it, or another schema"
                ),
            ),
        };
        Err(Error::new(kind, "connect", message))
    }
}

/// Brings the schema up to date, whatever other processes do at the same time, as far as `migrate`
/// allows. All of it is one transaction, which a lost connection rolls back.
async fn bring_up_to_date(
    session: &Session,
    client: &Client,
    migrate: Migrate,
) -> Result<(), Error> {
    session.batch("migrate", BEGIN).await?;
    if let Err(error) = session.batch("migrate", &lock(client)).await {
        return Err(locked_by_others(session, client, error).await);
    }
    // The process that had the lock before may have changed the schema, also to a newer version.
    let found = Found::read(session, client).await?;
    found.may_be_changed(client, migrate)?;
    if found == Found::Older(0) {
        let message = format!(
            "{}.meta says version 0, which no version of this software leaves behind: restore its \
             one row from a backup",
            client.schema()
        );
        return Err(Error::new(ErrorKind::Corrupt, "migrate", message));
    }
    for sql in statements(&client.schema(), found) {
        session.batch("migrate", &sql).await?;
    }
    session.batch("migrate", "COMMIT").await
}

/// Each statement sees what others have committed before it, whatever is usual for the role.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// Waits until no other process changes the schema, but not for long: to make or change it takes less
/// than a second, and any role that may connect to the database can hold this lock. It is one that
/// needs no table, because there may be none yet.
fn lock(client: &Client) -> String {
    // The options have checked the name: there is no quote in it.
    format!(
        "SET LOCAL lock_timeout = '{LOCK_WITHIN}'; SELECT pg_catalog.pg_advisory_xact_lock({})",
        lock_number(client)
    )
}

/// How long this process waits for others that make or change the schema: less than for a statement.
const LOCK_WITHIN: &str = "4s";

fn lock_number(client: &Client) -> String {
    let name = format!("pac-concurrency schema {}", client.options().schema);
    format!("pg_catalog.hashtextextended('{name}', 0)")
}

/// The error for a schema that could not be locked: names the backends that hold the lock. Those of
/// other errors stay as they are.
async fn locked_by_others(session: &Session, client: &Client, error: Error) -> Error {
    if error.kind() != ErrorKind::Unavailable || session.batch("migrate", "ROLLBACK").await.is_err()
    {
        return error;
    }
    let sql = format!(
        "SELECT l.pid, a.usename::text FROM pg_catalog.pg_locks l \
         LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid, \
           (SELECT {} AS number) n \
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 \
           AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d \
             WHERE d.datname = pg_catalog.current_database()) \
           AND l.classid::bigint = (n.number >> 32) & 4294967295 \
           AND l.objid::bigint = n.number & 4294967295",
        lock_number(client)
    );
    let holders = session.query("migrate", Effect::Read, &sql, &[]).await;
    let holders = holders.unwrap_or_default();
    let named = holders.iter().map(|row| {
        let role = row.try_get::<_, Option<String>>(1).ok().flatten();
        let role = role.unwrap_or_else(|| "unknown".to_owned());
        row.try_get::<_, i32>(0)
            .map(|pid| format!("backend {pid} of the role {role:?}"))
    });
    let named: Vec<_> = named.filter_map(Result::ok).collect();
    if named.is_empty() {
        return error;
    }
    let message = format!(
        "the schema {:?} has to be made or changed, and another session has held the lock for that \
         for {LOCK_WITHIN}: {}. If it is no other process that does the same, end it (SELECT \
         pg_catalog.pg_terminate_backend(pid)), and REVOKE CONNECT ON DATABASE … FROM PUBLIC; then try again",
        client.options().schema,
        named.join(", ")
    );
    Error::new(ErrorKind::Unavailable, "migrate", message).caused_by(error)
}

/// The statements that bring a schema from what was found to the latest version. None if it is
/// that, or newer.
fn statements(schema: &str, found: Found) -> Vec<String> {
    let mut statements = Vec::new();
    let from = match found {
        Found::Nothing { schema_exists } => {
            if !schema_exists {
                // Not `IF NOT EXISTS`: that needs the privilege to create a schema even if it exists.
                statements.push(format!("CREATE SCHEMA {schema}"));
            }
            0
        }
        Found::Older(version) => usize::try_from(version).unwrap_or(usize::MAX),
        Found::Current | Found::Newer(_) => return statements,
    };
    statements.push(format!("SET LOCAL search_path = {schema}, pg_temp"));
    for files in VERSIONS.iter().skip(from) {
        statements.extend(files.iter().map(|&sql| sql.to_owned()));
    }
    statements.push(format!("UPDATE meta SET version = {}", latest()));
    statements
}

/// The version of the schema that this software works with.
fn latest() -> u32 {
    u32::try_from(VERSIONS.len()).unwrap_or(u32::MAX)
}

/// The version of the schema, whose table for it is there.
async fn version(session: &Session, client: &Client) -> Result<u32, Error> {
    let meta = format!("{}.meta", client.schema());
    let read = format!("SELECT version FROM {meta}");
    let rows = session.query("connect", Effect::Read, &read, &[]).await?;
    let version = rows.first().and_then(|row| row.try_get::<_, i32>(0).ok());
    let version = version.and_then(|version| u32::try_from(version).ok());
    version.ok_or_else(|| {
        Error::new(
            ErrorKind::Corrupt,
            "connect",
            format!(
                "{meta} does not hold the version of the schema; restore it or drop the schema"
            ),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_already_is_not_made_again() {
        let new = Found::Nothing {
            schema_exists: true,
        };
        let all = statements("\"pac\"", new).join("\n");
        assert!(all.contains("CREATE TABLE") && !all.contains("CREATE SCHEMA"));
        let (newer, older) = (latest() + 1, statements("\"pac\"", Found::Older(latest())));
        assert!(!older.join("\n").contains("CREATE"), "{older:?}");
        assert!(statements("\"pac\"", Found::Current).is_empty());
        assert!(statements("\"pac\"", Found::Newer(newer)).is_empty());
    }
}
