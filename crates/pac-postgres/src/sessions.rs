//! The sessions, and whether they are alive by the server's clock.

mod troubles;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pac_core::driver::{Finding, SessionTtl};
use pac_core::protocol::Death;
use pac_core::{
    Error, ErrorKind, RepositoryKey, SessionId, SessionIdentity, SessionInfo, Timestamp,
};

use crate::client::{Client, Effect, Row, Type};
use crate::clock::millis;
use crate::record::{cell, saturated};
use troubles::Troubles;

/// The longest TTL that the schema's domain `ttl` takes: 366 days. Longer ones are mistakes, and
/// sums with them must not reach the end of the numbers.
const LONGEST_TTL: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Of a session's TTL, one attempt to renew it may take this part; there are two, on two
/// connections, and both are over before the manager asks again.
const ATTEMPT: u32 = 6;

/// The sessions of a store.
///
/// They are opened and renewed over the link, which no load of the application reaches, and over any
/// connection of the pool when the link is down.
#[derive(Debug)]
pub(crate) struct Sessions {
    client: Client,
    /// How long an attempt to renew a session may take, for those that this driver has opened.
    patience: Mutex<HashMap<SessionId, Duration>>,
    /// Those that looks for dead sessions could not see to.
    troubles: Mutex<Troubles>,
}

impl Sessions {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            patience: Mutex::default(),
            troubles: Mutex::default(),
        }
    }

    pub(crate) async fn open(
        &self,
        ttl: SessionTtl,
        identity: &SessionIdentity,
    ) -> Result<SessionId, Error> {
        let operation = "open session";
        ttl.check(LONGEST_TTL)?;
        let schema = self.client.schema();
        let sql = format!("SELECT {schema}.open_session($1, $2, $3, $4, $5, $6)");
        let (session, lease) = (millis(ttl.session), millis(ttl.lease));
        let (program, version) = (identity.program(), identity.version());
        let (host, pid) = (identity.host(), identity.pid().map(i64::from));
        let params = [
            (&session as _, Type::INT8),
            (&lease as _, Type::INT8),
            (&program as _, Type::TEXT),
            (&version as _, Type::TEXT),
            (&host as _, Type::TEXT),
            (&pid as _, Type::INT8),
        ];
        let patience = ttl.session / ATTEMPT;
        self.client.hurry(patience);
        // If the answer was lost, the session may exist all the same. Nothing renews it, so it is
        // soon dead, and another one may be opened: the request counts as a read.
        let rows = self
            .client
            .query_by_any(
                self.client.options().statement_timeout,
                operation,
                Effect::Read,
                &sql,
                &params,
            )
            .await?;
        let id = session_in(rows.first(), operation)?;
        self.patience().insert(id, patience);
        Ok(id)
    }

    pub(crate) async fn renew(&self, session: SessionId) -> Result<(), Error> {
        let operation = "keep alive";
        let sql = format!("SELECT {}.renew_session($1)", self.client.schema());
        let id = saturated(session.get());
        let params = [(&id as _, Type::INT8)];
        let longest = self.client.options().statement_timeout;
        let patience = self.patience().get(&session).copied();
        let patience = patience.map_or(longest, |patience| patience.min(longest));
        // A renewal may be repeated.
        let rows = self
            .client
            .query_by_any(patience, operation, Effect::Write, &sql, &params)
            .await?;
        match rows.first().map(|row| cell::<bool>(row, 0)).transpose()? {
            Some(true) => Ok(()),
            _ => {
                self.patience().remove(&session);
                Err(Error::session_lost(operation, session))
            }
        }
    }

    pub(crate) async fn close(&self, session: SessionId) -> Result<(), Error> {
        self.patience().remove(&session);
        let sql = format!("SELECT {}.close_session($1)", self.client.schema());
        let id = saturated(session.get());
        let params = [(&id as _, Type::INT8)];
        self.client
            .query("close session", Effect::Write, &sql, &params)
            .await?;
        Ok(())
    }

    /// What is known of these sessions. One whose row cannot be understood is left out.
    pub(crate) async fn info(
        &self,
        sessions: &[SessionId],
    ) -> Result<Vec<(SessionId, SessionInfo)>, Error> {
        let schema = self.client.schema();
        let sql = format!(
            "SELECT s.id::bigint, s.program::text, s.version::text, s.host::text, s.pid::bigint, \
               s.opened_at::bigint, \
               NOT {schema}.lives(s.dead, s.session_ttl, s.lease_ttl, s.deadline) \
             FROM {schema}.sessions s WHERE s.id = ANY ($1)"
        );
        let ids: Vec<i64> = sessions.iter().map(|id| saturated(id.get())).collect();
        let params = [(&ids as _, Type::INT8_ARRAY)];
        let rows = self
            .client
            .query("read sessions", Effect::Read, &sql, &params)
            .await?;
        let read = rows.iter().map(info_in).filter_map(|read| {
            read.inspect_err(|error| tracing::debug!(%error, "a session is not understood"))
                .ok()
        });
        Ok(read.collect())
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
        let (mut dead, mut fresh) = (Vec::new(), false);
        let (mut locked, mut unsound) = (Vec::new(), Vec::new());
        for row in &rows {
            let number = cell::<i64>(row, 0)?;
            match (cell::<i16>(row, 3)?, u64::try_from(number)) {
                (0, Ok(id)) => {
                    fresh |= cell::<bool>(row, 2)?;
                    let death = if cell(row, 1)? {
                        Death::Lease
                    } else {
                        Death::Session
                    };
                    dead.push((SessionId::new(id), death));
                }
                (1, Ok(_)) => locked.push(number),
                _ => unsound.push(number),
            }
        }
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.note(&locked, unsound);
        if let Some((text, cure)) = troubles.tell(&self.client.schema()) {
            tracing::warn!("{text}; {cure}");
        }
        Ok((dead, fresh))
    }

    /// What `pac doctor` says of sessions that nobody can see to. One request, which writes nothing.
    pub(crate) async fn diagnose(&self) -> Result<Option<Finding>, Error> {
        let schema = self.client.schema();
        let sql = format!(
            "SELECT id FROM {schema}.sessions \
             WHERE id <= 0 OR NOT {schema}.is_sound(session_ttl, lease_ttl) LIMIT $1"
        );
        let params = [(&troubles::NAMED as _, Type::INT8)];
        let rows = self
            .client
            .query("diagnose", Effect::Read, &sql, &params)
            .await?;
        let unsound = rows.iter().map(|row| cell::<i64>(row, 0));
        let unsound = unsound.collect::<Result<Vec<_>, Error>>()?;
        let found = (!unsound.is_empty()).then(|| troubles::unsound(&unsound, &schema));
        Ok(found.map(|(text, cure)| Finding::failure(ErrorKind::Corrupt, text, cure)))
    }

    pub(crate) async fn repositories(
        &self,
        session: SessionId,
    ) -> Result<Vec<RepositoryKey>, Error> {
        let sql = format!(
            "SELECT repository FROM {0}.queue WHERE session = $1 \
             UNION SELECT repository FROM {0}.slots WHERE session = $1",
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

    fn patience(&self) -> MutexGuard<'_, HashMap<SessionId, Duration>> {
        self.patience.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn info_in(row: &Row) -> Result<(SessionId, SessionInfo), Error> {
    let text = |at| cell::<Option<&str>>(row, at).map(Option::unwrap_or_default);
    let pid = cell::<Option<i64>>(row, 4)?.and_then(|pid| u32::try_from(pid).ok());
    let identity = SessionIdentity::cleaned(text(1)?, text(2)?, text(3)?, pid);
    let opened_at = cell::<Option<i64>>(row, 5)?.map(Timestamp::from_unix_millis);
    let info = SessionInfo::new(identity, opened_at, cell(row, 6)?);
    Ok((session_in(Some(row), "read sessions")?, info))
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
