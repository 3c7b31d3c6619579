//! The tables and functions of the schema, and its migration.

use pac_core::{Error, ErrorKind};

use crate::client::{Client, Effect, Session, Type};

/// What version 1, 2, … of the schema adds to the one before, in one or more files.
const VERSIONS: [&[&str]; 1] = [&[
    include_str!("schema/0001_tables.sql"),
    include_str!("schema/0002_sessions.sql"),
    include_str!("schema/0003_guards.sql"),
    include_str!("schema/0004_commit.sql"),
    include_str!("schema/0005_retention.sql"),
]];

/// Brings the schema up to the version of this software. If it has that version already, a role
/// that can only read and write is enough; else the role has to be allowed to create.
pub(crate) async fn migrate(client: &Client) -> Result<(), Error> {
    let session = client.first().await?;
    if is_current(&session, client.schema()).await? {
        return Ok(());
    }
    // Other processes may migrate at the same time, hence the lock. All of this is one transaction,
    // which a lost connection rolls back.
    session.batch("migrate", "BEGIN").await?;
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
    let name = format!("pac-concurrency schema {}", client.schema());
    session
        .query("migrate", Effect::Write, lock, &[(&name, Type::TEXT)])
        .await?;
    // The process that had the lock before may have migrated the schema, also to a newer version.
    if is_current(&session, client.schema()).await? {
        return session.batch("migrate", "COMMIT").await;
    }
    if !exists(&session, client.schema()).await? {
        // Not `IF NOT EXISTS`: that needs the privilege to create a schema even if it exists.
        let create = format!("CREATE SCHEMA {}", client.schema());
        session.batch("migrate", &create).await?;
    }
    for sql in statements(client.schema(), version(&session, client.schema()).await?) {
        session.batch("migrate", &sql).await?;
    }
    session.batch("migrate", "COMMIT").await
}

/// Whether there is a schema of this version; changes nothing. One of an older version is an error.
pub(crate) async fn is_there(client: &Client) -> Result<bool, Error> {
    let session = client.first().await?;
    if is_current(&session, client.schema()).await? {
        return Ok(true);
    }
    let (schema, found) = (client.schema(), version(&session, client.schema()).await?);
    if found == 0 {
        return Ok(false);
    }
    Err(Error::new(
        ErrorKind::Incompatible,
        "connect",
        format!(
            "the schema {schema:?} has version {found}, older than this software's, and is not to \
             be changed: connect once without that condition, which brings it up to version {}",
            VERSIONS.len()
        ),
    ))
}

async fn is_current(session: &Session, schema: &str) -> Result<bool, Error> {
    let found = version(session, schema).await?;
    if found > VERSIONS.len() {
        return Err(Error::new(
            ErrorKind::Incompatible,
            "connect",
            format!(
                "the schema {schema:?} has version {found}, and this software knows up to {}: \
                 use a newer version of it, or another schema",
                VERSIONS.len()
            ),
        ));
    }
    Ok(found == VERSIONS.len())
}

async fn exists(session: &Session, schema: &str) -> Result<bool, Error> {
    let sql = "SELECT FROM pg_namespace WHERE nspname = $1";
    let params = [(&schema as _, Type::TEXT)];
    let rows = session.query("connect", Effect::Read, sql, &params).await?;
    Ok(!rows.is_empty())
}

/// The version of the schema; 0 when there is none.
async fn version(session: &Session, schema: &str) -> Result<usize, Error> {
    let meta = format!("{schema}.meta");
    let there = "SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $1 AND c.relname = 'meta'";
    let schema = schema.to_owned();
    let there = session
        .query("connect", Effect::Read, there, &[(&schema, Type::TEXT)])
        .await?;
    if there.is_empty() {
        return Ok(0);
    }
    let read = format!("SELECT version FROM {meta}");
    let rows = session.query("connect", Effect::Read, &read, &[]).await?;
    let version = rows.first().and_then(|row| row.try_get::<_, i32>(0).ok());
    version
        .and_then(|version| usize::try_from(version).ok())
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Corrupt,
                "connect",
                format!(
                    "{meta} does not hold the version of the schema; restore it or drop the schema"
                ),
            )
        })
}

/// The statements that bring the schema from version `from` to the latest. Its name needs no
/// escapes: the options have checked it.
fn statements(schema: &str, from: usize) -> Vec<String> {
    let mut statements = vec![format!("SET LOCAL search_path = {schema}, pg_temp")];
    for files in VERSIONS.iter().skip(from) {
        statements.extend(files.iter().map(|&sql| sql.to_owned()));
    }
    statements.push(format!("UPDATE meta SET version = {}", VERSIONS.len()));
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_already_is_not_made_again() {
        assert!(
            statements("pac", 0)
                .iter()
                .any(|sql| sql.contains("CREATE TABLE"))
        );
        let none = statements("pac", VERSIONS.len()).join("\n");
        assert!(!none.contains("CREATE"), "{none}");
    }
}
