//! Servers that a case may stop, and outages of a store in general.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::faults::Faults;

/// The server of a fixture's store, which belongs to that fixture alone.
#[async_trait]
pub trait Server: fmt::Debug + Send + Sync + 'static {
    /// Stops it. Returns when it answers nobody any more.
    async fn stop(&self);

    /// Starts it again, with the data that it had and at the same place. Returns when it answers.
    async fn start(&self);
}

/// A store that can be taken away from the managers [behind](crate::Fixture::manager_behind) its
/// line, and given back: by stopping its server, if the fixture has one, else by cutting the line.
#[derive(Debug)]
pub struct Outage {
    line: Arc<Faults>,
    server: Option<Arc<dyn Server>>,
}

impl Outage {
    pub(crate) fn of(server: Option<Arc<dyn Server>>) -> Self {
        let line = Faults::none();
        Self { line, server }
    }

    /// The line to open managers behind.
    #[must_use]
    pub fn line(&self) -> &Arc<Faults> {
        &self.line
    }

    /// From here on nobody behind the line reaches the store.
    pub async fn begin(&self) {
        match &self.server {
            Some(server) => server.stop().await,
            None => self.line.cut(),
        }
    }

    /// From here on the store answers again.
    pub async fn end(&self) {
        match &self.server {
            Some(server) => server.start().await,
            None => self.line.open(),
        }
    }
}
