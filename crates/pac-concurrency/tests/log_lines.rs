//! The log lines that operators search for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pac_concurrency::{
    Admission, ConcurrencyManager, Limit, ManagerOptions, RunOutcome, RunRequest, SessionIdentity,
    Settings, SettingsLoader, Turn,
};
use tracing_subscriber::fmt::MakeWriter;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Log {
    /// The lines logged since the last call, without time and module.
    fn take(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        let lines = text.lines().map(|line| line.trim().to_owned());
        lines.collect()
    }
}

#[tokio::test]
async fn starting_queueing_and_waking_are_logged_word_for_word() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let loaded = SettingsLoader::new()
        .set("concurrency-driver", "memory")
        .load()
        .unwrap();
    let manager = pac_concurrency::connect(&loaded.settings()).await.unwrap();
    let lines = log.take();
    let [opened, initialized] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    let identity = SessionIdentity::of_this_process();
    let said = format!("INFO opened a session session=1 identity={identity} version=\"");
    assert!(opened.starts_with(&said), "{opened}");
    assert_eq!(
        initialized,
        "INFO Initialized concurrency system with driver: memory"
    );

    let repository = "namespace/repo".parse().unwrap();
    manager
        .set_limit(&repository, Limit::new(1), None)
        .await
        .unwrap();
    let request = |run: &str| RunRequest::durable(run.parse().unwrap(), "uid".parse().unwrap());
    let first = manager
        .admit(&repository, request("namespace/pipeline-run-1"))
        .await
        .unwrap();
    let Admission::Started(lease) = first else {
        panic!("{first:?}");
    };
    assert_eq!(
        log.take(),
        ["INFO acquired concurrency slot for namespace/pipeline-run-1"]
    );

    let second = manager
        .admit(&repository, request("namespace/pipeline-run-2"))
        .await
        .unwrap();
    let Admission::Queued(waiter) = second else {
        panic!("{second:?}");
    };
    assert_eq!(
        log.take(),
        ["INFO concurrency limit reached for repository namespace/repo"]
    );

    // Admitting a started run again logs nothing.
    let again = manager
        .admit(&repository, request("namespace/pipeline-run-1"))
        .await
        .unwrap();
    assert!(matches!(again, Admission::Started(_)));
    assert_eq!(log.take(), [""; 0]);

    manager.release(lease, RunOutcome::Completed).await.unwrap();
    assert!(matches!(waiter.await.unwrap(), Turn::Started(_)));
    assert_eq!(
        log.take(),
        ["INFO acquired concurrency slot for namespace/pipeline-run-2"]
    );

    let third = manager
        .admit(&repository, request("namespace/pipeline-run-3"))
        .await
        .unwrap();
    let mut grants = manager.grants().unwrap();
    let Admission::Queued(waiter) = third else {
        panic!("{third:?}");
    };
    waiter.detach();
    log.take();
    manager
        .cancel(
            &repository,
            &"namespace/pipeline-run-2".parse().unwrap(),
            None,
        )
        .await
        .unwrap();
    assert!(grants.next().await.is_some());
    assert_eq!(
        log.take(),
        ["INFO acquired concurrency slot for namespace/pipeline-run-3"]
    );
}

/// An orderly close was logged as a warning that the session is lost, and all leases with it.
#[tokio::test]
async fn an_orderly_end_is_no_warning() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .with_max_level(tracing::Level::WARN)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let loaded = SettingsLoader::new()
        .set("concurrency-driver", "memory")
        .load()
        .unwrap();
    let manager = pac_concurrency::connect(&loaded.settings()).await.unwrap();
    let repository = "namespace/repo".parse().unwrap();
    let limit = Limit::new(1);
    manager.set_limit(&repository, limit, None).await.unwrap();
    let request = |run: &str| RunRequest::durable(run.parse().unwrap(), "uid".parse().unwrap());
    let runs = request("namespace/pipeline-run-1");
    let runs = manager.admit(&repository, runs).await.unwrap();
    let waits = request("namespace/pipeline-run-2");
    let waits = manager.admit(&repository, waits).await.unwrap();
    log.take();

    manager.close().await.unwrap();
    let Admission::Queued(waiter) = waits else {
        panic!("{waits:?}");
    };
    assert!(waiter.await.is_err());
    drop(runs);
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(manager);
    assert_eq!(log.take(), [""; 0]);
}

#[tokio::test]
async fn the_death_of_a_session_is_logged_with_who_it_was() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .without_time()
        .with_target(false)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let driver = pac_concurrency::open_driver(&Settings::default()).await;
    let driver = driver.unwrap();
    let usual = ManagerOptions::default().with_sweep_interval(Duration::from_millis(50));
    let batch = SessionIdentity::named("night-batch").unwrap();
    let short = usual
        .with_session_ttl(Duration::from_millis(200))
        .with_identity(batch);
    let open = |options| ConcurrencyManager::open(Arc::clone(&driver), options);
    let (doomed, other) = (open(short).await.unwrap(), open(usual).await.unwrap());
    let session = doomed.session();
    let known = other.sessions(&[session, other.session()]).await.unwrap();
    let since = known[&session].opened_at.unwrap();
    assert_eq!((known.len(), known[&session].identity), (2, batch));
    let repository = "namespace/repo".parse().unwrap();
    let run = RunRequest::durable("namespace/run".parse().unwrap(), "uid".parse().unwrap());
    drop(doomed.admit(&repository, run).await.unwrap());
    drop(doomed);

    let expected =
        format!("INFO a session is dead session={session} identity=night-batch since={since}");
    let told = async {
        while !log.take().contains(&expected) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told)
        .await
        .unwrap();
}
