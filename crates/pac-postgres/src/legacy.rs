//! The older layout on PostgreSQL: reads its rows, and deletes what was read.

use pac_core::migration::{ClusterFacts, LegacySource, LegacyState, SlotRow, postgresql};
use pac_core::{Error, ErrorKind};

use crate::client::{Client, Effect, FromSql, Row, Type};
use crate::schema::is_trusted;
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
    /// `Config` for options that cannot be used, for a schema name that is none, for a schema
    /// without these tables, and for tables of a role that is not to be trusted; `Unauthorised` for a role that may not read them, `Unavailable` when
    /// no server could be reached.
    pub async fn read(
        options: &PostgresOptions,
        schema: &str,
        facts: &ClusterFacts,
    ) -> Result<Self, Error> {
        options.check()?;
        let client = Client::new(options)?;
        let quoted = quoted(schema)?;
        let message = match tables(&client, schema).await? {
            Tables::Usable => return Self::read_tables(client, quoted, facts).await,
            Tables::Missing(table) => format!(
                "there is no table {quoted}.{table}: name the database with postgresql-database, \
                 and the schema of the older layout"
            ),
            Tables::Foreign(table) => foreign(&quoted, table, options),
        };
        Err(Error::new(ErrorKind::Config, "migrate", message))
    }

    async fn read_tables(
        client: Client,
        schema: String,
        facts: &ClusterFacts,
    ) -> Result<Self, Error> {
        let slots = format!(
            "SELECT id::bigint, coalesce(updated_at::text, ''), repository_key::text, \
             pipeline_run_key::text, state::text, expires_at < pg_catalog.now() \
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
    /// are in `public` and it was not [brought along](Self::note_brought_along) yet. Tables of a role
    /// that is not to be trusted are none of the older layout's. Writes nothing, so the future may be
    /// dropped.
    ///
    /// # Errors
    /// Those of [`read`](Self::read), but for tables that are not there.
    pub async fn find(driver: &PostgresDriver) -> Result<Option<Self>, Error> {
        let client = driver.client();
        match tables(&client, PUBLIC).await? {
            Tables::Usable => {}
            Tables::Missing(_) => return Ok(None),
            Tables::Foreign(table) => {
                let text = foreign(PUBLIC, table, client.options());
                tracing::warn!("no state of an older version is brought along: {text}");
                return Ok(None);
            }
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
                "DELETE FROM {schema}.{table} AS t \
                 USING ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS read (id, updated) \
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

/// Whether the tables of the older layout are in a schema.
enum Tables {
    Usable,
    /// This one is not there.
    Missing(&'static str),
    /// This one is no table, or what its owner has put into it is not to be run by this process.
    Foreign(&'static str),
}

/// Looks into the catalogue, which is open to every role.
async fn tables(client: &Client, schema: &str) -> Result<Tables, Error> {
    let there = format!(
        "SELECT c.relname::pg_catalog.text, c.relkind IN ('r', 'p') AND {trusted} \
         FROM pg_catalog.pg_class c \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = $1 AND c.relname = ANY($2)",
        trusted = is_trusted("c.relowner")
    );
    let params = [
        (&schema as _, Type::TEXT),
        (&TABLES.as_slice() as _, Type::TEXT_ARRAY),
    ];
    let rows = client
        .query("migrate", Effect::Read, &there, &params)
        .await?;
    let found: Vec<(String, bool)> = rows
        .iter()
        .map(|row| Ok((column(row, 0)?, column(row, 1)?)))
        .collect::<Result<_, Error>>()?;
    for table in TABLES {
        match found.iter().find(|(name, _)| name == table) {
            None => return Ok(Tables::Missing(table)),
            Some((_, false)) => return Ok(Tables::Foreign(table)),
            Some((_, true)) => {}
        }
    }
    Ok(Tables::Usable)
}

fn foreign(schema: &str, table: &str, options: &PostgresOptions) -> String {
    format!(
        "{schema}.{table} is no table of a role that {user:?} is a member of, nor of one that may \
         create schemas in {database:?}, so what is in it would run as {user:?}: drop it, or give it \
         to {user:?} (ALTER TABLE … OWNER TO) if it is the older layout's",
        user = options.username,
        database = options.database
    )
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
