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
    let (peers, rows): (Vec<_>, Vec<_>) =
        measured.iter().partition(|line| line["peer"].is_object());
    for line in rows {
        let reached = match line["reached"].as_bool() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        let goal = match line["goal_of"].as_str() {
            Some("value") => format!("{} {}", number(line, "goal"), text(line, "unit")),
            _ => number(line, "goal"),
        };
        let _ = writeln!(
            table,
            "| `{}` | {} {} | {} | {} | {goal} | {reached} | {} | {} |",
            text(line, "name"),
            number(line, "value"),
            text(line, "unit"),
            number(line, "raw"),
            number(line, "ratio"),
            times(line),
            number(line, "spread"),
        );
    }
    if !peers.is_empty() {
        table.push_str(&table_of_peers(&peers));
    }
    table
}

/// The limits that were kept in several ways, side by side.
fn table_of_peers(peers: &[&Value]) -> String {
    let mut table = "\n| limit | kept by | cycles/s | ratio to the fastest other | overtaken by | \
                     to wake p50 / p99 µs | next after kill -9 |\n\
                     | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for line in peers {
        let kept = &line["peer"];
        let exceeded = match line["violations"].as_u64() {
            None | Some(0) => String::new(),
            Some(times) => format!(" (limit exceeded {times} times)"),
        };
        let next = match (kept["after_kill_s"].as_f64(), kept["leaked"].as_bool()) {
            (Some(seconds), _) => format!("{seconds:.2} s"),
            (None, Some(true)) => "**never**".to_owned(),
            (None, _) => String::new(),
        };
        let _ = writeln!(
            table,
            "| {} | {}{exceeded} | {} | {} | {} | {} | {next} |",
            kept["limit"],
            text(kept, "by"),
            number(line, "value"),
            number(line, "ratio"),
            kept["overtaken"],
            times(line),
        );
    }
    table
}

fn text(line: &Value, field: &str) -> String {
    line[field].as_str().unwrap_or_default().to_owned()
}

fn number(line: &Value, field: &str) -> String {
    line[field].as_f64().map(figure).unwrap_or_default()
}

fn times(line: &Value) -> String {
    match (line["p50_us"].as_f64(), line["p99_us"].as_f64()) {
        (Some(p50), Some(p99)) => format!("{} / {}", figure(p50), figure(p99)),
        _ => String::new(),
    }
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
            "goal_of": "ratio", "peer": null,
        });
        let table = table(&[line]);
        let row = "| `hot` | 4,312 cycles/s | 878 | 4.91 | 4.00 | yes |  | 0.25 |";
        assert!(
            table.contains("### etcd 3.5.1") && table.ends_with(&format!("{row}\n")),
            "{table}"
        );
    }
    #[test]
    fn a_goal_for_the_value_has_the_unit() {
        let line = json!({
            "name": "wal", "value": 744.0, "unit": "bytes a commit", "raw": 391.0, "ratio": 1.9,
            "goal": 600.0, "goal_of": "value", "reached": false,
        });
        let row = "| `wal` | 744 bytes a commit | 391 | 1.90 | 600 bytes a commit | **no** |  |  |";
        assert!(table(&[line]).ends_with(&format!("{row}\n")));
    }

    #[test]
    fn ways_to_keep_a_limit_have_a_table_of_their_own() {
        let way = |by: &str, ratio: Option<f64>, after: Option<f64>, leaked: Option<bool>| {
            json!({
                "server": "PostgreSQL 15.18", "name": "peers", "value": 700.0, "ratio": ratio,
                "p50_us": 4000.0, "p99_us": 9000.0, "violations": 0,
                "peer": {
                    "by": by, "limit": 1, "overtaken": 7, "after_kill_s": after, "leaked": leaked,
                },
            })
        };
        let table = table(&[
            way("pac", Some(2.0), Some(3.5), Some(false)),
            way("row counter", None, None, Some(true)),
        ]);
        let rows = [
            "| 1 | pac | 700 | 2.00 | 7 | 4,000 / 9,000 | 3.50 s |",
            "| 1 | row counter | 700 |  | 7 | 4,000 / 9,000 | **never** |",
        ];
        assert!(
            table.ends_with(&format!("{}\n", rows.join("\n"))),
            "{table}"
        );
        assert!(!table.contains("`peers`"), "{table}");
    }
}
