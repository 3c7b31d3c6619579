//! Reports of mistakes, and mistakes that are ignored.

use std::collections::BTreeMap;

use pac_concurrency::SettingsLoader;

use crate::{map, set, variables};

/// The whole report, as an operator reads it.
#[test]
fn ten_mistakes_are_reported_at_once() {
    let file = "tests/settings/mistakes.yaml";
    let error = SettingsLoader::new().file(file).load().unwrap_err();
    let report = format!("{error}\n");
    let expected = include_str!("mistakes.txt");
    assert_eq!(report, expected, "\n{report}");
}

#[test]
fn no_secret_is_ever_shown() {
    let secrets = ["hunter2", "open sesame", "correct horse"];
    let all = map(&[
        ("postgresql-password", "hunter2"),
        ("etcd-password", "open sesame"),
        ("etcd-dial-timeout", "correct horse"),
        ("postgresql-username", "hunter2\tx"),
        ("postgresql-hots", "hunter2"),
    ]);
    let failing = SettingsLoader::new()
        .secret("s", all)
        .variables(variables(&[("ETCD_PASSWORD", "open sesame\nhunter2")]))
        .set("postgresql-password", "hunter2\nhunter2")
        .set("postgresql-host", "postgres://me:hunter2@db/x")
        .set("etcd-endpoints", "https://me:hunter2@etcd:2379");
    let debug = format!("{failing:?}");
    let error = failing.load().unwrap_err();
    let converted = pac_concurrency::Error::from(error.clone());
    assert!(error.problems().len() >= 6, "{error}");
    let good = set(&[
        ("postgresql-password", "hunter2"),
        ("concurrency-driver", "memory"),
    ])
    .secret(
        "s",
        map(&[
            ("etcd-password", "open sesame"),
            ("etcd-username", "a user"),
        ]),
    )
    .load()
    .unwrap();
    let shown: BTreeMap<_, _> = good
        .effective()
        .iter()
        .map(|setting| (setting.key.name(), setting.value.as_str()))
        .collect();
    assert_eq!(shown["postgresql-password"], "(redacted)");
    let all = format!(
        "{debug} {error} {error:?} {error:#?} {converted} {converted:?} {good:?} {good:#?} \
         {shown:?} {:?}",
        good.settings()
    );
    for secret in secrets {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
}
