//! Reads the state of older systems from the stores that settings name.

#[cfg(any(feature = "etcd", feature = "postgres"))]
use pac_core::driver::Driver;
#[cfg(any(feature = "etcd", feature = "postgres"))]
use pac_core::migration::{Action, adopt_legacy};
use pac_core::migration::{ClusterFacts, LegacySource, LegacyState};
use pac_core::{Error, ErrorKind};

#[cfg(feature = "etcd")]
use crate::settings::EtcdMode;
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

/// Brings along the state of older versions that was found in the store of a driver.
///
/// # Errors
/// Those of the store, with how to do without this. What the user may not read is no error: it is
/// logged.
#[cfg(any(feature = "etcd", feature = "postgres"))]
pub(crate) async fn bring_along(
    found: Result<Vec<LegacyStore>, Error>,
    driver: &dyn Driver,
) -> Result<(), Error> {
    let result = match found {
        Ok(found) => adopt_all(driver, found).await,
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == ErrorKind::Unauthorised => {
            tracing::info!(
                %error,
                "could not look for the state of an older version: grant access to it, or set \
                 concurrency-migrate-state to false"
            );
            Ok(())
        }
        Err(error) => {
            let message = "the state of an older version could not be brought along: mend it, or \
                           set concurrency-migrate-state to false";
            Err(Error::new(error.kind(), "connect", message).caused_by(error))
        }
        Ok(()) => Ok(()),
    }
}

/// What older versions have left in the etcd that settings name, and nobody has brought along yet.
#[cfg(feature = "etcd")]
pub(crate) async fn left_on_etcd(settings: &Settings) -> Result<Vec<LegacyStore>, Error> {
    // A mock is new, and has no older state.
    if settings.etcd_mode.mode() != EtcdMode::Etcd {
        return Ok(Vec::new());
    }
    let found = pac_etcd::LegacyEtcd::find(&settings.etcd).await?;
    let stores = found.into_iter().map(Kind::Etcd).map(LegacyStore);
    Ok(stores.collect())
}

/// The same on PostgreSQL.
#[cfg(feature = "postgres")]
pub(crate) async fn left_on_postgresql(
    driver: &pac_postgres::PostgresDriver,
) -> Result<Vec<LegacyStore>, Error> {
    let found = pac_postgres::LegacyPostgres::find(driver).await?;
    let stores = found.into_iter().map(Kind::Postgres).map(LegacyStore);
    Ok(stores.collect())
}

#[cfg(any(feature = "etcd", feature = "postgres"))]
async fn adopt_all(driver: &dyn Driver, found: Vec<LegacyStore>) -> Result<(), Error> {
    for store in found {
        let source = store.state().source;
        let report = adopt_legacy(driver, store.state()).await?;
        let count = |wanted| {
            let runs = report.repositories.iter().flat_map(|one| &one.runs);
            runs.filter(|run| run.action == wanted).count()
        };
        tracing::info!(
            layout = %source,
            repositories = report.repositories.len(),
            adopted = count(Action::Adopt),
            queued = count(Action::Enqueue),
            "brought along the state of an older version; `pac migrate --from {source} --remove` \
             removes it there"
        );
        for left in report.left_out.iter().filter(|left| left.is_open) {
            tracing::warn!(
                layout = %source, what = left.what, why = left.why,
                "not brought along; see `pac migrate --from {source} --dry-run`"
            );
        }
        let problems = report.repositories.iter().flat_map(|one| &one.problems);
        let mut is_verified = true;
        for problem in problems {
            is_verified = false;
            tracing::warn!(layout = %source, problem, "not brought along; trying again at the next start");
        }
        if is_verified {
            store.note_brought_along().await?;
        }
    }
    Ok(())
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

    /// Notes beside the new state that this layout was brought along: a program that connects does
    /// not do it again. Dropped in flight, it is done or not done.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn note_brought_along(&self) -> Result<(), Error> {
        match self.0 {
            #[cfg(feature = "etcd")]
            Kind::Etcd(ref read) => read.note_brought_along().await,
            #[cfg(feature = "postgres")]
            Kind::Postgres(ref read) => read.note_brought_along().await,
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
