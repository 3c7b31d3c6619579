//! The place of a measurement: a prefix or schema that nothing else uses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pac_concurrency::raw::RawStore;
use pac_concurrency::{
    ConcurrencyManager, DriverKind, Limit, PipelineRunKey, RepositoryKey, RunRequest, Settings,
};
use tokio::sync::OnceCell;

use crate::exit::{Exit, Failure};

/// Threads of the runtime, on every machine.
pub(super) const THREADS: usize = 2;

/// The namespace of all names used here.
const NAMESPACE: &str = "bench";

/// How long one side is measured before the other takes its turn.
const ROUND: Duration = Duration::from_millis(500);
const QUICK_ROUND: Duration = Duration::from_millis(150);

/// How long finished runs are kept at a place that forgets them, and how many of each repository.
#[cfg(any(feature = "etcd", feature = "postgres"))]
const KEPT_FOR: Duration = Duration::from_secs(2);
#[cfg(any(feature = "etcd", feature = "postgres"))]
const KEPT: usize = 50;

/// See the module.
pub(super) struct Place {
    /// The settings before names were changed.
    given: Settings,
    settings: Settings,
    tag: String,
    raw: OnceCell<Option<Arc<dyn RawStore>>>,
}

impl Place {
    /// A new, empty place.
    pub(super) fn new(settings: Settings) -> Self {
        Self::of(settings, &format!("{:012x}", fastrand::u64(..1 << 48)))
    }

    /// Another place of the same store, also empty, with connections of its own.
    pub(super) fn another(&self) -> Self {
        Self::new(self.given.clone())
    }

    /// Another place, whose drivers forget finished runs as soon as they may.
    pub(super) fn another_that_forgets(&self) -> Self {
        #[cfg_attr(
            not(any(feature = "etcd", feature = "postgres")),
            allow(unused_mut, reason = "memory is not shared, and is not asked")
        )]
        let mut other = self.another();
        #[cfg(feature = "etcd")]
        {
            other.settings.etcd.retention.age = KEPT_FOR;
            other.settings.etcd.retention.per_repository = KEPT;
        }
        #[cfg(feature = "postgres")]
        {
            other.settings.postgres.retention.age = KEPT_FOR;
            other.settings.postgres.retention.per_repository = KEPT;
        }
        other
    }

    /// Does work at the place, and deletes everything that was written to it, also when the work
    /// has failed.
    pub(super) async fn cleared_after<T>(
        self,
        work: impl AsyncFnOnce(&Self) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let done = work(&self).await;
        let cleared = self.clear().await;
        done.and_then(|done| cleared.map(|()| done))
    }

    /// The place of another process of this bench.
    #[cfg_attr(
        not(any(feature = "etcd", feature = "postgres")),
        allow(unused_mut, reason = "memory has no names to be kept apart")
    )]
    pub(super) fn of(given: Settings, tag: &str) -> Self {
        let mut settings = given.clone();
        #[cfg(feature = "etcd")]
        {
            settings.etcd.prefix = format!("{}bench-{tag}/", settings.etcd.prefix);
        }
        #[cfg(feature = "postgres")]
        {
            settings.postgres.schema = format!("pac_bench_{tag}");
        }
        Self {
            given,
            settings,
            tag: tag.to_owned(),
            raw: OnceCell::new(),
        }
    }

    pub(super) fn tag(&self) -> &str {
        &self.tag
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn driver(&self) -> DriverKind {
        self.settings.driver
    }

    /// Whether other processes can use the place too.
    pub(super) fn is_shared(&self) -> bool {
        self.driver() != DriverKind::Memory
    }

    /// Opens a manager, with a session of its own.
    pub(super) async fn manager(&self) -> Result<ConcurrencyManager, Failure> {
        Ok(pac_concurrency::connect(&self.settings).await?)
    }

    /// Opens two managers on one store, each with a driver of its own if the store permits.
    pub(super) async fn two_managers(
        &self,
    ) -> Result<(ConcurrencyManager, ConcurrencyManager), Failure> {
        if self.is_shared() {
            return Ok((self.manager().await?, self.manager().await?));
        }
        let driver = pac_concurrency::open_driver(&self.settings).await?;
        let options = self.settings.manager;
        let first = ConcurrencyManager::open(Arc::clone(&driver), options).await?;
        Ok((first, ConcurrencyManager::open(driver, options).await?))
    }

    /// The store without the protocol, if the driver offers that.
    pub(super) async fn raw(&self) -> Result<Option<Arc<dyn RawStore>>, Failure> {
        let open = async || {
            let raw = pac_concurrency::open_raw(&self.settings).await?;
            Ok::<_, Failure>(raw.map(Arc::from))
        };
        Ok(self.raw.get_or_try_init(open).await?.clone())
    }

    pub(super) async fn server(&self) -> Result<Option<String>, Failure> {
        match self.raw().await? {
            Some(raw) => Ok(Some(raw.server().await?)),
            None => Ok(None),
        }
    }

    /// Closes a manager, and removes repositories in which many runs may wait. Nobody else uses the
    /// place meanwhile.
    pub(super) async fn leave(
        &self,
        manager: ConcurrencyManager,
        repositories: &[RepositoryKey],
    ) -> Result<(), Failure> {
        if self.driver() == DriverKind::Etcd {
            manager.close().await?;
            // A removal would leave the waiting runs for sweeps to delete. The place is cleared now, in
            // steps.
            return self.clear().await;
        }
        for repository in repositories {
            manager.remove_repository(repository).await?;
        }
        Ok(manager.close().await?)
    }

    /// Deletes everything that was written to this place.
    pub(super) async fn clear(&self) -> Result<(), Failure> {
        match self.raw().await? {
            Some(raw) => Ok(raw.clear().await?),
            None => Ok(()),
        }
    }
}

/// The length of rounds, and their number.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) round: Duration,
    pub(super) rounds: usize,
}

impl Pace {
    pub(super) fn new(quick: bool) -> Self {
        Self {
            round: if quick { QUICK_ROUND } else { ROUND },
            rounds: if quick { 5 } else { 15 },
        }
    }
}

/// The key of a repository with a name.
pub(super) fn repository(name: &str) -> Result<RepositoryKey, Failure> {
    RepositoryKey::new(NAMESPACE, name).map_err(bug)
}

/// Makes this many repositories with a limit, named alike.
pub(super) async fn repositories(
    manager: &ConcurrencyManager,
    name: &str,
    number: usize,
    limit: u32,
) -> Result<Vec<RepositoryKey>, Failure> {
    let mut keys = Vec::with_capacity(number);
    for number in 0..number {
        let key = repository(&format!("{name}-{number}"))?;
        manager.set_limit(&key, Limit::new(limit), None).await?;
        keys.push(key);
    }
    Ok(keys)
}

/// A request for a run with a name, which is its uid too.
pub(super) fn run(name: &str) -> Result<RunRequest, Failure> {
    let key = PipelineRunKey::new(NAMESPACE, name).map_err(bug)?;
    Ok(RunRequest::durable(key, name.parse().map_err(bug)?))
}

/// The failure for something that cannot happen.
pub(super) fn bug(what: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Internal, format!("bench: {what}"))
}

pub(super) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Operations per second since `start`.
pub(super) fn rate(operations: usize, start: Instant) -> f64 {
    operations as f64 / start.elapsed().as_secs_f64()
}
