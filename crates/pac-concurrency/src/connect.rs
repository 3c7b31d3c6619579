//! Opens the driver that settings name.

use std::sync::Arc;

#[cfg(feature = "postgres")]
use pac_core::SessionIdentity;
use pac_core::driver::Driver;
use pac_core::manager::ConcurrencyManager;
use pac_core::{Error, ErrorKind};

#[cfg(feature = "etcd")]
use crate::settings::EtcdMode;
use crate::settings::{DriverKind, Settings};

/// Opens the driver that the settings name, and a manager on it. Before that, it brings along the
/// state of an older version that is found in the store, once, unless
/// [`migrate_state`](Settings::migrate_state) is false. Dropped in flight, it opens nothing; state
/// may have been brought along in part, and the next call does the rest.
///
/// # Errors
/// `Config` if limits are not [enabled](Settings::enabled), if this build lacks the driver (the
/// message names the feature to enable), or if settings contradict each other. Otherwise the
/// reason why the store could not be used.
pub async fn connect(settings: &Settings) -> Result<ConcurrencyManager, Error> {
    let opened = open(settings).await?;
    manage(settings, opened).await
}

/// Like [`connect`], and creates nothing in the store: `None` when the store has nothing of this
/// software and would have to be prepared first. Dropped in flight, it opens nothing.
///
/// # Errors
/// Those of [`connect`], and `Incompatible` for a store of an older version.
pub async fn connect_existing(settings: &Settings) -> Result<Option<ConcurrencyManager>, Error> {
    match open_existing(settings).await? {
        Some(opened) => manage(settings, opened).await.map(Some),
        None => Ok(None),
    }
}

/// Brings along what older versions have left in the store, and opens a manager.
async fn manage(settings: &Settings, opened: Opened) -> Result<ConcurrencyManager, Error> {
    #[cfg(any(feature = "etcd", feature = "postgres"))]
    if settings.migrate_state {
        let left = opened.left_by_older_versions(settings).await;
        crate::legacy::bring_along(left, &*opened.driver).await?;
    }
    let driver = opened.driver;
    let manager = ConcurrencyManager::open(driver, settings.manager).await?;
    tracing::info!(
        "Initialized concurrency system with driver: {}",
        settings.driver
    );
    Ok(manager)
}

/// Like [`connect`], for a program that also works without limits: `None` when the settings
/// disable them. The program should then start runs without asking for slots.
///
/// # Errors
/// Those of [`connect`], except the one for disabled limits.
pub async fn connect_if_enabled(settings: &Settings) -> Result<Option<ConcurrencyManager>, Error> {
    if settings.enabled {
        connect(settings).await.map(Some)
    } else {
        Ok(None)
    }
}

/// Opens the driver that the settings name, for use by several managers on the same store.
///
/// # Errors
/// Those of [`connect`].
pub async fn open_driver(settings: &Settings) -> Result<Arc<dyn Driver>, Error> {
    open(settings).await.map(|opened| opened.driver)
}

/// A driver, and what it is itself where its own connections serve for more.
struct Opened {
    driver: Arc<dyn Driver>,
    #[cfg(feature = "postgres")]
    postgresql: Option<Arc<pac_postgres::PostgresDriver>>,
}

impl Opened {
    #[cfg(any(feature = "memory", feature = "etcd"))]
    fn new(driver: Arc<dyn Driver>) -> Self {
        Self {
            driver,
            #[cfg(feature = "postgres")]
            postgresql: None,
        }
    }

    #[cfg(feature = "postgres")]
    fn postgresql(driver: pac_postgres::PostgresDriver) -> Self {
        let driver = Arc::new(driver);
        Self {
            postgresql: Some(Arc::clone(&driver)),
            driver,
        }
    }

    #[cfg(any(feature = "etcd", feature = "postgres"))]
    #[allow(
        clippy::unused_self,
        reason = "only the connections of PostgreSQL serve for more"
    )]
    async fn left_by_older_versions(
        &self,
        settings: &Settings,
    ) -> Result<Vec<crate::legacy::LegacyStore>, Error> {
        match settings.driver {
            #[cfg(feature = "etcd")]
            DriverKind::Etcd => crate::legacy::left_on_etcd(settings).await,
            #[cfg(feature = "postgres")]
            DriverKind::Postgresql => match &self.postgresql {
                Some(driver) => crate::legacy::left_on_postgresql(driver).await,
                None => Ok(Vec::new()),
            },
            _ => Ok(Vec::new()),
        }
    }
}

#[allow(
    clippy::unused_async,
    reason = "drivers of stores behind a network connect here"
)]
async fn open(settings: &Settings) -> Result<Opened, Error> {
    if !settings.enabled {
        return Err(disabled());
    }
    match settings.driver {
        #[cfg(feature = "memory")]
        DriverKind::Memory => {
            let driver = pac_memory::MemoryDriver::new(settings.memory.clone());
            Ok(Opened::new(Arc::new(driver)))
        }
        #[cfg(not(feature = "memory"))]
        DriverKind::Memory => Err(not_compiled_in("driver memory", "memory")),
        #[cfg(not(feature = "etcd"))]
        DriverKind::Etcd => Err(not_compiled_in("driver etcd", "etcd")),
        #[cfg(not(feature = "postgres"))]
        DriverKind::Postgresql => Err(not_compiled_in("driver postgresql", "postgres")),
        #[cfg(feature = "etcd")]
        DriverKind::Etcd => open_etcd(settings).await.map(Opened::new),
        #[cfg(feature = "postgres")]
        DriverKind::Postgresql => {
            let driver = pac_postgres::PostgresDriver::connect(postgres_options(settings));
            driver.await.map(Opened::postgresql)
        }
    }
}

/// The connections are called after who the manager says it is, if not otherwise.
#[cfg(feature = "postgres")]
fn postgres_options(settings: &Settings) -> pac_postgres::PostgresOptions {
    let mut options = settings.postgres.clone();
    let identity = settings.manager.identity;
    let identity = identity.map(|identity| identity.within(SessionIdentity::LONGEST));
    options.application_name = options.application_name.or(identity);
    options
}

/// Opens the etcd driver over what its mode says. Each mock is a world of its own.
#[cfg(feature = "etcd")]
async fn open_etcd(settings: &Settings) -> Result<Arc<dyn Driver>, Error> {
    let chosen = settings.etcd_mode;
    tracing::info!("etcd-mode is {}: {}", chosen.mode(), chosen.reason());
    match chosen.mode() {
        EtcdMode::Etcd => {
            let driver = pac_etcd::EtcdDriver::connect(&settings.etcd).await?;
            Ok(Arc::new(driver))
        }
        #[cfg(feature = "mock")]
        EtcdMode::Mock => open_mock(settings).await,
        #[cfg(not(feature = "mock"))]
        EtcdMode::Mock => Err(not_compiled_in("mode mock of the driver etcd", "mock")),
    }
}

/// The revisions that a mock keeps at least: more than any watch of the driver falls behind.
#[cfg(feature = "mock")]
const REVISIONS_OF_A_MOCK: u32 = 10_000;

#[cfg(feature = "mock")]
async fn open_mock(settings: &Settings) -> Result<Arc<dyn Driver>, Error> {
    tracing::warn!(
        "the driver etcd runs on a mock etcd in this process, for tests: its state ends with the \
         process, and no other controller sees it"
    );
    // The driver compacts nothing, since a cluster does that by itself.
    let mock = pac_etcd_mock::MockEtcd::builder().auto_compaction(REVISIONS_OF_A_MOCK);
    let mock = mock.start().await;
    let failed = |error| {
        Error::new(ErrorKind::Internal, "open driver", "the mock did not start").caused_by(error)
    };
    let channel = mock.map_err(failed)?.into_direct_channel();
    // A fresh mock knows no users, and no TLS is spoken without a connection.
    let mut options = pac_etcd::EtcdOptions::default();
    options.prefix.clone_from(&settings.etcd.prefix);
    options.retention = settings.etcd.retention;
    let driver = pac_etcd::EtcdDriver::connect_over(&options, channel).await?;
    Ok(Arc::new(driver))
}

/// Opens the driver that the settings name for reading: creates nothing in the store. `None` when
/// the store has nothing of this software and would have to be prepared first.
///
/// # Errors
/// Those of [`connect`], and `Incompatible` for a store of an older version.
pub async fn open_existing_driver(settings: &Settings) -> Result<Option<Arc<dyn Driver>>, Error> {
    let opened = open_existing(settings).await?;
    Ok(opened.map(|opened| opened.driver))
}

async fn open_existing(settings: &Settings) -> Result<Option<Opened>, Error> {
    #[cfg(feature = "postgres")]
    if settings.enabled && settings.driver == DriverKind::Postgresql {
        let options = postgres_options(settings);
        let driver = pac_postgres::PostgresDriver::connect_existing(options).await?;
        return Ok(driver.map(Opened::postgresql));
    }
    open(settings).await.map(Some)
}

/// Opens the store without the protocol, for `pac bench`; `None` for memory.
///
/// # Errors
/// Those of [`open_driver`].
#[cfg(feature = "bench")]
#[doc(hidden)]
pub async fn open_raw(
    settings: &Settings,
) -> Result<Option<Box<dyn pac_core::raw::RawStore>>, Error> {
    match settings.driver {
        #[cfg(feature = "etcd")]
        DriverKind::Etcd if settings.etcd_mode.mode() == EtcdMode::Etcd => Ok(Some(Box::new(
            pac_etcd::RawEtcd::connect(&settings.etcd).await?,
        ))),
        #[cfg(feature = "postgres")]
        DriverKind::Postgresql => Ok(Some(Box::new(
            pac_postgres::RawPostgres::connect(settings.postgres.clone()).await?,
        ))),
        _ => Ok(None),
    }
}

fn disabled() -> Error {
    Error::new(
        ErrorKind::Config,
        "connect",
        "concurrency limits are not enabled; name a driver with concurrency-driver, and do not \
         set concurrency-enabled to false",
    )
}

#[cfg(not(all(feature = "memory", feature = "mock", feature = "postgres")))]
fn not_compiled_in(what: &str, feature: &str) -> Error {
    Error::new(
        ErrorKind::Config,
        "open driver",
        format!(
            "the {what} is not compiled in; enable the feature `{feature}` of the crate \
             pac-concurrency"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(not(all(feature = "memory", feature = "etcd", feature = "postgres")))]
    async fn refusal(driver: DriverKind) -> String {
        let settings = Settings {
            driver,
            ..Settings::default()
        };
        let error = open_driver(&settings).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    }

    #[cfg(not(feature = "etcd"))]
    #[tokio::test]
    async fn etcd_can_be_left_out() {
        let error = refusal(DriverKind::Etcd).await;
        assert!(error.contains("feature `etcd`"), "{error}");
    }

    #[cfg(feature = "etcd")]
    #[tokio::test]
    async fn settings_lead_to_the_members_that_they_name() {
        let mut settings = Settings {
            driver: DriverKind::Etcd,
            ..Settings::default()
        };
        settings.etcd.endpoints = vec!["127.0.0.1:1".to_owned()];
        let error = open_driver(&settings).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("check the endpoints"), "{error}");
    }

    #[cfg(feature = "mock")]
    #[tokio::test]
    async fn the_mock_is_a_store_of_its_own_for_each_driver() {
        let settings = Settings {
            driver: DriverKind::Etcd,
            etcd_mode: crate::settings::ChosenMode::Named(EtcdMode::Mock),
            ..Settings::default()
        };
        assert!(settings.is_in_process());
        let repository: pac_core::RepositoryKey = "ns/app".parse().unwrap();
        let (one, other) = (connect(&settings).await, connect(&settings).await);
        let (one, other) = (one.unwrap(), other.unwrap());
        let limit = pac_core::Limit::new(1);
        one.set_limit(&repository, limit, None).await.unwrap();
        assert!(one.status(&repository).await.unwrap().exists);
        assert!(!other.status(&repository).await.unwrap().exists);
    }

    #[cfg(all(feature = "etcd", not(feature = "mock")))]
    #[tokio::test]
    async fn the_mock_can_be_left_out() {
        let settings = Settings {
            driver: DriverKind::Etcd,
            etcd_mode: crate::settings::ChosenMode::Named(EtcdMode::Mock),
            ..Settings::default()
        };
        let error = open_driver(&settings).await.map(drop).unwrap_err();
        assert!(error.to_string().contains("feature `mock`"), "{error}");
    }

    #[cfg(not(feature = "postgres"))]
    #[tokio::test]
    async fn postgres_can_be_left_out() {
        let error = refusal(DriverKind::Postgresql).await;
        assert!(error.contains("feature `postgres`"), "{error}");
    }

    #[cfg(feature = "postgres")]
    #[tokio::test]
    async fn settings_lead_to_the_server_that_they_name() {
        let mut settings = Settings {
            driver: DriverKind::Postgresql,
            ..Settings::default()
        };
        settings.postgres.hosts = vec![("127.0.0.1".to_owned(), 1)];
        let error = open_driver(&settings).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    }

    #[cfg(not(feature = "memory"))]
    #[tokio::test]
    async fn memory_can_be_left_out() {
        assert!(
            refusal(DriverKind::Memory)
                .await
                .contains("feature `memory`")
        );
    }
}
