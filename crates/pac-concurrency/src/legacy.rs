//! Reads the state of older systems from the stores that settings name.

use pac_core::migration::{ClusterFacts, LegacySource, LegacyState};
use pac_core::{Error, ErrorKind};

use crate::settings::Settings;

/// What was read of an older layout in a store; see [`read_legacy`].
#[derive(Debug)]
pub struct LegacyStore(Kind);

#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "there is one of them in a process, for a moment"
)]
enum Kind {
    #[cfg(feature = "etcd")]
    Etcd(pac_etcd::LegacyEtcd),
    #[cfg(feature = "postgres")]
    Postgres(pac_postgres::LegacyPostgres),
}

/// Reads an older layout, with the address and credentials that the settings have for its store,
/// whichever driver they name. `schema` is where its tables are on PostgreSQL, usually `public`.
/// Writes nothing, so the future may be dropped.
///
/// # Errors
/// `InvalidInput` for annotations, which no store has; `Config` if this build lacks the store or
/// the settings cannot be used; else the reason why the store could not be read.
#[allow(
    clippy::unused_async,
    unused_variables,
    reason = "stores behind a network are read here"
)]
pub async fn read_legacy(
    settings: &Settings,
    source: LegacySource,
    schema: &str,
    facts: &ClusterFacts,
) -> Result<LegacyStore, Error> {
    match source {
        #[cfg(feature = "etcd")]
        LegacySource::EtcdV1 | LegacySource::EtcdV2 => {
            let read = pac_etcd::LegacyEtcd::read(&settings.etcd, source, facts);
            read.await.map(Kind::Etcd).map(LegacyStore)
        }
        #[cfg(not(feature = "etcd"))]
        LegacySource::EtcdV1 | LegacySource::EtcdV2 => Err(not_compiled_in(source, "etcd")),
        #[cfg(feature = "postgres")]
        LegacySource::Postgresql => {
            let read = pac_postgres::LegacyPostgres::read(&settings.postgres, schema, facts);
            read.await.map(Kind::Postgres).map(LegacyStore)
        }
        #[cfg(not(feature = "postgres"))]
        LegacySource::Postgresql => Err(not_compiled_in(source, "postgres")),
        other => {
            let message = format!("{other} are in no store: they are read from manifests");
            Err(Error::new(ErrorKind::InvalidInput, "migrate", message))
        }
    }
}

impl LegacyStore {
    /// What the layout says.
    #[must_use]
    pub fn state(&self) -> &LegacyState {
        match self.0 {
            #[cfg(feature = "etcd")]
            Kind::Etcd(ref read) => &read.state,
            #[cfg(feature = "postgres")]
            Kind::Postgres(ref read) => &read.state,
        }
    }

    /// Deletes what was read, and returns how many keys or rows were left because they changed
    /// meanwhile. It may be interrupted at any point, and called again.
    ///
    /// # Errors
    /// Those of the store; what was deleted by then is gone.
    pub async fn remove(&self) -> Result<usize, Error> {
        match self.0 {
            #[cfg(feature = "etcd")]
            Kind::Etcd(ref read) => read.remove().await,
            #[cfg(feature = "postgres")]
            Kind::Postgres(ref read) => read.remove().await,
        }
    }
}

#[cfg(not(all(feature = "etcd", feature = "postgres")))]
fn not_compiled_in(source: LegacySource, feature: &str) -> Error {
    let message = format!(
        "the store of {source} is not compiled in; enable the feature `{feature}` of the crate \
         pac-concurrency"
    );
    Error::new(ErrorKind::Config, "migrate", message)
}
