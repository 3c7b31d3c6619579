//! Nothing that others wrote moves a cursor, forges a line or fills a screen: arguments, settings,
//! manifests and traces. What stores and servers say is in `terminal_store.rs`.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod common;

use std::fs;

use common::{Ended, RUN, pac, pac_with_stdin};
use pac_concurrency::text::is_plain;

/// Clears the screen, sets the title, forges a line, turns letters round, and hides some.
const HOSTILE: &str = "x\u{1b}[2J\u{1b}]0;t\u{7}\u{9b}2J\u{85}\u{202e}\u{2066}\u{200f}\u{61c}\u{2028}\u{feff}\u{e0041}\u{7f}";

/// A million letters.
fn megabyte() -> String {
    "m".repeat(1 << 20)
}

/// Fails unless all that was printed is plain, and not much.
#[track_caller]
fn plain(ended: &Ended) {
    for text in [&ended.stdout, &ended.stderr] {
        for line in text.lines() {
            assert!(line.chars().all(is_plain), "{line:?}");
            assert!(!line.starts_with("forged"), "{text}");
        }
        assert!(text.len() < 100_000, "{} bytes", text.len());
    }
    let said = ended.stdout.len() + ended.stderr.len();
    assert!(said > 0, "nothing was printed");
}

#[test]
fn arguments_are_escaped() {
    let forged = format!("{HOSTILE}\nforged");
    for arguments in [
        &["status", &forged][..],
        &["status", "--config", &forged],
        &["status", "--set", &forged],
        &["status", "--set", &format!("{forged}=x")],
        &["status", "--set", &format!("postgresql-host={forged}")],
        &["status", "--set", &format!("etcd-endpoints={forged}")],
        &["status", "--set", &format!("postgresql-ca-file={forged}")],
        &[&forged],
        &["exec", "--repository", &forged, "--", "true"],
        &[
            "exec",
            "--repository",
            "a/b",
            "--ttl",
            &forged,
            "--",
            "true",
        ],
        &["plan", &forged],
        &["plan", "--global-repository", &forged, "."],
        &["replay", &forged],
        &[
            "replay",
            "--timeline",
            &format!("/none/{forged}"),
            "/dev/null",
        ],
        &["migrate", "--from", &forged],
    ] {
        let ended = pac(arguments);
        assert_ne!(ended.code, 0, "{arguments:?}");
        plain(&ended);
    }
    for (arguments, key) in [
        (["config", "--set"], "postgresql-host"),
        (["config", "--set"], "x"),
    ] {
        // As long as the system allows an argument to be.
        let long = format!("{key}={}", "m".repeat(100_000));
        plain(&pac(&[&arguments[..], &[&long]].concat()));
    }
}

#[test]
fn settings_are_escaped_and_stay_what_they_are_in_json() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a\u{1b}[2J\nforged.yaml");
    let quoted = serde_json::to_string(&format!("{HOSTILE}\nforged{}", megabyte())).unwrap();
    for text in [
        format!("postgresql-host: {quoted}\n"),
        format!("postgresql-username: {quoted}\n"),
        format!("{quoted}: x\npostgresql-host: db\n"),
        format!(
            "postgresql-{}: x\n",
            quoted.trim_matches('"').replace('\\', "")
        ),
        format!(
            "etcd-mode: x\n\"etcd-mode{}: x\n",
            quoted.trim_start_matches('"')
        ),
        format!("[{quoted}"),
        quoted.clone(),
        HOSTILE.to_owned(),
    ] {
        fs::write(&file, &text).unwrap();
        let ended = pac(&["config", "--check", file.to_str().unwrap()]);
        assert_eq!(ended.code, 78, "{ended:?}");
        plain(&ended);
    }

    // No rule forbids these in the name of a user.
    let odd = "a\u{202e}b\u{feff}c\u{a0}";
    let named = format!("postgresql-username={odd}");
    let config = |output: &str| {
        let settings = [
            "concurrency-driver=postgresql",
            "postgresql-host=db",
            &named,
        ];
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let arguments: Vec<_> = ["config", "--output", output]
            .into_iter()
            .chain(settings)
            .collect();
        let ended = pac(&arguments);
        assert_eq!(ended.code, 0, "{ended:?}");
        plain(&ended);
        ended.stdout
    };
    assert!(config("table").contains("a\\u{202e}b\\u{feff}c\\u{a0}"));
    let json: serde_json::Value = serde_json::from_str(&config("json")).unwrap();
    let rows = json.as_array().unwrap();
    assert!(rows.iter().any(|row| row["value"] == odd), "{json}");
    fs::write(&file, config("yaml")).unwrap();
    let again = pac(&[
        "config",
        "--output",
        "json",
        "--config",
        file.to_str().unwrap(),
    ]);
    let json: serde_json::Value = serde_json::from_str(&again.stdout).unwrap();
    assert!(
        json.as_array()
            .unwrap()
            .iter()
            .any(|row| row["value"] == odd),
        "{json}"
    );
}

#[test]
fn manifests_are_escaped_and_stay_what_they_are_in_json() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a\u{1b}[2J\nforged.yaml");
    let hostile = format!("{HOSTILE}\nforged{}", megabyte());
    let quoted = serde_json::to_string(&hostile).unwrap();
    let manifest = format!(
        "apiVersion: pipelinesascode.tekton.dev/v1alpha1\nkind: Repository\nmetadata:\n  name: web\n  \
         namespace: ci\nspec:\n  url: https://example.com/web\n  concurrency_limit: 1\n---\n\
         apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata:\n  name: run\n  namespace: ci\n  \
         labels:\n    pipelinesascode.tekton.dev/repository: web\n  annotations:\n    \
         pipelinesascode.tekton.dev/event-type: {quoted}\n    pipelinesascode.tekton.dev/sha: {quoted}\n\
         spec:\n  status: {quoted}\n  managedBy: {quoted}\n---\n\
         apiVersion: tekton.dev/v1\nkind: PipelineRun\nmetadata:\n  name: {quoted}\n  namespace: ci\n\
         spec: {{}}\n"
    );
    fs::write(&file, manifest).unwrap();
    let path = directory.path().to_str().unwrap();
    plain(&pac(&["plan", path]));
    for output in ["json", "yaml"] {
        let ended = pac(&["plan", path, "--output", output]);
        for line in ended.stdout.lines() {
            assert!(line.chars().all(is_plain));
        }
        let read: serde_json::Value = if output == "json" {
            serde_json::from_str(&ended.stdout).unwrap()
        } else {
            serde_saphyr::from_str(&ended.stdout).unwrap()
        };
        let all = read.to_string();
        assert!(all.contains("\\u001b[2J"), "the value itself is kept");
        assert_eq!(
            read["repositories"][0]["runs"][0]["event"]["type"],
            hostile.as_str()
        );
    }
}

#[test]
fn traces_are_escaped() {
    let quoted = serde_json::to_string(&format!("{HOSTILE}\nforged{}", megabyte())).unwrap();
    let short = serde_json::to_string(&format!("{HOSTILE}\nforged")).unwrap();
    for row in [
        RUN.replace("\"ns/r\"", &short),
        RUN.replace("\"ns/a\"", &short),
        RUN.replace("\"2026-06-01T10:00:00Z\"", &short),
        RUN.replace("1.5", &short),
        RUN.replace("\"at\"", &short),
        RUN.replace("\"ns/r\"", &quoted),
        short.clone(),
        HOSTILE.to_owned(),
        format!("{{{HOSTILE}"),
    ] {
        let ended = pac_with_stdin(&["replay", "-"], row.as_bytes());
        assert_eq!(ended.code, 65, "{row:.200}");
        plain(&ended);
    }
}

/// A pipe that nobody writes to was waited for, and a device read for ever.
#[cfg(unix)]
#[test]
fn settings_are_read_from_regular_files_alone() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let mounted = directory.path().join("mounted");
    fs::create_dir(&mounted).unwrap();
    for name in ["etcd-mode", "etcd-password"] {
        std::os::unix::fs::symlink(&pipe, mounted.join(name)).unwrap();
    }
    let named = format!("postgresql-ca-file={}", pipe.display());
    let password = format!("postgresql-password-file={}", pipe.display());
    for arguments in [
        &["config", "--config", pipe.to_str().unwrap()][..],
        &["config", "--config", "/dev/zero"],
        &["config", "--config", mounted.to_str().unwrap()],
        &[
            "config",
            "--set",
            "concurrency-driver=postgresql",
            "--set",
            &named,
        ],
        &[
            "config",
            "--set",
            "concurrency-driver=postgresql",
            "--set",
            &password,
        ],
    ] {
        let ended = pac(arguments);
        assert_eq!(ended.code, 78, "{ended:?}");
        assert!(ended.stderr.contains("must be a regular file"), "{ended:?}");
    }
}

/// Somebody writes the password itself where the name of its file belongs.
#[test]
fn a_password_under_the_key_of_a_file_is_not_printed() {
    for key in [
        "postgresql-password-file",
        "postgresql-key-file",
        "postgresql-cert-file",
        "postgresql-ca-file",
        "etcd-password-file",
        "etcd-key-file",
        "etcd-cert-file",
        "etcd-ca-file",
    ] {
        for secret in [
            "hunter2",
            "/hunter2",
            "b64/hunter2==",
            "-----BEGIN KEY-----\nhunter2\n",
        ] {
            for driver in ["postgresql", "etcd"] {
                for output in ["table", "json", "yaml"] {
                    let driver = format!("concurrency-driver={driver}");
                    let ended = pac(&[
                        "config",
                        "--output",
                        output,
                        "--set",
                        &driver,
                        "--set",
                        &format!("{key}={secret}"),
                        "--set",
                        "postgresql-host=db",
                        "--set",
                        "etcd-endpoints=a:1",
                    ]);
                    assert!(
                        !format!("{ended:?}").contains("hunter2"),
                        "{key}: {ended:?}"
                    );
                }
            }
        }
    }
    // A name that may be one is shown: else nobody finds the letter that is wrong.
    let wrong = format!(
        "postgresql-ca-file={}/src/ca.pm",
        env!("CARGO_MANIFEST_DIR")
    );
    let ended = pac(&[
        "config",
        "--set",
        "concurrency-driver=postgresql",
        "--set",
        "postgresql-host=db",
        "--set",
        &wrong,
    ]);
    assert!(
        ended.stderr.contains("src/ca.pm: cannot be read"),
        "{ended:?}"
    );
}

/// Four megabytes of them were told one by one.
#[test]
fn of_many_mistyped_keys_twenty_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("many.yaml");
    let keys = 40_000;
    let text: String = (0..keys)
        .map(|n| format!("postgresql-hots-{n}: x\n"))
        .collect();
    fs::write(&file, format!("{text}postgresql-host: db\n")).unwrap();
    let ended = pac(&["config", "--check", file.to_str().unwrap()]);
    assert_eq!(ended.code, 78);
    assert_eq!(ended.stderr.lines().count(), 22, "{}", ended.stderr);
    assert!(
        ended.stderr.contains(&format!("{keys} problems")),
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.ends_with(&format!("and {} more\n", keys - 20)),
        "{}",
        ended.stderr
    );
}
