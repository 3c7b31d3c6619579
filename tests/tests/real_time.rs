//! All cases in real time against the memory driver, configured like a server: shows that a
//! driver of a server can pass them.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pac_concurrency::driver::{Driver, Placement, Retention};
use pac_concurrency::{MemoryDriver, MemoryOptions, RepositoryKey};
use pac_conformance::faults::{Faults, Ruin};
use pac_conformance::{Fixture, Harm, Time, Vandal};

pac_conformance::conformance!(
    crate::server,
    time = Real,
    except {
        s41_a_wrong_clock_changes_nothing: "nobody can set the clock of a server",
    }
);

async fn server(time: Time) -> Fixture {
    let retention = Retention::new(Duration::from_secs(10), usize::MAX);
    let memory: Arc<dyn Driver> = Arc::new(MemoryDriver::new(MemoryOptions {
        retention,
        ..MemoryOptions::default()
    }));
    let disk = Faults::none();
    disk.describe(|inner| {
        inner.with_placement(Placement::Remote {
            batches_in_flight: 1,
        })
    });
    Fixture::over(disk.over(&Faults::line().over(&memory)), time)
        .with_session_ttl(Duration::from_millis(1_500))
        .with_lease_ttl(Duration::from_secs(4))
        .with_scale(0.1)
        .with_vandal(Scratches(disk))
}

/// Ruins what all managers read, which has the same effect as ruining what is stored.
#[derive(Debug)]
struct Scratches(Arc<Faults>);

#[async_trait]
impl Vandal for Scratches {
    async fn damage(&self, repository: &RepositoryKey, harm: Harm) {
        let ruin = match harm {
            Harm::CorruptHead => Ruin::Unreadable,
            Harm::CorruptEntry => Ruin::TokenFromNowhere,
            Harm::NewerHead | Harm::NewerPolicy | Harm::NewerTerms => Ruin::Newer,
        };
        self.0.ruin(repository, ruin);
    }

    async fn mend(&self, repository: &RepositoryKey) {
        self.0.mend(repository);
    }
}
