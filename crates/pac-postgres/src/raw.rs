//! Plain inserts and notifications of PostgreSQL, without the protocol, for `pac bench`.

mod peers;

use async_trait::async_trait;
use pac_core::raw::{Gauges, PEER_WAIT, Peer, RawListener, RawPlace, RawStore};
use pac_core::{Error, ErrorKind};
use tokio::sync::mpsc;

use crate::PostgresOptions;
use crate::client::{Client, Effect, Param, Session, Sql, Type};

/// About as long as the record of a run.
const VALUE: &str = "a row of some two hundred bytes, which is about what the record of a run takes \
                     with its name, its uid, its place in the queue, its token and the times of \
                     everything that has happened to it so far";

/// Most connections: as many as there are writers at once in a measurement.
const CONNECTIONS: usize = 64;

/// Whether the role may read what [`LOGGED`] reads: someone may have taken that from everybody.
const MAY_READ_LOGGED: &str = "SELECT
    (pg_catalog.has_table_privilege('pg_catalog.pg_stat_wal', 'SELECT')
     AND pg_catalog.has_function_privilege('pg_catalog.pg_stat_force_next_flush()', 'EXECUTE'))::int::bigint";

/// A connection tells what it has written after up to ten seconds, or when it ends; this one at
/// once.
const LOGGED: &str = "SELECT wal_bytes::bigint
    FROM pg_catalog.pg_stat_wal, pg_catalog.pg_stat_force_next_flush()";

/// All tables of the schema, with their indexes and with what is stored apart of them.
const STORED: &str = "SELECT pg_catalog.sum(pg_catalog.pg_total_relation_size(c.oid))::bigint
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relkind IN ('r', 'm')";

const VERSIONS: &str = "SELECT pg_catalog.sum(n_live_tup + n_dead_tup)::bigint
    FROM pg_catalog.pg_stat_all_tables WHERE schemaname = $1";

/// `VACUUM` of all tables of a schema.
const UPKEEP: &str = "SELECT 'VACUUM ' || pg_catalog.string_agg(pg_catalog.format('%I.%I', schemaname, tablename), ', ')
    FROM pg_catalog.pg_tables WHERE schemaname = $1";

/// One-row inserts, each of them a transaction, and notifications.
#[derive(Debug)]
pub struct RawPostgres {
    client: Client,
    /// Opens the connections of peers, which wait for longer than a driver does.
    patient: Client,
    insert: String,
    announce: String,
    select: String,
}

impl RawPostgres {
    /// Connects, and creates a table in the schema of the options.
    ///
    /// # Errors
    /// As those of [`PostgresDriver::connect`](crate::PostgresDriver::connect).
    pub async fn connect(mut options: PostgresOptions) -> Result<Self, Error> {
        options.max_connections = CONNECTIONS;
        options.check()?;
        let client = Client::new(&options)?;
        let schema = client.schema();
        let session = client.connect("measure").await?;
        let create = format!(
            "CREATE SCHEMA IF NOT EXISTS {schema};
             CREATE TABLE IF NOT EXISTS {schema}.raw_writes
               (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body text NOT NULL)"
        );
        session.batch("measure", &create).await?;
        // As the driver does when statements may have names.
        client.name_statements();
        options.statement_timeout = PEER_WAIT;
        let patient = Client::new(&options)?;
        patient.name_statements();
        let insert = format!("INSERT INTO {schema}.raw_writes (body) VALUES ($1)");
        let select = format!("SELECT body FROM {schema}.raw_writes ORDER BY id DESC LIMIT 1");
        let announce = format!(
            "WITH written AS ({insert} RETURNING id) SELECT pg_catalog.pg_notify($2, id::text) FROM written"
        );
        Ok(Self {
            client,
            patient,
            insert,
            announce,
            select,
        })
    }

    /// One figure; `None` where there is none.
    async fn figure(&self, sql: &str, params: &[Param<'_>]) -> Result<Option<u64>, Error> {
        let rows = self.client.query("measure", Effect::Read, sql, params);
        let rows = rows.await?;
        let figure: Option<i64> = rows.first().and_then(|row| row.try_get(0).ok());
        Ok(figure.and_then(|figure| u64::try_from(figure).ok()))
    }

    fn channel(&self) -> String {
        format!("{}_raw", self.client.options().schema)
    }
}

#[async_trait]
impl RawStore for RawPostgres {
    async fn server(&self) -> Result<String, Error> {
        let sql = "SELECT pg_catalog.current_setting('server_version')";
        let rows = self.client.query("measure", Effect::Read, sql, &[]).await?;
        let version = rows.first().and_then(|row| row.try_get(0).ok());
        let version: String = version.unwrap_or_default();
        let number = version.split(' ').next().unwrap_or_default();
        Ok(format!("PostgreSQL {number}"))
    }

    async fn write(&self, _: usize) -> Result<(), Error> {
        let params = [(&VALUE as _, Type::TEXT)];
        let effect = Effect::Write;
        let written = self
            .client
            .query("measure", effect, Sql::Often(&self.insert), &params);
        written.await.map(drop)
    }

    async fn read(&self, _: usize) -> Result<(), Error> {
        let select = Sql::Often(&self.select);
        let rows = self.client.query("measure", Effect::Read, select, &[]);
        rows.await.map(drop)
    }

    async fn gauges(&self) -> Result<Gauges, Error> {
        let schema = &self.client.options().schema;
        let of_schema = [(schema as _, Type::TEXT)];
        let may_read = self.figure(MAY_READ_LOGGED, &[]).await?;
        Ok(Gauges {
            logged: match may_read {
                Some(1) => self.figure(LOGGED, &[]).await?,
                _ => None,
            },
            stored: self.figure(STORED, &of_schema).await?,
            versions: self.figure(VERSIONS, &of_schema).await?,
        })
    }

    /// Autovacuum comes once a minute.
    async fn upkeep(&self) -> Result<(), Error> {
        let schema = &self.client.options().schema;
        let params = [(schema as _, Type::TEXT)];
        let rows = self.client.query("measure", Effect::Read, UPKEEP, &params);
        let rows = rows.await?;
        let vacuum: Option<String> = rows.first().and_then(|row| row.try_get(0).ok());
        match vacuum {
            Some(vacuum) => {
                let session = self.client.connect("measure").await?;
                session.batch("measure", &vacuum).await
            }
            None => Ok(()),
        }
    }

    async fn announce(&self) -> Result<(), Error> {
        let channel = self.channel();
        let params = [(&VALUE as _, Type::TEXT), (&channel as _, Type::TEXT)];
        let effect = Effect::Write;
        let told = self
            .client
            .query("measure", effect, Sql::Often(&self.announce), &params);
        told.await.map(drop)
    }

    async fn listen(&self) -> Result<Box<dyn RawListener>, Error> {
        let (heard, hears) = mpsc::unbounded_channel();
        let tell = move |_: &str| {
            // A listener that was dropped needs no message.
            let _ = heard.send(());
        };
        let session = self.client.listen("measure", tell).await?;
        let listen = format!("LISTEN \"{}\"", self.channel());
        session.batch("measure", &listen).await?;
        Ok(Box::new(Listener {
            hears,
            _session: session,
        }))
    }

    async fn clear(&self) -> Result<(), Error> {
        let session = self.client.connect("clear").await?;
        let schema = self.client.schema();
        let drop = format!("DROP SCHEMA IF EXISTS {schema} CASCADE");
        session.batch("clear", &drop).await
    }

    fn peers(&self) -> &'static [Peer] {
        &peers::ALL
    }

    async fn prepare(&self, _: Peer, limit: u32) -> Result<(), Error> {
        let session = self.client.connect("measure").await?;
        let tables = peers::tables(&self.client.schema(), limit);
        session.batch("measure", &tables).await
    }

    async fn place(&self, peer: Peer, limit: u32) -> Result<Box<dyn RawPlace>, Error> {
        // The server closes the connections of a process that has ended a moment later.
        let opening = self.patient.listen_when_there_is_room("measure", |_| ());
        let session = opening.await?;
        peers::place(peer, session, self.client.options(), limit)
    }
}

struct Listener {
    hears: mpsc::UnboundedReceiver<()>,
    _session: Session,
}

#[async_trait]
impl RawListener for Listener {
    async fn heard(&mut self) -> Result<(), Error> {
        let ended = || Error::new(ErrorKind::Unavailable, "measure", "the connection was lost");
        self.hears.recv().await.ok_or_else(ended)
    }
}
