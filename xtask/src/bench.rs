//! `cargo xtask bench`: starts the servers, measures every driver with `pac bench`, and writes
//! the tables of `docs/performance.md`.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::run::CommandLine;
use crate::servers::Servers;
use crate::tools;

const REPORT: &str = "docs/performance.md";
/// This task writes the text between these lines.
const BEGIN: &str = "<!-- measured: begin -->";
const END: &str = "<!-- measured: end -->";

/// Options of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Fewer and shorter rounds, and docs/performance.md stays as it is
    #[arg(long)]
    quick: bool,
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    tools::ensure(root, &tools::PROTOC)?;
    let servers = Servers::start(root, &["etcd", "postgres"])?;
    CommandLine::new("cargo build --release --locked --package pac-cli --features etcd")
        .run(root)?;
    let mut tables = format!("{}\n", circumstances(root)?);
    for arguments in drivers(&servers) {
        let measured = measure(root, &arguments, options.quick)?;
        tables.push_str(&table(&measured));
    }
    if options.quick {
        println!("{tables}");
        return Ok(());
    }
    let path = root.join(REPORT);
    let report = fs::read_to_string(&path).with_context(|| format!("cannot read {REPORT}"))?;
    fs::write(&path, with_tables(&report, &tables)?)?;
    println!("wrote {REPORT}");
    Ok(())
}

/// The arguments that select the driver, for each store that has a server; the newest server of
/// each.
fn drivers(servers: &Servers) -> Vec<Vec<String>> {
    let variable = |names: [&str; 2]| {
        let value = |name: &str| servers.env().iter().find(|(known, _)| known == name);
        names.into_iter().find_map(value).map(|(_, value)| value)
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let mut drivers = vec![words(&["memory"])];
    if let Some(endpoint) = variable(["PAC_TEST_ETCD_NEWEST", "PAC_TEST_ETCD"]) {
        let endpoints = format!("etcd-endpoints={endpoint}");
        drivers.push(words(&["etcd", "--set", &endpoints]));
    }
    if let Some(port) = variable(["PAC_TEST_POSTGRES", "PAC_TEST_POSTGRES_NEWEST"]) {
        let port = format!("postgresql-port={port}");
        drivers.push(words(&[
            "postgresql",
            "--set",
            "postgresql-host=127.0.0.1",
            "--set",
            &port,
            "--set",
            "postgresql-username=postgres",
            "--set",
            "postgresql-database=postgres",
            "--set",
            "postgresql-ssl-mode=disable",
        ]));
    }
    drivers
}

fn measure(root: &Path, arguments: &[String], quick: bool) -> Result<Vec<Value>> {
    let mut line = CommandLine::new("target/release/pac bench --output json --driver");
    for argument in arguments {
        line = line.arg(argument);
    }
    if quick {
        line = line.arg("--quick");
    }
    let mut measured = Vec::new();
    let success = line.run_watched(root, |line| measured.push(line.to_owned()))?;
    ensure!(success, "`{line}` failed, or a limit was exceeded");
    let parsed = measured.iter().map(|line| serde_json::from_str(line));
    parsed.collect::<Result<_, _>>().context("no JSON")
}

/// The machine, as far as it affects the figures, the compiler and the date.
fn circumstances(root: &Path) -> Result<String> {
    let cores = available_parallelism()?;
    let rustc = CommandLine::new("rustc --version").output(root)?;
    let day = CommandLine::new("date --utc +%F").output(root)?;
    Ok(format!(
        "{}, {cores} cores shared with others, {}, measured on {}.\n",
        std::env::consts::ARCH,
        rustc.split(" (").next().unwrap_or_default(),
        day.trim()
    ))
}

fn table(measured: &[Value]) -> String {
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
    let mut table = String::new();
    let Some(first) = measured.first() else {
        return table;
    };
    let what = match first["server"].as_str() {
        Some(server) => server.to_owned(),
        None => text(first, "driver"),
    };
    let _ = writeln!(
        table,
        "\n### {what}\n\n\
         | measurement | value | against | ratio | to reach | reached | p50 / p99 µs | spread |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |"
    );
    for line in measured {
        let number = |field: &str| line[field].as_f64().map(figure).unwrap_or_default();
        let times = match (line["p50_us"].as_f64(), line["p99_us"].as_f64()) {
            (Some(p50), Some(p99)) => format!("{} / {}", figure(p50), figure(p99)),
            _ => String::new(),
        };
        let reached = match line["reached"].as_bool() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        let _ = writeln!(
            table,
            "| `{}` | {} {} | {} | {} | {} | {reached} | {times} | {} |",
            text(line, "name"),
            number("value"),
            text(line, "unit"),
            number("raw"),
            number("ratio"),
            number("goal"),
            number("spread"),
        );
    }
    table
}

/// Formats a value with three significant digits.
fn figure(value: f64) -> String {
    if value >= 1e6 {
        format!("{:.2} million", value / 1e6)
    } else if value >= 1e3 {
        format!("{},{:03}", value as u64 / 1_000, value as u64 % 1_000)
    } else if value >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

fn with_tables(report: &str, tables: &str) -> Result<String> {
    let parts = report
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) =
        parts.with_context(|| format!("{REPORT} has no lines `{BEGIN}` and `{END}`"))?;
    Ok(format!("{before}{BEGIN}\n\n{tables}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_tables_replace_those_before_and_nothing_else() {
        let report = format!("# x\n{BEGIN}\nold\n{END}\nend\n");
        let written = with_tables(&report, "new").unwrap();
        assert_eq!(written, format!("# x\n{BEGIN}\n\nnew\n{END}\nend\n"));
        assert_eq!(with_tables(&written, "new").unwrap(), written);
        assert!(with_tables("# x\n", "new").is_err());
    }

    #[test]
    fn a_row_says_what_was_reached() {
        let line = json!({
            "driver": "etcd", "server": "etcd 3.5.1", "name": "hot", "value": 4312.4,
            "unit": "cycles/s", "raw": 878.0, "ratio": 4.91, "goal": 4.0, "reached": true,
            "p50_us": 5296.0, "p99_us": null, "rounds": 5, "spread": 0.25, "violations": null,
        });
        let table = table(&[line]);
        let row = "| `hot` | 4,312 cycles/s | 878 | 4.91 | 4.00 | yes |  | 0.25 |";
        assert!(
            table.contains("### etcd 3.5.1") && table.ends_with(&format!("{row}\n")),
            "{table}"
        );
    }
}
