//! Transactions that have been open for long: while one keeps its snapshot, PostgreSQL can delete no
//! old version of any row in the database.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pac_core::Error;
use pac_core::driver::Finding;

use crate::client::{Client, Effect, Row};
use crate::record::cell;

/// From this age on a snapshot is worth a word: some ten thousand versions of a head that is in
/// constant use.
const OLD: Duration = Duration::from_secs(5 * 60);
/// The time between two looks for the log. A look reads what the server knows in memory.
const LOOK: Duration = Duration::from_secs(60);
/// The time between two lines in the log about it.
const TELL: Duration = Duration::from_secs(60 * 60);

/// When to look, and when to tell.
#[derive(Debug)]
pub(crate) struct Snapshots(Mutex<Due>);

#[derive(Debug)]
struct Due {
    look: Instant,
    tell: Instant,
}

/// The backend with the oldest snapshot.
#[derive(Debug)]
pub(crate) struct Oldest {
    pid: i32,
    application: String,
    user: String,
    state: String,
    age: Duration,
}

impl Snapshots {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self(Mutex::new(Due {
            look: now,
            tell: now,
        }))
    }

    /// Says in the log that there is an old snapshot, if there is one. Seldom: most calls do nothing.
    pub(crate) async fn watch(&self, client: &Client) -> Result<(), Error> {
        if !self.is_due() {
            return Ok(());
        }
        if let Some(oldest) = oldest(client).await? {
            let mut due = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            due.tell = Instant::now() + TELL;
            tracing::warn!(
                pid = oldest.pid,
                application = oldest.application,
                age = ?oldest.age,
                "{}; {}",
                oldest.text(),
                oldest.cure()
            );
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        let mut due = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let is_due = due.look <= now && due.tell <= now;
        if is_due {
            due.look = now + LOOK;
        }
        is_due
    }
}

/// The backend that keeps the oldest snapshot, if that is old. A role that is neither a superuser nor
/// a member of `pg_read_all_stats` sees those of its own alone.
pub(crate) async fn oldest(client: &Client) -> Result<Option<Oldest>, Error> {
    let sql = "SELECT a.pid, coalesce(a.application_name, ''), coalesce(a.usename, '')::text, \
                 coalesce(a.state, ''), \
                 pg_catalog.floor(extract(epoch FROM pg_catalog.clock_timestamp() \
                   - coalesce(a.xact_start, a.backend_start)))::bigint \
               FROM pg_catalog.pg_stat_activity a \
               WHERE a.backend_xmin IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid() \
                 AND (a.datname = pg_catalog.current_database() OR a.datname IS NULL) \
                 AND a.backend_type <> 'autovacuum worker' \
               ORDER BY pg_catalog.age(a.backend_xmin) DESC LIMIT 1";
    let rows = client.query("diagnose", Effect::Read, sql, &[]).await?;
    let oldest = rows.first().map(Oldest::of).transpose()?;
    Ok(oldest.filter(|oldest| oldest.age >= OLD))
}

impl Oldest {
    fn of(row: &Row) -> Result<Self, Error> {
        let text = |at| cell::<&str>(row, at).map(str::to_owned);
        let seconds = u64::try_from(cell::<i64>(row, 4)?).unwrap_or(0);
        Ok(Self {
            pid: cell(row, 0)?,
            application: text(1)?,
            user: text(2)?,
            state: text(3)?,
            age: Duration::from_secs(seconds),
        })
    }

    fn text(&self) -> String {
        format!(
            "a transaction of backend {} (application {:?}, role {:?}, {}) has kept a snapshot of \
             this database for {} minutes: no old version of any row can be deleted meanwhile, so \
             the tables grow and requests become slower",
            self.pid,
            self.application,
            self.user,
            if self.state.is_empty() {
                "state unknown"
            } else {
                &self.state
            },
            self.age.as_secs() / 60
        )
    }

    fn cure(&self) -> String {
        format!(
            "end it (SELECT pg_catalog.pg_terminate_backend({})), or let dumps and reports run where this \
             store is not: in another database, or on a standby without hot_standby_feedback; \
             idle_in_transaction_session_timeout ends forgotten ones",
            self.pid
        )
    }

    /// What `pac doctor` says.
    pub(crate) fn finding(&self) -> Finding {
        Finding::warning(self.text(), self.cure())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_looked_for_once_a_minute() {
        let snapshots = Snapshots::new();
        assert!(snapshots.is_due());
        assert!(!snapshots.is_due());
    }

    #[test]
    fn the_message_names_the_backend_and_the_cure() {
        let oldest = Oldest {
            pid: 4711,
            application: "pg_dump".to_owned(),
            user: "backup".to_owned(),
            state: "idle in transaction".to_owned(),
            age: Duration::from_secs(3_725),
        };
        let text = oldest.text();
        for part in [
            "4711",
            "\"pg_dump\"",
            "\"backup\"",
            "idle in transaction",
            "62 minutes",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(oldest.cure().contains("pg_terminate_backend(4711)"));
        assert_eq!(oldest.finding().level(), pac_core::driver::Level::Warning);
    }
}
