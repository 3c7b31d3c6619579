//! Opens the driver that settings name.

use std::sync::Arc;

use pac_core::driver::Driver;
use pac_core::manager::ConcurrencyManager;
use pac_core::{Error, ErrorKind};

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
    let driver = open_driver(settings).await?;
    #[cfg(any(feature = "etcd", feature = "postgres"))]
    if settings.migrate_state {
        crate::legacy::bring_along(settings, &*driver).await?;
    }
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
#[allow(
    clippy::unused_async,
    reason = "drivers of stores behind a network connect here"
)]
pub async fn open_driver(settings: &Settings) -> Result<Arc<dyn Driver>, Error> {
    if !settings.enabled {
        return Err(disabled());
    }
    match settings.driver {
        #[cfg(feature = "memory")]
        DriverKind::Memory => Ok(Arc::new(pac_memory::MemoryDriver::new(
            settings.memory.clone(),
        ))),
        #[cfg(not(feature = "memory"))]
        DriverKind::Memory => Err(not_compiled_in(DriverKind::Memory, "memory")),
        #[cfg(not(feature = "etcd"))]
        DriverKind::Etcd => Err(not_compiled_in(DriverKind::Etcd, "etcd")),
        #[cfg(not(feature = "postgres"))]
        DriverKind::Postgresql => Err(not_compiled_in(DriverKind::Postgresql, "postgres")),
        #[cfg(feature = "etcd")]
        DriverKind::Etcd => Ok(Arc::new(
            pac_etcd::EtcdDriver::connect(&settings.etcd).await?,
        )),
        #[cfg(feature = "postgres")]
        DriverKind::Postgresql => Ok(Arc::new(
            pac_postgres::PostgresDriver::connect(settings.postgres.clone()).await?,
        )),
    }
}

/// Opens the driver that the settings name for reading: creates nothing in the store. `None` when
/// the store has nothing of this software and would have to be prepared first.
///
/// # Errors
/// Those of [`connect`], and `Incompatible` for a store of an older version.
pub async fn open_existing_driver(settings: &Settings) -> Result<Option<Arc<dyn Driver>>, Error> {
    #[cfg(feature = "postgres")]
    if settings.enabled && settings.driver == DriverKind::Postgresql {
        let options = settings.postgres.clone();
        let driver = pac_postgres::PostgresDriver::connect_existing(options).await?;
        return Ok(driver.map(|driver| Arc::new(driver) as Arc<dyn Driver>));
    }
    open_driver(settings).await.map(Some)
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
        DriverKind::Etcd => Ok(Some(Box::new(
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

#[cfg(not(all(feature = "memory", feature = "etcd", feature = "postgres")))]
fn not_compiled_in(driver: DriverKind, feature: &str) -> Error {
    Error::new(
        ErrorKind::Config,
        "open driver",
        format!(
            "the driver {driver} is not compiled in; enable the feature `{feature}` of the crate \
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
