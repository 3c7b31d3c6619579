//! Plain inserts and notifications of PostgreSQL, without the protocol, for `pac bench`.

use async_trait::async_trait;
use pac_core::raw::{RawListener, RawStore};
use pac_core::{Error, ErrorKind};
use tokio::sync::mpsc;

use crate::PostgresOptions;
use crate::client::{Client, Effect, Session, Sql, Type};

/// About as long as the record of a run.
const VALUE: &str = "a row of some two hundred bytes, which is about what the record of a run takes \
                     with its name, its uid, its place in the queue, its token and the times of \
                     everything that has happened to it so far";

/// Most connections: as many as there are writers at once in a measurement.
const CONNECTIONS: usize = 64;

/// One-row inserts, each of them a transaction, and notifications.
#[derive(Debug)]
pub struct RawPostgres {
    client: Client,
    insert: String,
    announce: String,
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
        let insert = format!("INSERT INTO {schema}.raw_writes (body) VALUES ($1)");
        let announce = format!(
            "WITH written AS ({insert} RETURNING id) SELECT pg_catalog.pg_notify($2, id::text) FROM written"
        );
        Ok(Self {
            client,
            insert,
            announce,
        })
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
