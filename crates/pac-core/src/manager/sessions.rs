//! Who holds what: the processes behind the sessions that a status names.

use std::collections::BTreeMap;

use super::ConcurrencyManager;
use crate::error::Error;
use crate::identity::SessionInfo;
use crate::value::SessionId;

impl ConcurrencyManager {
    /// Reads who has opened these sessions, which are those of the runs of a
    /// [`status`](Self::status), and when. One that the store knows nothing of any more is left out:
    /// a dead session is known as long as it has runs. One read for all; on etcd, for every 60 or so.
    ///
    /// # Errors
    /// Those of reading from the store.
    pub async fn sessions(
        &self,
        sessions: &[SessionId],
    ) -> Result<BTreeMap<SessionId, SessionInfo>, Error> {
        if sessions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let store = &self.engine().store;
        let known = store.driver.sessions(sessions);
        let known = store.read(known, "read sessions").await?;
        Ok(known.into_iter().collect())
    }
}
