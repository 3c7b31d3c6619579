//! Limits on PostgreSQL without this project, as people keep them.

use std::time::Duration;

use async_trait::async_trait;
use pac_core::Error;
use pac_core::raw::{Peer, RawPlace};
use tokio::time::sleep;

use crate::PostgresOptions;
use crate::client::{Effect, Param, Session, Sql, Type};

const ADVISORY: Peer = Peer {
    name: "pg_advisory_lock",
    counts: false,
};
const COUNTER: Peer = Peer {
    name: "row counter",
    counts: true,
};
const SLOTS: Peer = Peer {
    name: "SKIP LOCKED rows",
    counts: true,
};

pub(super) const ALL: [Peer; 3] = [ADVISORY, COUNTER, SLOTS];

/// How often a task looks that nobody wakes.
const POLL: Duration = Duration::from_millis(100);

/// The SQL that makes the tables of all peers, with nothing held.
pub(super) fn tables(schema: &str, limit: u32) -> String {
    format!(
        "DROP TABLE IF EXISTS {schema}.raw_counter, {schema}.raw_slots;
         CREATE TABLE {schema}.raw_counter (running integer NOT NULL);
         INSERT INTO {schema}.raw_counter VALUES (0);
         CREATE TABLE {schema}.raw_slots (id integer PRIMARY KEY);
         INSERT INTO {schema}.raw_slots SELECT pg_catalog.generate_series(1, {limit})"
    )
}

/// The place of a task, which has the connection to itself.
pub(super) fn place(
    peer: Peer,
    session: Session,
    options: &PostgresOptions,
    limit: u32,
) -> Result<Box<dyn RawPlace>, Error> {
    let schema = options.schema.clone();
    Ok(match peer {
        COUNTER => Box::new(Counter {
            session,
            limit: i32::try_from(limit).unwrap_or(i32::MAX),
            look: format!("SELECT running FROM \"{schema}\".raw_counter FOR UPDATE"),
            take: format!("UPDATE \"{schema}\".raw_counter SET running = running + 1"),
            give: format!("UPDATE \"{schema}\".raw_counter SET running = running - 1"),
        }),
        SLOTS => Box::new(Slots {
            session,
            take: format!("SELECT id FROM \"{schema}\".raw_slots LIMIT 1 FOR UPDATE SKIP LOCKED"),
        }),
        _ => Box::new(Advisory {
            session,
            name: schema,
        }),
    })
}

/// `pg_advisory_lock`: the server lets tasks wait in a queue of its own, each on a connection.
struct Advisory {
    session: Session,
    name: String,
}

impl Advisory {
    async fn run(&self, sql: &str) -> Result<(), Error> {
        let name = [(&self.name as _, Type::TEXT)];
        often(&self.session, sql, &name).await.map(drop)
    }
}

#[async_trait]
impl RawPlace for Advisory {
    async fn acquire(&mut self) -> Result<(), Error> {
        self.run("SELECT pg_catalog.pg_advisory_lock(pg_catalog.hashtextextended($1, 0))")
            .await
    }

    async fn release(&mut self) -> Result<(), Error> {
        self.run("SELECT pg_catalog.pg_advisory_unlock(pg_catalog.hashtextextended($1, 0))")
            .await
    }
}

/// A row says how many run. A task locks it, and looks again later when they are enough.
struct Counter {
    session: Session,
    limit: i32,
    look: String,
    take: String,
    give: String,
}

#[async_trait]
impl RawPlace for Counter {
    async fn acquire(&mut self) -> Result<(), Error> {
        loop {
            self.session.batch("measure", "BEGIN").await?;
            let running = often(&self.session, &self.look, &[]).await?;
            if running.is_some_and(|running| running < self.limit) {
                often(&self.session, &self.take, &[]).await?;
                return self.session.batch("measure", "COMMIT").await;
            }
            self.session.batch("measure", "ROLLBACK").await?;
            sleep(POLL).await;
        }
    }

    async fn release(&mut self) -> Result<(), Error> {
        often(&self.session, &self.give, &[]).await.map(drop)
    }
}

/// As many rows as may run. A task that runs has one of them locked by its open transaction.
struct Slots {
    session: Session,
    take: String,
}

#[async_trait]
impl RawPlace for Slots {
    async fn acquire(&mut self) -> Result<(), Error> {
        loop {
            self.session.batch("measure", "BEGIN").await?;
            if often(&self.session, &self.take, &[]).await?.is_some() {
                return Ok(());
            }
            self.session.batch("measure", "ROLLBACK").await?;
            sleep(POLL).await;
        }
    }

    async fn release(&mut self) -> Result<(), Error> {
        self.session.batch("measure", "COMMIT").await
    }
}

/// Runs a prepared statement. Returns the first number of the first row, if there is one.
async fn often(session: &Session, sql: &str, params: &[Param<'_>]) -> Result<Option<i32>, Error> {
    let answer = session.query("measure", Effect::Write, Sql::Often(sql), params);
    let rows = answer.await?;
    Ok(rows.first().and_then(|row| row.try_get(0).ok()))
}
