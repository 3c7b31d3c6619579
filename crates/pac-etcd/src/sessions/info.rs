//! What the store knows of sessions, for people to read.

use pac_core::effect::Effect;
use pac_core::{Error, SessionId, SessionInfo};

use crate::client::failure::Failure;
use crate::client::{Operation, Transaction};
use crate::record::decode_session;
use crate::store::{Store, all_pages, malformed, one, one_key};

impl Store {
    /// What is known of these sessions: the record of a dead one is there until the session is
    /// forgotten, which is not before its last run is. One request for every 60 or so. A session
    /// whose record is not there or cannot be understood is left out.
    pub(crate) async fn session_info(
        &self,
        sessions: &[SessionId],
    ) -> Result<Vec<(SessionId, SessionInfo)>, Error> {
        let mut known = Vec::with_capacity(sessions.len());
        let (mut left, mut at_once) = (sessions, self.max_operations / 2);
        while !left.is_empty() {
            let (part, rest) = left.split_at(at_once.clamp(1, left.len()));
            match self.info_of(part).await {
                Ok(answer) => known.extend(answer?),
                // Foreign values take the place of records.
                Err(failure) if failure.is_too_large() => {
                    at_once = part.len() / 2;
                    if part.len() > 1 {
                        continue;
                    }
                }
                Err(failure) => return Err(failure.error("read sessions", Effect::Read)),
            }
            left = rest;
        }
        Ok(known)
    }

    async fn info_of(
        &self,
        sessions: &[SessionId],
    ) -> Result<Result<Vec<(SessionId, SessionInfo)>, Error>, Failure> {
        let reads = sessions.iter().flat_map(|id| {
            [one(self.keys.record(*id)), one_key(self.keys.alive(*id))].map(Operation::Get)
        });
        let transaction = Transaction {
            then: reads.collect(),
            ..Transaction::default()
        };
        let answer = self.cluster.transact(&transaction, Effect::Read).await?;
        let pages = all_pages(answer.steps);
        if pages.len() != sessions.len() * 2 {
            return Ok(Err(malformed()));
        }
        let read = sessions
            .iter()
            .zip(pages.chunks_exact(2))
            .filter_map(|(id, pages)| {
                let [record, alive] = pages else {
                    return None;
                };
                let record = record.entries.first()?;
                match decode_session(&record.key, &record.value) {
                    Ok((identity, opened_at)) => {
                        let dead = alive.entries.is_empty();
                        Some((*id, SessionInfo::new(identity, opened_at, dead)))
                    }
                    Err(error) => {
                        tracing::debug!(%error, session = %id, "its record cannot be read");
                        None
                    }
                }
            });
        Ok(Ok(read.collect()))
    }
}
