//! How fast the mock is, and how much memory it takes: `cargo run --release --example speed`.
//!
//! Everything runs on one thread, clients included.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "an example prints what it measures, and ends where it cannot"
)]

use std::time::Instant;

use etcd_client::{Client, WatchOptions};
use pac_etcd_mock::MockEtcd;
use tokio::task::JoinSet;

const PUTS: usize = 100_000;
const MANY_PUTS: usize = 1_000_000;
const WATCHERS: usize = 10_000;
const REVISIONS_KEPT: u32 = 10_000;
const KEYS: usize = 1_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        puts().await;
        watchers().await;
        memory().await;
    });
}

async fn puts() {
    let etcd = MockEtcd::builder().listen(([127, 0, 0, 1], 0).into());
    let etcd = etcd.start().await.unwrap();
    let direct = Client::from_channel(etcd.direct_channel(), None).await;
    report("without a connection, one task", 1, direct.unwrap()).await;
    let in_memory = etcd.client().await.unwrap();
    report("connection in memory, 64 tasks", 64, in_memory).await;
    let tcp = Client::connect([etcd.endpoint()], None).await.unwrap();
    report("TCP, 64 tasks", 64, tcp).await;
}

async fn report(way: &str, tasks: usize, client: Client) {
    let begun = Instant::now();
    put_many(tasks, PUTS, &client).await;
    let rate = PUTS as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:>9.0} puts/s: {way}");
}

async fn put_many(tasks: usize, puts: usize, client: &Client) {
    let mut running = JoinSet::new();
    for task in 0..tasks {
        let mut kv = client.kv_client();
        running.spawn(async move {
            for n in (task..puts).step_by(tasks) {
                let key = format!("key-{:06}", n % KEYS);
                kv.put(key, "a value of some size", None).await.unwrap();
            }
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
}

async fn watchers() {
    let etcd = MockEtcd::builder().start().await.unwrap();
    let client = Client::from_channel(etcd.direct_channel(), None)
        .await
        .unwrap();
    let mut running = JoinSet::new();
    let begun = Instant::now();
    for n in 0..WATCHERS {
        let mut watch = client.watch_client();
        let prefix = format!("watched-{n:05}/");
        let options = WatchOptions::new().with_prefix();
        let mut stream = watch.watch(prefix, Some(options)).await.unwrap();
        running.spawn(async move {
            let mut events = 0;
            while events == 0 {
                events += stream.message().await.unwrap().unwrap().events().len();
            }
        });
    }
    println!(
        "{:>9.2?} to create {} watches",
        begun.elapsed(),
        etcd.watches()
    );
    let begun = Instant::now();
    put_many(1, PUTS, &client).await;
    let rate = PUTS as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:>9.0} puts/s beside them, none of them concerned");
    let begun = Instant::now();
    let mut kv = client.kv_client();
    for n in 0..WATCHERS {
        kv.put(format!("watched-{n:05}/key"), "value", None)
            .await
            .unwrap();
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    println!("{:>9.2?} until each has its event", begun.elapsed());
}

async fn memory() {
    let etcd = MockEtcd::builder().auto_compaction(REVISIONS_KEPT);
    let etcd = etcd.start().await.unwrap();
    let client = Client::from_channel(etcd.direct_channel(), None)
        .await
        .unwrap();
    for _ in 0..5 {
        put_many(1, MANY_PUTS / 5, &client).await;
        println!(
            "{:>9} KiB resident, {} KiB of them keys and values",
            resident_kib(),
            etcd.size() / 1024
        );
    }
}

/// The memory of this process, where the system tells it.
fn resident_kib() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.unwrap_or("unknown").to_owned()
}
