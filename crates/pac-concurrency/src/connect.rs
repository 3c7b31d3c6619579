//! From settings to a driver.

use std::sync::Arc;

use pac_core::driver::Driver;
use pac_core::manager::ConcurrencyManager;
use pac_core::{Error, ErrorKind};

use crate::settings::{DriverKind, Settings};

/// Opens the driver that the settings name, and a manager on it.
///
/// # Errors
/// `Config` when limits are not [enabled](Settings::enabled); for a driver that this build does
/// not have, naming the feature to enable; and for settings that contradict each other. Else why
/// the store could not be reached.
pub async fn connect(settings: &Settings) -> Result<ConcurrencyManager, Error> {
    let driver = open_driver(settings).await?;
    let manager = ConcurrencyManager::open(driver, settings.manager).await?;
    tracing::info!(
        "Initialized concurrency system with driver: {}",
        settings.driver
    );
    Ok(manager)
}

/// As [`connect`], for a program that also works without limits: `None` when the settings say
/// so. Runs are then to be started without asking anybody.
///
/// # Errors
/// As [`connect`], but for limits that are not enabled.
pub async fn connect_if_enabled(settings: &Settings) -> Result<Option<ConcurrencyManager>, Error> {
    if settings.enabled {
        connect(settings).await.map(Some)
    } else {
        Ok(None)
    }
}

/// Opens the driver that the settings name: for more than one manager on the same store.
///
/// # Errors
/// As [`connect`].
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
        DriverKind::Etcd => Err(not_there_yet(DriverKind::Etcd)),
        #[cfg(feature = "postgres")]
        DriverKind::Postgresql => Err(not_there_yet(DriverKind::Postgresql)),
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

#[cfg(any(feature = "etcd", feature = "postgres"))]
fn not_there_yet(driver: DriverKind) -> Error {
    Error::new(
        ErrorKind::Config,
        "open driver",
        format!(
            "version {} has no driver for {driver} yet; use the driver memory",
            env!("CARGO_PKG_VERSION")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refusal(driver: DriverKind) -> String {
        let settings = Settings {
            driver,
            ..Settings::default()
        };
        let error = open_driver(&settings).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    }

    #[tokio::test]
    async fn a_driver_that_is_not_there_names_the_cure() {
        let etcd = refusal(DriverKind::Etcd).await;
        let postgresql = refusal(DriverKind::Postgresql).await;
        let expect = |with: bool, feature: &str| {
            if with {
                "no driver for".to_owned()
            } else {
                format!("feature `{feature}`")
            }
        };
        assert!(
            etcd.contains(&expect(cfg!(feature = "etcd"), "etcd")),
            "{etcd}"
        );
        assert!(
            postgresql.contains(&expect(cfg!(feature = "postgres"), "postgres")),
            "{postgresql}"
        );
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
