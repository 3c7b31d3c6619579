//! The sessions, and whether they are alive by the server's clock.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use pac_core::driver::SessionTtl;
use pac_core::protocol::Death;
use pac_core::{Error, ErrorKind, RepositoryKey, SessionId};
use tokio::runtime::{Handle, Id};

use crate::client::{Client, Effect, Row, Session, Type};
use crate::clock::millis;
use crate::record::{cell, saturated};

/// The sessions of a store.
///
/// The keep-alive never waits for the pool: each runtime that renews sessions has a connection
/// of its own, which it drives itself. A manager's keep-alive has a runtime of its own, so
/// neither exhausted pools nor blocked workers of the application get in its way.
#[derive(Debug)]
pub(crate) struct Sessions {
    client: Client,
    /// By the id of the runtime that drives the connection.
    kept: Mutex<HashMap<Id, Session>>,
}

impl Sessions {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            kept: Mutex::default(),
        }
    }

    pub(crate) async fn open(&self, ttl: SessionTtl) -> Result<SessionId, Error> {
        let operation = "open session";
        let sql = format!(
            "INSERT INTO {0}.sessions (session_ttl, lease_ttl, deadline, lease_deadline) \
             VALUES ($1, $2, {0}.now_millis() + $1, {0}.now_millis() + $2) RETURNING id",
            self.client.schema()
        );
        let (session, lease) = (millis(ttl.session), millis(ttl.lease));
        let params = [(&session as _, Type::INT8), (&lease as _, Type::INT8)];
        let connection = match self.take() {
            Some(kept) => kept,
            None => self.client.connect(operation).await?,
        };
        let rows = connection
            .query(operation, Effect::Write, &sql, &params)
            .await?;
        self.keep(connection);
        session_in(rows.first(), operation)
    }

    pub(crate) async fn renew(&self, session: SessionId) -> Result<(), Error> {
        let operation = "keep alive";
        let sql = format!("SELECT {}.renew_session($1)", self.client.schema());
        let id = saturated(session.get());
        let params = [(&id as _, Type::INT8)];
        // A renewal may be repeated: if it fails on a kept connection, it is tried on a new one.
        let earlier = match self.take() {
            Some(kept) => {
                let answer = kept.query(operation, Effect::Write, &sql, &params).await;
                answer.ok().map(|rows| (kept, rows))
            }
            None => None,
        };
        let (connection, rows) = match earlier {
            Some(done) => done,
            None => {
                let new = self.client.connect(operation).await?;
                let rows = new.query(operation, Effect::Write, &sql, &params).await?;
                (new, rows)
            }
        };
        self.keep(connection);
        match rows.first().map(|row| cell::<bool>(row, 0)).transpose()? {
            Some(true) => Ok(()),
            _ => Err(Error::session_lost(operation, session)),
        }
    }

    pub(crate) async fn close(&self, session: SessionId) -> Result<(), Error> {
        let sql = format!("SELECT {}.close_session($1)", self.client.schema());
        let id = saturated(session.get());
        let params = [(&id as _, Type::INT8)];
        self.client
            .query("close session", Effect::Write, &sql, &params)
            .await?;
        Ok(())
    }

    /// The dead sessions, and whether this call declared any of them dead.
    pub(crate) async fn dead(&self) -> Result<(Vec<(SessionId, Death)>, bool), Error> {
        let operation = "look for dead sessions";
        let sql = format!("SELECT * FROM {}.sweep_sessions()", self.client.schema());
        // The request may be repeated: a session stays dead. So it counts as a read.
        let rows = self
            .client
            .query(operation, Effect::Read, &sql, &[])
            .await?;
        let mut fresh = false;
        let dead = rows.iter().map(|row| {
            let session = session_in(Some(row), operation)?;
            fresh |= cell::<bool>(row, 2)?;
            let death = if cell(row, 1)? {
                Death::Lease
            } else {
                Death::Session
            };
            Ok((session, death))
        });
        let dead = dead.collect::<Result<Vec<_>, Error>>()?;
        Ok((dead, fresh))
    }

    pub(crate) async fn repositories(
        &self,
        session: SessionId,
    ) -> Result<Vec<RepositoryKey>, Error> {
        let sql = format!(
            "SELECT DISTINCT repository FROM {}.entries WHERE session = $1",
            self.client.schema()
        );
        let id = saturated(session.get());
        let params = [(&id as _, Type::INT8)];
        let rows = self
            .client
            .query(
                "list repositories of a session",
                Effect::Read,
                &sql,
                &params,
            )
            .await?;
        let keys = rows.iter().filter_map(|row| {
            // A name that is not a valid key is not that of a repository.
            cell::<&str>(row, 0).ok()?.parse().ok()
        });
        Ok(keys.collect())
    }

    /// Takes the connection of this runtime; [`Self::keep`] puts it back. If it is dropped instead,
    /// it is closed.
    fn take(&self) -> Option<Session> {
        let runtime = Handle::try_current().ok()?.id();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.remove(&runtime).filter(|session| !session.is_closed())
    }

    fn keep(&self, session: Session) {
        if let Ok(runtime) = Handle::try_current() {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.retain(|_, session| !session.is_closed());
            kept.insert(runtime.id(), session);
        }
    }
}

fn session_in(row: Option<&Row>, operation: &'static str) -> Result<SessionId, Error> {
    let id = row.map(|row| cell::<i64>(row, 0)).transpose()?;
    let id = id.and_then(|id| u64::try_from(id).ok());
    id.map(SessionId::new).ok_or_else(|| {
        Error::new(
            ErrorKind::Corrupt,
            operation,
            "the server answered without a session",
        )
    })
}
