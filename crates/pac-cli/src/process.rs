//! Who has opened a session: the process that holds a slot or waits for one, as it is shown.

use std::collections::HashMap;

use pac_concurrency::{ConcurrencyManager, SessionId, SessionInfo, StoreReader};
use serde::Serialize;

use crate::output::note;
use crate::time::rfc3339;

/// How many characters of it a table shows.
const SHOWN: usize = 48;

/// So many sessions are remembered. Beyond that all are forgotten, and read again where they come up.
const REMEMBERED: usize = 10_000;

/// What is known of the sessions that came up so far: each is read once.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    known: HashMap<SessionId, Option<SessionInfo>>,
    /// That they cannot be read was said.
    complained: bool,
}

impl Processes {
    /// Reads those of these sessions that did not come up before, with one request if there are any.
    /// Where that fails it is said once, and nothing is known of them.
    pub(crate) async fn read(
        &mut self,
        reader: &StoreReader,
        sessions: impl IntoIterator<Item = SessionId>,
    ) {
        let sessions = sessions.into_iter();
        let new: Vec<_> = sessions
            .filter(|session| !self.known.contains_key(session))
            .collect();
        if new.is_empty() {
            return;
        }
        match reader.sessions(new.iter().copied()).await {
            Ok(known) => {
                if self.known.len() + new.len() > REMEMBERED {
                    self.known.clear();
                }
                let told = |session| (session, known.get(&session).copied());
                self.known.extend(new.into_iter().map(told));
            }
            Err(error) => {
                if !std::mem::replace(&mut self.complained, true) {
                    note(format_args!("{error}; what holds the slots is not shown"));
                }
            }
        }
    }

    /// The process in a cell of a table, or the number of a session of which nothing is known.
    pub(crate) fn cell(&self, session: SessionId) -> String {
        match self.info(session) {
            Some(info) => info.identity.within(SHOWN),
            None => session.to_string(),
        }
    }

    /// The process as JSON and YAML have it.
    pub(crate) fn shape(&self, session: SessionId) -> Option<ProcessShape<'_>> {
        self.info(session).map(ProcessShape::of)
    }

    fn info(&self, session: SessionId) -> Option<&SessionInfo> {
        self.known.get(&session)?.as_ref()
    }
}

/// The process that has opened a session, for a sentence: its number where nothing else is known.
pub(crate) async fn named(manager: &ConcurrencyManager, session: SessionId) -> String {
    let known = manager.sessions(&[session]).await.unwrap_or_default();
    match known.get(&session) {
        Some(info) => info.identity.within(SHOWN),
        None => format!("session {session}"),
    }
}

/// A process, as JSON and YAML have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ProcessShape<'a> {
    program: &'a str,
    version: Option<&'a str>,
    host: Option<&'a str>,
    pid: Option<u32>,
    since: Option<String>,
}

impl<'a> ProcessShape<'a> {
    fn of(info: &'a SessionInfo) -> Self {
        let identity = &info.identity;
        Self {
            program: identity.program(),
            version: identity.version(),
            host: identity.host(),
            pid: identity.pid(),
            since: info.opened_at.map(rfc3339),
        }
    }
}
