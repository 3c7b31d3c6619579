//! The older layout on PostgreSQL: reads its rows, and deletes what was read.

use pac_core::migration::{ClusterFacts, LegacySource, LegacyState, SlotRow, postgresql};
use pac_core::{Error, ErrorKind};

use crate::client::{Client, Effect, FromSql, Row, Type};
use crate::{PostgresDriver, PostgresOptions};

/// What was read of the older layout on PostgreSQL.
#[derive(Debug)]
pub struct LegacyPostgres {
    /// What it says.
    pub state: LegacyState,
    client: Client,
    schema: String,
    /// The rows that were read, by their table: the id of each, and when it was last updated, as
    /// the server writes it.
    rows: Vec<(&'static str, Vec<(i64, String)>)>,
}

const LAYOUT: LegacySource = LegacySource::Postgresql;

/// The schema that the older layout usually is in.
const PUBLIC: &str = "public";

/// The tables of the older layout.
const TABLES: [&str; 3] = [
    "concurrency_slots",
    "repository_states",
    "pipeline_run_states",
];

impl LegacyPostgres {
    /// Reads all rows of the older layout from the schema that it is in, which is usually
    /// `public`; the schema of the options is the new state's. Writes nothing, so the future may be
    /// dropped.
    ///
    /// # Errors
    /// `Config` for options that cannot be used, for a schema name that is none, and for a schema
    /// without these tables; `Unauthorised` for a role that may not read them, `Unavailable` when
    /// no server could be reached.
    pub async fn read(
        options: &PostgresOptions,
        schema: &str,
        facts: &ClusterFacts,
    ) -> Result<Self, Error> {
        options.check()?;
        let client = Client::new(options)?;
        let quoted = quoted(schema)?;
        if let Some(table) = missing_table(&client, schema).await? {
            let message = format!(
                "there is no table {quoted}.{table}: name the database with postgresql-database, \
                 and the schema of the older layout"
            );
            return Err(Error::new(ErrorKind::Config, "migrate", message));
        }
        Self::read_tables(client, quoted, facts).await
    }

    async fn read_tables(
        client: Client,
        schema: String,
        facts: &ClusterFacts,
    ) -> Result<Self, Error> {
        let slots = format!(
            "SELECT id::bigint, coalesce(updated_at::text, ''), repository_key::text, \
             pipeline_run_key::text, state::text, expires_at < now() \
             FROM {schema}.concurrency_slots ORDER BY created_at, id"
        );
        let states = format!(
            "SELECT id::bigint, coalesce(updated_at::text, ''), pipeline_run_key::text, \
             state::text FROM {schema}.pipeline_run_states ORDER BY id"
        );
        let repositories = format!(
            "SELECT id::bigint, coalesce(updated_at::text, '') FROM {schema}.repository_states"
        );
        let query = |sql: String| {
            let client = &client;
            async move { client.query("migrate", Effect::Read, &sql, &[]).await }
        };
        let (slots, states) = (query(slots).await?, query(states).await?);
        let repositories = query(repositories).await?;
        let rows = TABLES.into_iter().zip([&slots, &repositories, &states]);
        let rows = rows
            .map(|(table, rows)| Ok((table, rows.iter().map(identity).collect::<Result<_, _>>()?)))
            .collect::<Result<_, Error>>()?;
        let slots: Vec<_> = slots.iter().map(slot).collect::<Result<_, _>>()?;
        let states: Vec<_> = states
            .iter()
            .map(|row| Ok((column(row, 2)?, text_or_empty(row, 3)?)))
            .collect::<Result<_, Error>>()?;
        Ok(Self {
            state: postgresql(&slots, &states, facts),
            client,
            schema,
            rows,
        })
    }

    /// Reads the older layout, over the connections of the driver for the new one, if its tables
    /// are in `public` and it was not [brought along](Self::note_brought_along) yet. Writes nothing, so the future may be
    /// dropped.
    ///
    /// # Errors
    /// Those of [`read`](Self::read), but for tables that are not there.
    pub async fn find(driver: &PostgresDriver) -> Result<Option<Self>, Error> {
        let client = driver.client();
        if missing_table(&client, PUBLIC).await?.is_some() {
            return Ok(None);
        }
        let noted = format!("SELECT FROM {}.migrated WHERE layout = $1", client.schema());
        let params = [(&LAYOUT.as_str() as _, Type::TEXT)];
        let noted = client.query("migrate", Effect::Read, &noted, &params);
        if !noted.await?.is_empty() {
            return Ok(None);
        }
        let (schema, facts) = (quoted(PUBLIC)?, ClusterFacts::default());
        Self::read_tables(client, schema, &facts).await.map(Some)
    }

    /// Notes beside the new state that this layout was brought along, so that
    /// [`find`](Self::find) passes it over from now on. Dropped in flight, it is done or not done.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn note_brought_along(&self) -> Result<(), Error> {
        let note = format!(
            "INSERT INTO {}.migrated (layout) VALUES ($1) ON CONFLICT DO NOTHING",
            self.client.schema()
        );
        let params = [(&LAYOUT.as_str() as _, Type::TEXT)];
        let query = self.client.query("migrate", Effect::Write, &note, &params);
        query.await.map(drop)
    }

    /// Deletes the rows that were read, and returns how many were left because they have been
    /// updated since, or are gone: read again to see what there is. The tables stay. It may be
    /// interrupted at any point, and called again.
    ///
    /// # Errors
    /// Those of the store; what was deleted by then is gone.
    pub async fn remove(&self) -> Result<usize, Error> {
        let mut left = 0;
        for (table, rows) in &self.rows {
            let ids: Vec<i64> = rows.iter().map(|(id, _)| *id).collect();
            let updated: Vec<&str> = rows.iter().map(|(_, at)| at.as_str()).collect();
            let delete = format!(
                "DELETE FROM {schema}.{table} AS t USING unnest($1, $2) AS read(id, updated) \
                 WHERE t.id = read.id AND coalesce(t.updated_at::text, '') = read.updated \
                 RETURNING t.id::bigint",
                schema = self.schema
            );
            let params = [
                (&ids as _, Type::INT8_ARRAY),
                (&updated as _, Type::TEXT_ARRAY),
            ];
            let write = Effect::Write;
            let deleted = self
                .client
                .query("migrate", write, &delete, &params)
                .await?;
            left += rows.len().saturating_sub(deleted.len());
        }
        Ok(left)
    }
}

/// The first of the tables that is not in a schema, by the catalogue, which is open to every role.
async fn missing_table(client: &Client, schema: &str) -> Result<Option<&'static str>, Error> {
    let there = "SELECT c.relname::text FROM pg_class c \
                 JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $1 AND c.relname = ANY($2)";
    let params = [
        (&schema as _, Type::TEXT),
        (&TABLES.as_slice() as _, Type::TEXT_ARRAY),
    ];
    let rows = client
        .query("migrate", Effect::Read, there, &params)
        .await?;
    let found: Vec<String> = rows
        .iter()
        .map(|row| column(row, 0))
        .collect::<Result<_, _>>()?;
    let is_missing = |table: &&str| !found.iter().any(|found| found == table);
    Ok(TABLES.into_iter().find(is_missing))
}

/// A schema's name as SQL has it.
fn quoted(schema: &str) -> Result<String, Error> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if schema.is_empty() || schema.len() > 63 || !schema.chars().all(plain) {
        let message = format!(
            "invalid schema {schema:.80?}: must be 1 to 63 ASCII letters, digits, '_' or '-'"
        );
        return Err(Error::new(ErrorKind::Config, "migrate", message));
    }
    Ok(format!("\"{schema}\""))
}

fn identity(row: &Row) -> Result<(i64, String), Error> {
    Ok((column(row, 0)?, column(row, 1)?))
}

fn slot(row: &Row) -> Result<SlotRow, Error> {
    Ok(SlotRow {
        repository: text_or_empty(row, 2)?,
        run: text_or_empty(row, 3)?,
        state: text_or_empty(row, 4)?,
        is_past_expiry: column::<Option<bool>>(row, 5)?.unwrap_or_default(),
    })
}

fn text_or_empty(row: &Row, at: usize) -> Result<String, Error> {
    Ok(column::<Option<String>>(row, at)?.unwrap_or_default())
}

fn column<'a, T: FromSql<'a>>(row: &'a Row, at: usize) -> Result<T, Error> {
    row.try_get(at).map_err(|error| {
        let message = "the tables are not as the older layout has them";
        Error::new(ErrorKind::Corrupt, "migrate", message).caused_by(error)
    })
}
