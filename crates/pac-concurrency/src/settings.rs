//! Settings: the driver and its options, given in code or as operators write them.
//!
//! In code, [`Settings`] suffices. A [`SettingsLoader`] reads what operators write (ConfigMaps,
//! Secrets, environment variables, files), and remembers the source of each value.

#[cfg(any(feature = "etcd", feature = "postgres"))]
mod convert;
mod directory;
mod duration;
mod environment;
mod found;
#[cfg(test)]
mod fuzz;
mod key;
mod kubernetes;
mod loader;
mod parse;
mod problem;
mod reader;
mod resolve;
mod typo;
mod url;
mod values;
mod yaml;

use std::fmt;
use std::str::FromStr;

use pac_core::manager::ManagerOptions;
use pac_core::{Error, ErrorKind};

pub use key::Key;
pub use loader::SettingsLoader;
pub use pac_core::password::{Password, Secret};
pub use problem::{Place, Problem, SettingsError, Source};
pub use values::{
    Authentication, EtcdMode, EtcdValues, Host, Migrate, PostgresqlValues, SslMode, Values,
};

/// The settings for [`connect`](crate::connect).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Whether limits are enforced. Default: true. When false, no connection is opened; see
    /// [`connect_if_enabled`](crate::connect_if_enabled).
    pub enabled: bool,
    /// The store of the state. Default: memory.
    pub driver: DriverKind,
    /// The options of the manager.
    pub manager: ManagerOptions,
    /// Whether [`connect`](crate::connect) brings along the state of an older version that it finds
    /// in the store. Default: true.
    pub migrate_state: bool,
    /// Settings of the memory driver.
    #[cfg(feature = "memory")]
    pub memory: pac_memory::MemoryOptions,
    /// Settings of the PostgreSQL driver.
    #[cfg(feature = "postgres")]
    pub postgres: pac_postgres::PostgresOptions,
    /// Settings of the etcd driver.
    #[cfg(feature = "etcd")]
    pub etcd: pac_etcd::EtcdOptions,
    /// The store behind the etcd driver, and how it was chosen. Default: a cluster.
    #[cfg(feature = "etcd")]
    pub etcd_mode: ChosenMode,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            driver: DriverKind::default(),
            manager: ManagerOptions::default(),
            migrate_state: true,
            #[cfg(feature = "memory")]
            memory: pac_memory::MemoryOptions::default(),
            #[cfg(feature = "postgres")]
            postgres: pac_postgres::PostgresOptions::default(),
            #[cfg(feature = "etcd")]
            etcd: pac_etcd::EtcdOptions::default(),
            #[cfg(feature = "etcd")]
            etcd_mode: ChosenMode::Named(EtcdMode::Etcd),
        }
    }
}

impl Settings {
    /// Whether the state is in the process that opens the driver, where no other process sees it:
    /// the driver is memory, or etcd on a mock.
    #[must_use]
    pub fn is_in_process(&self) -> bool {
        match self.driver {
            DriverKind::Memory => true,
            #[cfg(feature = "etcd")]
            DriverKind::Etcd => self.etcd_mode.mode() == EtcdMode::Mock,
            _ => false,
        }
    }
}

impl From<&Values> for Settings {
    fn from(values: &Values) -> Self {
        Self {
            enabled: values.enabled,
            driver: values.driver,
            manager: manager_options(values),
            migrate_state: values.migrate_state,
            #[cfg(feature = "memory")]
            memory: pac_memory::MemoryOptions::default(),
            #[cfg(feature = "postgres")]
            postgres: pac_postgres::PostgresOptions::from(&values.postgresql),
            #[cfg(feature = "etcd")]
            etcd: pac_etcd::EtcdOptions::from(&values.etcd),
            #[cfg(feature = "etcd")]
            etcd_mode: if values.etcd.is_mode_named {
                ChosenMode::Named(values.etcd.mode)
            } else {
                ChosenMode::Detected(values.etcd.mode)
            },
        }
    }
}

fn manager_options(values: &Values) -> ManagerOptions {
    let mut options = ManagerOptions::default()
        .with_session_ttl(values.session_ttl)
        .with_lease_ttl(values.lease_ttl());
    options.identity = values.identity;
    options
}

/// The store behind the etcd driver, and how it was chosen.
#[cfg(feature = "etcd")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChosenMode {
    /// `etcd-mode` names it.
    Named(EtcdMode),
    /// `etcd-mode` is not set: a cluster where endpoints are, else the mock where it is compiled in.
    Detected(EtcdMode),
}

#[cfg(feature = "etcd")]
impl ChosenMode {
    /// The store.
    #[must_use]
    pub const fn mode(self) -> EtcdMode {
        match self {
            Self::Named(mode) | Self::Detected(mode) => mode,
        }
    }

    /// Why it is this one, for a log.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Named(_) => "etcd-mode is set",
            Self::Detected(EtcdMode::Etcd) => "etcd-mode is not set, and etcd-endpoints is",
            Self::Detected(EtcdMode::Mock) => {
                "neither etcd-mode nor etcd-endpoints is set, and the mock is compiled in"
            }
        }
    }
}

/// Settings that were loaded and are valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedSettings {
    values: Values,
    effective: Vec<EffectiveSetting>,
}

impl LoadedSettings {
    /// The settings for [`connect`](crate::connect). Code may change them further.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings::from(&self.values)
    }

    /// The typed values of all keys.
    #[must_use]
    pub fn values(&self) -> &Values {
        &self.values
    }

    /// The values in effect, each with its source, in the order of [`Key::all`]. Keys that no
    /// source sets and that have no default are left out.
    #[must_use]
    pub fn effective(&self) -> &[EffectiveSetting] {
        &self.effective
    }
}

/// A value in effect.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EffectiveSetting {
    /// The key.
    pub key: &'static Key,
    /// Its value as written, or a text in parentheses in its place.
    pub value: String,
    /// Whether `value` is the value itself.
    pub is_shown: bool,
    /// The source of the value.
    pub source: Source,
    /// Whether the value is used: those of drivers that are not selected are not.
    pub used: bool,
}

/// The stores for which drivers exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum DriverKind {
    /// The memory of this process.
    #[default]
    Memory,
    /// An etcd cluster.
    Etcd,
    /// A PostgreSQL database.
    Postgresql,
}
impl fmt::Display for DriverKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Etcd => "etcd",
            Self::Postgresql => "postgresql",
        })
    }
}

impl FromStr for DriverKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "memory" => Ok(Self::Memory),
            "etcd" => Ok(Self::Etcd),
            "postgresql" => Ok(Self::Postgresql),
            _ => Err(Error::new(
                ErrorKind::Config,
                "parse",
                format!("there is no driver {text:?}; choose etcd, postgresql or memory"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_go_by_their_names_in_the_settings() {
        for kind in [DriverKind::Memory, DriverKind::Etcd, DriverKind::Postgresql] {
            assert_eq!(kind.to_string().parse::<DriverKind>().unwrap(), kind);
        }
        let error = "postgres".parse::<DriverKind>().unwrap_err();
        assert!(
            error.to_string().contains("etcd, postgresql or memory"),
            "{error}"
        );
    }
}
