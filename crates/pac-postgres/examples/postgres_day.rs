//! A day of cycles in ten minutes on a PostgreSQL server, with the sizes of tables, of their indexes
//! and of the database at ten points:
//!
//! ```sh
//! cargo run --release -p pac-postgres --example postgres_day -- 127.0.0.1 5432 postgres postgres [SECONDS]
//! ```
//!
//! The arguments are host, port, database and role, which is let in without a password. Finished
//! runs are kept for a tenth of the day, so that the sizes can be seen to level off. The schema
//! `pac_day` is dropped before and after.

#![allow(clippy::print_stdout, reason = "it is there to print")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use pac_conformance::day::{Day, Point, live};
use pac_core::ErrorKind;
use pac_core::driver::Retention;
use pac_postgres::{PostgresDriver, PostgresOptions, SslMode};
use tokio_postgres::NoTls;

const SCHEMA: &str = "pac_day";
const SIZES: &str = "SELECT \
    coalesce(sum(pg_table_size(c.oid)), 0)::bigint, \
    coalesce(sum(pg_indexes_size(c.oid)), 0)::bigint, \
    pg_database_size(current_database()) \
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
  WHERE n.nspname = 'pac_day' AND c.relkind = 'r'";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |what: &str| arguments.next().ok_or_else(|| format!("name the {what}"));
    let (host, port) = (next("host")?, next("port")?.parse::<u16>()?);
    let (database, role) = (next("database")?, next("role")?);
    let seconds = next("seconds").map_or(Ok(600), |text| text.parse())?;
    let length = Duration::from_secs(seconds);

    let config = format!("host={host} port={port} dbname={database} user={role}");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await?;
    let connection = tokio::spawn(connection);
    let drop = format!("DROP SCHEMA IF EXISTS {SCHEMA} CASCADE");
    client.batch_execute(&drop).await?;

    let mut options = PostgresOptions::default();
    options.hosts = vec![(host, port)];
    options.database = database;
    options.username = role;
    options.ssl_mode = SslMode::Disable;
    SCHEMA.clone_into(&mut options.schema);
    options.retention = Retention::new(length / 10, 1_000);
    let driver = Arc::new(PostgresDriver::connect(options).await?);
    println!(
        "{:>8} {:>12} {:>12} {:>14}",
        "runs", "tables, KiB", "indexes, KiB", "database, KiB"
    );
    let sizes = async || {
        let row = client.query_one(SIZES, &[]).await;
        let row = row.map_err(|error| {
            pac_core::Error::new(ErrorKind::Unavailable, "measure", error.to_string())
        })?;
        let size = |at: usize| row.get::<_, i64>(at).unsigned_abs();
        Ok(vec![
            ("tables", size(0)),
            ("indexes", size(1)),
            ("database", size(2)),
        ])
    };
    let tell = |point: &Point| {
        let kib = |at: usize| point.sizes.get(at).map_or(0, |(_, bytes)| bytes / 1024);
        println!(
            "{:>8} {:>12} {:>12} {:>14}",
            point.runs,
            kib(0),
            kib(1),
            kib(2)
        );
    };
    live(driver, Day::default().within(length), sizes, tell).await?;
    client.batch_execute(&drop).await?;
    connection.abort();
    Ok(())
}
