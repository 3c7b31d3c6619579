//! Keep-alive requests of a process with 10,000 running runs, against one with 10.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pac_concurrency::driver::protocol::Death;
use pac_concurrency::driver::state::{Head, Snapshot};
use pac_concurrency::driver::{
    Commit, Descriptor, Driver, ListFilter, RepositoryCommit, SessionTtl, Watch,
};
use pac_concurrency::{
    ConcurrencyManager, Error, Limit, RepositoryKey, SessionId, SessionIdentity, SessionInfo,
    Timestamp, Version,
};
use tokio::time::sleep;

use super::deep_queue::admit;
use super::load::Names;
use super::measurement::{Goal, Measurement};
use super::place::{Place, repository};
use crate::exit::Failure;

const FEW: usize = 10;
const MANY: usize = 10_000;
/// Runs per repository, admitted in one commit.
const TOGETHER: usize = 50;

/// Renewed every third of it. No store has a higher minimum.
const SESSION_TTL: Duration = Duration::from_secs(3);

pub(super) async fn measure(place: &Place, quick: bool) -> Result<Vec<Measurement>, Failure> {
    let driver = pac_concurrency::open_driver(place.settings()).await?;
    let counting = Arc::new(Counting {
        driver,
        renewals: AtomicUsize::new(0),
    });
    let mut options = place.settings().manager;
    options.session_ttl = SESSION_TTL;
    let manager = ConcurrencyManager::open(Arc::clone(&counting) as _, options).await?;
    let names = Names::new("kept");
    let length = SESSION_TTL * if quick { 1 } else { 5 };
    start(&manager, &names, "few", FEW).await?;
    let few = counting.renewals_in(length).await;
    start(&manager, &names, "many", MANY - FEW).await?;
    let many = counting.renewals_in(length).await;
    manager.close().await?;
    let measured = Measurement::new("keepalive", many, "requests per session TTL");
    Ok(vec![measured.against(few).goal(Goal::AtMost(11.0))])
}

async fn start(
    manager: &ConcurrencyManager,
    names: &Names,
    name: &str,
    runs: usize,
) -> Result<(), Failure> {
    for number in 0..runs.div_ceil(TOGETHER) {
        let key = repository(&format!("kept-{name}-{number}"))?;
        manager.set_limit(&key, Limit::UNLIMITED, None).await?;
        let requests = (0..TOGETHER.min(runs)).map(|_| names.next());
        admit(manager, &key, requests.collect::<Result<_, _>>()?).await?;
    }
    Ok(())
}

/// A driver that counts the requests that keep sessions alive.
#[derive(Debug)]
struct Counting {
    driver: Arc<dyn Driver>,
    renewals: AtomicUsize,
}

impl Counting {
    /// The number of requests per session TTL, measured over `length`.
    async fn renewals_in(&self, length: Duration) -> f64 {
        let before = self.renewals.load(Ordering::Relaxed);
        sleep(length).await;
        let renewals = self.renewals.load(Ordering::Relaxed) - before;
        renewals as f64 * SESSION_TTL.as_secs_f64() / length.as_secs_f64()
    }
}

#[async_trait]
impl Driver for Counting {
    fn descriptor(&self) -> Descriptor {
        self.driver.descriptor()
    }

    async fn open_session(
        &self,
        ttl: SessionTtl,
        identity: &SessionIdentity,
    ) -> Result<SessionId, Error> {
        self.driver.open_session(ttl, identity).await
    }

    async fn keep_alive(&self, session: SessionId) -> Result<(), Error> {
        self.renewals.fetch_add(1, Ordering::Relaxed);
        self.driver.keep_alive(session).await
    }

    async fn close_session(&self, session: SessionId) -> Result<(), Error> {
        self.driver.close_session(session).await
    }

    async fn dead_sessions(&self) -> Result<Vec<(SessionId, Death)>, Error> {
        self.driver.dead_sessions().await
    }

    async fn sessions(
        &self,
        sessions: &[SessionId],
    ) -> Result<Vec<(SessionId, SessionInfo)>, Error> {
        self.driver.sessions(sessions).await
    }

    async fn repositories_of(&self, session: SessionId) -> Result<Vec<RepositoryKey>, Error> {
        self.driver.repositories_of(session).await
    }

    async fn load(
        &self,
        repository: &RepositoryKey,
        since: Option<Version>,
    ) -> Result<Snapshot, Error> {
        self.driver.load(repository, since).await
    }

    fn commit(&self, session: SessionId, batch: Vec<RepositoryCommit>) -> Commit {
        self.driver.commit(session, batch)
    }

    async fn clock(&self) -> Result<Timestamp, Error> {
        self.driver.clock().await
    }

    async fn watch(&self, session: SessionId) -> Result<Box<dyn Watch>, Error> {
        self.driver.watch(session).await
    }

    async fn list(
        &self,
        filter: ListFilter,
        after: Option<&RepositoryKey>,
        limit: usize,
    ) -> Result<Vec<(RepositoryKey, Head)>, Error> {
        self.driver.list(filter, after, limit).await
    }
}
