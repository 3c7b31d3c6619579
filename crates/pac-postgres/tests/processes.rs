//! Several processes on one database, one of which is killed; and a proxy that pools transactions
//! in between.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::env;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use pac_core::Limit;
use pac_core::driver::Driver;
use pac_core::manager::{Admission, ConcurrencyManager, Lease, ManagerOptions, Turn};
use pac_core::protocol::RunRequest;
use pac_core::state::RunOutcome;
use pac_postgres::PostgresDriver;
use support::own::{OwnServer, free_port, own};
use support::proxy::Proxy;
use support::{SYSTEM, durable, key, options, port, raw, unique, value, variable};
use tokio::time::{Instant, sleep, timeout};

const SCHEMA: &str = "PAC_TEST_WORKER_SCHEMA";
const CYCLES: usize = 25;

fn short() -> ManagerOptions {
    ManagerOptions::default().with_session_ttl(Duration::from_secs(2))
}

async fn turn(manager: &ConcurrencyManager, request: RunRequest) -> Lease {
    match manager.admit(&key("web"), request).await.unwrap() {
        Admission::Started(lease) => lease,
        Admission::Queued(waiter) => match waiter.await.unwrap() {
            Turn::Started(lease) => lease,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// What each worker process runs. Alone it proves that a slot is free again after each run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_has_the_slot_for_itself() {
    let mut options = options(port(SYSTEM));
    if let Ok(schema) = env::var(SCHEMA) {
        options.schema = schema;
    }
    let schema = options.schema.clone();
    let driver = PostgresDriver::connect(options).await.unwrap();
    let manager = ConcurrencyManager::open(Arc::new(driver), short())
        .await
        .unwrap();
    manager
        .set_limit(&key("web"), Limit::new(1), None)
        .await
        .unwrap();
    let client = raw(port(SYSTEM)).await;
    let table = format!(
        "CREATE TABLE IF NOT EXISTS {schema}.inside (one integer PRIMARY KEY, pid integer)"
    );
    // It may fail when two processes create the table at once; then the table is there.
    let _ = client.batch_execute(&table).await;
    let process = std::process::id();
    for n in 0..CYCLES {
        let name = format!("run-{process}-{n}");
        let request =
            RunRequest::ephemeral(format!("ns/{name}").parse().unwrap(), name.parse().unwrap());
        let lease = turn(&manager, request).await;
        // A second process inside would violate the primary key.
        let enter = format!("INSERT INTO {schema}.inside VALUES (1, {process})");
        client.batch_execute(&enter).await.unwrap();
        sleep(Duration::from_millis(2)).await;
        let leave = format!("DELETE FROM {schema}.inside WHERE pid = {process}");
        client.batch_execute(&leave).await.unwrap();
        manager.release(lease, RunOutcome::Completed).await.unwrap();
    }
    manager.close().await.unwrap();
}

fn worker(schema: &str) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["--exact", "processes::a_worker_has_the_slot_for_itself"])
        .env(SCHEMA, schema)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// (5, 33) The slot of a killed process is free within its TTL and 2 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_take_turns_and_a_killed_one_gives_way() {
    let options = options(port(SYSTEM));
    let schema = options.schema.clone();
    let driver = Arc::new(PostgresDriver::connect(options).await.unwrap());
    let mut workers = [worker(&schema), worker(&schema)];
    for worker in &mut workers {
        let ended = tokio::task::block_in_place(|| worker.wait().unwrap());
        assert!(ended.success(), "a worker failed; see its error above");
    }
    let client = raw(port(SYSTEM)).await;
    let ended = format!("SELECT count(*) FROM {schema}.history WHERE outcome = 0");
    assert_eq!(value::<i64>(&client, &ended).await, 2 * CYCLES as i64);
    let mut victim = worker(&schema);
    let inside = format!("SELECT count(*) FROM {schema}.inside");
    let deadline = Instant::now() + Duration::from_secs(20);
    while value::<i64>(&client, &inside).await == 0 {
        assert!(Instant::now() < deadline, "the third never had its turn");
    }
    let killed = Instant::now();
    victim.kill().unwrap();
    victim.wait().unwrap();
    let manager = ConcurrencyManager::open(driver, short()).await.unwrap();
    let lease = timeout(Duration::from_secs(10), turn(&manager, durable("next")))
        .await
        .unwrap();
    // It may have been killed between two runs; then nothing had to be waited for.
    assert!(
        killed.elapsed() < Duration::from_secs(4),
        "{:?}",
        killed.elapsed()
    );
    manager.release(lease, RunOutcome::Completed).await.unwrap();
}

/// The proxy sends each transaction over any of its own connections: nothing may depend on the
/// state of a connection, and LISTEN does not get through.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_pgbouncer_changes_are_polled_for() {
    // Of its own, because it counts what happens where nothing does.
    let server = OwnServer::start(SYSTEM, "", "");
    let directory = tempfile::tempdir().unwrap();
    own(directory.path());
    let listen = free_port();
    // Every client gets to be the superuser of the test server.
    let configuration = format!(
        "[databases]\npostgres = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\n\
         listen_addr = 127.0.0.1\nlisten_port = {listen}\nunix_socket_dir =\n\
         auth_type = any\npool_mode = transaction\ndefault_pool_size = 4\n",
        server.port
    );
    let file = directory.path().join("pgbouncer.ini");
    fs::write(&file, configuration).unwrap();
    own(&file);
    let words = variable("PAC_TEST_RUN_AS");
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command
        .args(words)
        .arg(variable("PAC_TEST_PGBOUNCER"))
        .arg(&file);
    let log = fs::File::create(directory.path().join("log")).unwrap();
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let proxy = Killed(command.spawn().unwrap());
    let mut options = options(listen);
    options.schema = unique("bounced");
    let deadline = Instant::now() + Duration::from_secs(20);
    let first = loop {
        match PostgresDriver::connect(options.clone()).await {
            Ok(driver) => break driver,
            Err(error) => {
                let log = || fs::read_to_string(directory.path().join("log")).unwrap();
                assert!(Instant::now() < deadline, "{error:?} {}", log());
            }
        }
        sleep(Duration::from_millis(200)).await;
    };
    let line = Proxy::to(listen).await;
    options.hosts[0].1 = line.port;
    let second = PostgresDriver::connect(options).await.unwrap();
    assert!(!first.is_notified() && !second.is_notified());
    let late = ManagerOptions::default().with_poll_interval(Duration::from_secs(600));
    let first: Arc<dyn Driver> = Arc::new(first);
    let mut managers = Vec::new();
    // Two managers share the first driver: a hint that one of them has got must still come to the
    // other.
    for driver in [Arc::clone(&first), Arc::new(second), first] {
        managers.push(ConcurrencyManager::open(driver, late).await.unwrap());
    }
    managers[0]
        .set_limit(&key("web"), Limit::new(1), None)
        .await
        .unwrap();
    let mut lease = turn(&managers[0], durable("run-0")).await;
    for n in 1..=10 {
        let admitted = managers[n % 3]
            .admit(&key("web"), durable(&format!("run-{n}")))
            .await;
        let Admission::Queued(waiter) = admitted.unwrap() else {
            panic!("the slot is taken");
        };
        managers[(n + 2) % 3]
            .release(lease, RunOutcome::Completed)
            .await
            .unwrap();
        let Turn::Started(next) = timeout(Duration::from_secs(10), waiter)
            .await
            .unwrap()
            .unwrap()
        else {
            panic!("nobody has cancelled it");
        };
        lease = next;
    }
    // Where nothing is committed, a look is one cheap question. Sessions are renewed every few
    // seconds, which is a commit.
    line.clear();
    sleep(Duration::from_secs(3)).await;
    let (looks, reads) = (
        line.requests_with("pg_current_snapshot"),
        line.requests_with("repository = ANY"),
    );
    assert!(looks >= 5, "{looks} looks");
    assert!(reads <= looks / 2, "{reads} reads in {looks} looks");
    drop(proxy);
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
