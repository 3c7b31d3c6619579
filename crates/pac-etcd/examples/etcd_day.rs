//! A day of cycles in ten minutes on an etcd, with the size of its database, and of what is in use
//! of it, at ten points:
//!
//! ```sh
//! cargo run --release -p pac-etcd --example etcd_day -- 127.0.0.1:2379 [SECONDS]
//! ```
//!
//! Finished runs are kept for a tenth of the day. etcd keeps every old version of a key until it is
//! compacted: start it with `--auto-compaction-retention=1m`, or see the sizes grow.

#![allow(clippy::print_stdout, reason = "it is there to print")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use pac_conformance::day::{Day, Point, live};
use pac_core::ErrorKind;
use pac_core::driver::Retention;
use pac_etcd::{EtcdDriver, EtcdOptions};

const PREFIX: &str = "/pac-day/";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let endpoint = arguments.next().ok_or("name the endpoint")?;
    let seconds = arguments.next().map_or(Ok(600), |text| text.parse())?;
    let length = Duration::from_secs(seconds);

    let client = etcd_client::Client::connect([&endpoint], None).await?;
    let mut options = EtcdOptions::new([&endpoint]);
    PREFIX.clone_into(&mut options.prefix);
    options.retention = Retention::new(length / 10, 1_000);
    let driver = Arc::new(EtcdDriver::connect(&options).await?);
    println!(
        "{:>8} {:>14} {:>12}",
        "runs", "database, KiB", "in use, KiB"
    );
    let sizes = async || {
        let status = client.maintenance_client().status().await;
        let status = status.map_err(|error| {
            pac_core::Error::new(ErrorKind::Unavailable, "measure", error.to_string())
        })?;
        let (all, used) = (status.db_size(), status.raft_used_db_size());
        Ok(vec![
            ("database", all.unsigned_abs()),
            ("in use", used.unsigned_abs()),
        ])
    };
    let tell = |point: &Point| {
        let kib = |at: usize| point.sizes.get(at).map_or(0, |(_, bytes)| bytes / 1024);
        println!("{:>8} {:>14} {:>12}", point.runs, kib(0), kib(1));
    };
    live(driver, Day::default().within(length), sizes, tell).await?;
    let all = etcd_client::DeleteOptions::new().with_prefix();
    client.kv_client().delete(PREFIX, Some(all)).await?;
    Ok(())
}
