//! Measures `pac controller` on a large cluster: how long until it is ready, how much memory it
//! takes, and what it asks of the API server once nothing happens any more.
//!
//! ```sh
//! cargo build --release -p pac-cli --features kubernetes
//! cargo run --release -p pac-cli --features kubernetes --example kubernetes_scale
//! ```
//!
//! The API server is one for tests, in this process; the controller is the built binary, in one of
//! its own, with a store in memory. The table that it prints is the one of `docs/kubernetes.md`. It
//! fails where one of the limits that the table names is exceeded.

mod cluster;
mod process;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use pac_kubernetes_mock::{ApiServer, Requests};
use tokio::time::sleep;

use cluster::{BURST, Size};
use process::Controller;

/// What the controller may take.
const READY_WITHIN: Duration = Duration::from_secs(30);
const RESIDENT_MIB: u64 = 200;

/// How long nothing happens while requests are counted.
const STEADY: Duration = Duration::from_secs(60);

type Failed = Box<dyn Error>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Failed> {
    let size = Size::default();
    let server = cluster::start(&size).await?;
    let begun = Instant::now();
    let mut controller = Controller::start(server.url())?;
    controller.until_ready().await?;
    let ready = begun.elapsed();
    let at_ready = controller.memory()?;
    until_quiet(&server).await;
    let until_then = by_kind(&server);
    server.forget_requests();
    sleep(STEADY).await;
    let steady = by_kind(&server);
    let burst = cluster::burst(&server).await?;
    until_quiet(&server).await;
    let at_the_end = controller.memory()?;

    let mut table = format!("{size}\n\n| what | measured | at most |\n| --- | --- | --- |\n");
    let mut row = |what: &str, measured: String, most: &str| {
        let _ = writeln!(table, "| {what} | {measured} | {most} |");
    };
    let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
    row("until it is ready", seconds(ready), &seconds(READY_WITHIN));
    let most = format!("{RESIDENT_MIB} MiB");
    row(
        "resident when it is ready, and the peak until then",
        format!("{} MiB, {} MiB", at_ready.now, at_ready.peak),
        &most,
    );
    row(
        "resident at the end, and the peak",
        format!("{} MiB, {} MiB", at_the_end.now, at_the_end.peak),
        &most,
    );
    row(
        "requests from its start until it is quiet",
        told(&until_then),
        "",
    );
    row(
        "requests in a minute in which nothing happens",
        told(&steady),
        "none about a run",
    );
    row(
        &format!("a burst of {BURST} runs of one event, until the first ones run"),
        seconds(burst),
        "",
    );
    std::io::stdout().write_all(table.as_bytes())?;
    let is_about_runs =
        |(verb, resource): &&(String, String)| resource == "pipelineruns" && verb != "watch";
    let exceeded = ready > READY_WITHIN
        || at_the_end.peak > RESIDENT_MIB
        || steady.keys().any(|kind| is_about_runs(&kind));
    controller.end()?;
    if exceeded {
        return Err("a limit is exceeded".into());
    }
    Ok(())
}

/// Waits until nothing was asked about a run for a while.
async fn until_quiet(server: &ApiServer) {
    let quiet = Duration::from_secs(5);
    let asked = || server.count(&Requests::any().resource("pipelineruns"));
    let (mut before, mut since) = (asked(), Instant::now());
    while since.elapsed() < quiet {
        sleep(Duration::from_millis(200)).await;
        let now = asked();
        if now != before {
            (before, since) = (now, Instant::now());
        }
    }
}

/// How many requests of each verb and resource there were.
fn by_kind(server: &ApiServer) -> BTreeMap<(String, String), usize> {
    let mut kinds = BTreeMap::new();
    for request in server.requests(&Requests::any()) {
        let kind = (request.verb.to_string(), request.resource);
        *kinds.entry(kind).or_default() += 1;
    }
    kinds
}

fn told(kinds: &BTreeMap<(String, String), usize>) -> String {
    let told = kinds
        .iter()
        .map(|((verb, resource), count)| format!("{count} {verb} {resource}"));
    let told: Vec<_> = told.collect();
    if told.is_empty() {
        "none".to_owned()
    } else {
        told.join(", ")
    }
}
