//! Which driver, and how.

use std::fmt;
use std::str::FromStr;

use pac_core::manager::ManagerOptions;
use pac_core::{Error, ErrorKind};

/// What [`connect`](crate::connect) needs to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where the state is kept. Default: memory.
    pub driver: DriverKind,
    /// How the manager behaves.
    pub manager: ManagerOptions,
    /// Settings of the memory driver.
    #[cfg(feature = "memory")]
    pub memory: pac_memory::MemoryOptions,
    /// Settings of the etcd driver.
    #[cfg(feature = "etcd")]
    pub etcd: pac_etcd::EtcdOptions,
    /// Settings of the PostgreSQL driver.
    #[cfg(feature = "postgres")]
    pub postgres: pac_postgres::PostgresOptions,
}

/// The stores that there are drivers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum DriverKind {
    /// This process.
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
