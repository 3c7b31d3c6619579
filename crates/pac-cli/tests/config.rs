//! `pac config`, run as a process.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::common;

use std::fs;

use common::{Ended, command};
use serde_json::Value;

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/deploy");

/// Runs `pac` with these arguments, in an environment of only these variables.
fn pac(args: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut command = command(args);
    command.env_clear().envs(environment.iter().copied());
    let output = command.output().unwrap();
    Ended {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn deploy(file: &str) -> String {
    format!("{DEPLOY}/{file}")
}

/// The rows of `--output json`: key, value and source of each setting.
fn rows(ended: &Ended) -> Vec<(String, String, String)> {
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let rows: Vec<Value> = serde_json::from_str(&ended.stdout).unwrap();
    let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
    rows.iter()
        .map(|row| (text(row, "key"), text(row, "value"), text(row, "source")))
        .collect()
}

fn row(ended: &Ended, key: &str) -> (String, String) {
    let rows = rows(ended);
    let row = rows.iter().find(|row| row.0 == key).unwrap();
    (row.1.clone(), row.2.clone())
}

#[test]
fn the_files_to_deploy_are_right_and_each_value_has_its_source() {
    let (map, secret) = (deploy("configmap.yaml"), deploy("secret.yaml"));
    let files = ["--config", &map, "--config", &secret];
    let table = pac(&[&["config"], &files[..]].concat(), &[]);
    assert_eq!(table.code, 0, "{}", table.stderr);
    for shown in [
        "postgresql.example.com",
        "configmap.yaml:12",
        "(redacted)",
        "secret.yaml:9",
    ] {
        assert!(table.stdout.contains(shown), "{shown}: {}", table.stdout);
    }
    assert!(table.stdout.contains("enabled, with the driver postgresql"));
    let json = pac(&[&["config", "--output", "json"], &files[..]].concat(), &[]);
    let (value, source) = row(&json, "postgresql-lease-ttl");
    assert_eq!((value.as_str(), source), ("1h", format!("{map}:23")));
    let (value, source) = row(&json, "postgresql-password");
    assert_eq!(
        (value.as_str(), source),
        ("(redacted)", format!("{secret}:9"))
    );
    let etcd = [
        &deploy("configmap-etcd.yaml")[..],
        &deploy("secret-etcd.yaml"),
    ];
    let checked = pac(
        &[&["config", "--ignore-named-files", "--check"], &etcd[..]].concat(),
        &[],
    );
    assert_eq!(checked.code, 0, "{}", checked.stderr);
    assert!(
        checked
            .stdout
            .contains("right: concurrency limits are enabled, with the driver etcd")
    );
}

#[test]
fn options_on_either_side_of_the_command_and_the_environment_are_all_heard() {
    let map = deploy("configmap.yaml");
    let args = [
        "--config",
        &map,
        "--set",
        "postgresql-host=a",
        "config",
        "--output",
        "json",
        "--set",
        "postgresql-database=b=c",
    ];
    let environment = [
        ("PAC_POSTGRESQL_HOST", "x"),
        ("PAC_POSTGRESQL_USERNAME", "y"),
    ];
    let ended = pac(&args, &environment);
    let expect = |key, value: &str, source: &str| {
        assert_eq!(row(&ended, key), (value.to_owned(), source.to_owned()));
    };
    expect("postgresql-host", "a", "--set");
    expect("postgresql-database", "b=c", "--set");
    expect("postgresql-username", "y", "PAC_POSTGRESQL_USERNAME");
    expect("concurrency-driver", "postgresql", &format!("{map}:10"));
}

#[test]
fn a_check_names_all_that_is_wrong_and_fails() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("configmap.yaml");
    let text = "kind: ConfigMap\ndata:\n  concurrency-driver: \"postgres\"\n  \
                postgresql-port: \"x\"\n";
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    // The environment of the person who checks is not the controller's.
    let ended = pac(
        &["config", "--check", file],
        &[("PAC_ETCD_MODE", "nonsense")],
    );
    assert_eq!((ended.code, ended.stdout.as_str()), (78, ""));
    assert_eq!(
        ended.stderr,
        format!(
            "pac: 2 problems in the settings:\n  {file}:3: concurrency-driver: \"postgres\" is no \
             driver; choose etcd, postgresql or memory\n  {file}:4: postgresql-port: \"x\" is no \
             port; 1 to 65535 are\n"
        )
    );
    let shown = pac(
        &["config", "--set", "etcd-mode=etcd"],
        &[("PAC_ETCD_MODE", "x")],
    );
    assert_eq!(
        shown.code, 0,
        "what is overruled does not matter: {}",
        shown.stderr
    );
    let gone = pac(&["config", "--check", "there-is-none.yaml"], &[]);
    assert_eq!(gone.code, 78);
    assert!(gone.stderr.contains("there-is-none.yaml: cannot be read"));
}

#[test]
fn wrong_arguments_are_usage_errors() {
    for (args, fragment) in [
        (&["--set", "postgresql-host"][..], "KEY=VALUE"),
        (&["--check"], "<FILES>"),
        (&["--check", "a", "--output", "json"], "cannot be used with"),
        (&["--output", "toml"], "table, json, yaml"),
    ] {
        let ended = pac(&[&["config"], args].concat(), &[]);
        assert_eq!(ended.code, 2, "{args:?}: {}", ended.stderr);
        assert!(
            ended.stderr.contains(fragment),
            "{args:?}: {}",
            ended.stderr
        );
    }
}

#[test]
fn a_command_that_reads_no_settings_says_so() {
    let month = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/examples/pipelineruns-2026-06.jsonl"
    );
    let ended = pac(&["replay", month, "--set", "concurrency-driver=etcd"], &[]);
    assert_eq!(ended.code, 0);
    assert!(
        ended.stderr.contains("reads no settings"),
        "{}",
        ended.stderr
    );
}

#[test]
fn no_password_is_ever_printed() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("postgresql-password"), "hunter2\n").unwrap();
    let yaml = "kind: Secret\ndata:\n  postgresql-password: aHVudGVyMgo=\n\
                stringData:\n  etcd-username: hunter3\n";
    fs::write(path("secret.yaml"), yaml).unwrap();
    let broken = "kind: Secret\ndata:\n  postgresql-password: hunter2\nstringData:\n  \
                  etcd-dial-timeout: hunter3\n";
    fs::write(path("broken.yaml"), broken).unwrap();
    fs::write(
        path("not.yaml"),
        "postgresql-password: \"hunter2\nkind: [\n",
    )
    .unwrap();
    let file = |name: &str| path(name).to_str().unwrap().to_owned();
    let (mount, secret) = (file(""), file("secret.yaml"));
    let (broken, not) = (file("broken.yaml"), file("not.yaml"));
    let environment = [("ETCD_PASSWORD", "hunter3")];
    let mut failures = 0;
    for output in ["table", "json", "yaml"] {
        for args in [
            &["--config", &mount][..],
            &["--config", &secret],
            &["--config", &broken],
            &["--config", &not],
            &["--set", "postgresql-password=hunter2"],
            &["--set", "postgresql-password=hunter2\nhunter3"],
            &["--set", "postgresql-pasword=hunter2"],
            &["--set", "postgresql-host=postgres://me:hunter2@db"],
            &[
                "--set",
                "concurrency-driver=etcd",
                "--set",
                // Without endpoints: refused, whether or not a mock is compiled in.
                "etcd-mode=etcd",
                "--set",
                "etcd-password=hunter2",
            ],
        ] {
            let args = [&["config", "--output", output], args].concat();
            let ended = pac(&args, &environment);
            let all = format!("{}{}", ended.stdout, ended.stderr);
            assert!(!all.contains("hunter"), "{args:?}: {all}");
            assert!(!all.contains("aHVudGVy"), "{args:?}: {all}");
            assert!(!all.is_empty());
            failures += usize::from(ended.code == 78);
        }
    }
    assert_eq!(
        failures,
        3 * 6,
        "the messages of failures are looked at, too"
    );
}
