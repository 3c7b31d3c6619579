//! Every key, from every kind of source.

use std::fs;
use std::path::Path;
use std::time::Duration;

use pac_concurrency::settings::{
    Authentication, EtcdMode, Key, Migrate, Password, SslMode, Values,
};
use pac_concurrency::{DriverKind, SessionIdentity, SettingsLoader};

use crate::{map, reads, secs, set, source_of, variables};

/// A key, a value that an operator might write for it, and a check that the value was read.
type Case = (&'static str, &'static str, fn(&Values) -> bool);

const CASES: [Case; 38] = [
    ("concurrency-enabled", "false", |v| !v.enabled),
    ("concurrency-driver", "memory", |v| {
        v.driver == DriverKind::Memory
    }),
    ("concurrency-session-ttl", "20s", |v| {
        v.session_ttl == secs(20)
    }),
    ("concurrency-migrate-state", "false", |v| !v.migrate_state),
    ("concurrency-identity", "night-batch", |v| {
        v.identity == SessionIdentity::named("night-batch").ok()
    }),
    (
        "postgresql-url",
        "postgres://me:hunter2@db:5433/d?sslmode=disable",
        |v| {
            let values = &v.postgresql;
            let host = values
                .hosts
                .first()
                .map(|host| (host.name.as_str(), host.port));
            host == Some(("db", Some(5433)))
                && values.database == "d"
                && values.username == "me"
                && reads(values.password.as_ref(), "hunter2")
                && values.ssl_mode == SslMode::Disable
        },
    ),
    ("postgresql-host", "a,b:5433", |v| {
        let [a, b] = v.postgresql.hosts.as_slice() else {
            return false;
        };
        (a.name.as_str(), a.port) == ("a", None) && (b.name.as_str(), b.port) == ("b", Some(5433))
    }),
    ("postgresql-port", "6432", |v| v.postgresql.port == 6432),
    ("postgresql-database", "pac", |v| {
        v.postgresql.database == "pac"
    }),
    ("postgresql-username", "me", |v| {
        v.postgresql.username == "me"
    }),
    ("postgresql-password", "hunter2", |v| {
        reads(v.postgresql.password.as_ref(), "hunter2")
    }),
    ("postgresql-password-file", "Cargo.toml", |v| {
        v.postgresql.password == Some(Password::in_file("Cargo.toml"))
    }),
    ("postgresql-ssl-mode", "verify-full", |v| {
        v.postgresql.ssl_mode == SslMode::VerifyFull
    }),
    ("postgresql-authentication", "scram", |v| {
        v.postgresql.authentication == Some(Authentication::Scram)
    }),
    ("postgresql-ca-file", "/ca", |v| {
        is(v.postgresql.ca_file.as_deref(), "/ca")
    }),
    ("postgresql-cert-file", "/crt", |v| {
        is(v.postgresql.cert_file.as_deref(), "/crt")
    }),
    ("postgresql-key-file", "/key", |v| {
        is(v.postgresql.key_file.as_deref(), "/key")
    }),
    ("postgresql-schema", "queues", |v| {
        v.postgresql.schema == "queues"
    }),
    ("postgresql-migrate", "always", |v| {
        v.postgresql.migrate == Migrate::Always
    }),
    ("postgresql-application-name", "batch", |v| {
        v.postgresql.application_name.as_deref() == Some("batch")
    }),
    ("postgresql-max-connections", "25", |v| {
        v.postgresql.max_connections.get() == 25
    }),
    ("postgresql-connection-timeout", "500ms", |v| {
        v.postgresql.connection_timeout == Duration::from_millis(500)
    }),
    ("postgresql-lease-ttl", "1h30m", |v| {
        v.postgresql.lease_ttl == secs(5400)
    }),
    ("etcd-enabled", "true", |v| v.driver == DriverKind::Etcd),
    ("etcd-mode", "mock", |v| v.etcd.mode == EtcdMode::Mock),
    ("etcd-endpoints", "a:2379,b:2379", |v| {
        v.etcd.endpoints == ["a:2379", "b:2379"]
    }),
    ("etcd-username", "me", |v| {
        v.etcd.username.as_deref() == Some("me")
    }),
    ("etcd-password", "hunter2", |v| {
        reads(v.etcd.password.as_ref(), "hunter2")
    }),
    ("etcd-password-file", "Cargo.toml", |v| {
        v.etcd.password == Some(Password::in_file("Cargo.toml"))
    }),
    ("etcd-ca-file", "/ca", |v| {
        is(v.etcd.ca_file.as_deref(), "/ca")
    }),
    ("etcd-cert-file", "/crt", |v| {
        is(v.etcd.cert_file.as_deref(), "/crt")
    }),
    ("etcd-key-file", "/key", |v| {
        is(v.etcd.key_file.as_deref(), "/key")
    }),
    ("etcd-server-name", "etcd.ci", |v| {
        v.etcd.server_name.as_deref() == Some("etcd.ci")
    }),
    ("etcd-prefix", "/ci", |v| v.etcd.prefix == "/ci/"),
    ("etcd-dial-timeout", "7", |v| v.etcd.dial_timeout == secs(7)),
    ("etcd-lease-ttl", "2h", |v| v.etcd.lease_ttl == secs(7200)),
    ("etcd-compaction", "5m", |v| {
        v.etcd.compaction == Some(secs(300))
    }),
    ("memory-lease-ttl", "45m", |v| {
        v.memory_lease_ttl == secs(2700)
    }),
];

#[test]
fn every_key_has_a_case() {
    let cases: Vec<&str> = CASES.iter().map(|(key, ..)| *key).collect();
    let keys: Vec<&str> = Key::all().iter().map(|key| key.name()).collect();
    assert_eq!(cases, keys);
}

#[test]
fn every_key_is_read_from_every_kind_of_source() {
    for (key, value, was_read) in CASES {
        let required = with_required(key);
        let all: Vec<_> = required.iter().copied().chain([(key, value)]).collect();

        let yaml = |text: String| {
            let directory = tempfile::tempdir().unwrap();
            let file = directory.path().join("settings.yaml");
            fs::write(&file, text).unwrap();
            SettingsLoader::new().file(file).load().unwrap()
        };
        let lines = |indent: &str| {
            let line = |(key, value): &(&str, &str)| format!("{indent}{key}: \"{value}\"\n");
            all.iter().map(line).collect::<String>()
        };
        let data = format!("apiVersion: v1\nkind: ConfigMap\ndata:\n{}", lines("  "));
        let string_data = format!("apiVersion: v1\nkind: Secret\nstringData:\n{}", lines("  "));

        let mount = tempfile::tempdir().unwrap();
        for (key, value) in &all {
            fs::write(mount.path().join(key), format!("{value}\n")).unwrap();
        }
        let keyed = |(name, value): &(&'static str, &'static str)| {
            let key = Key::all().iter().find(|key| key.name() == *name).unwrap();
            (key.variables().next().unwrap(), *value)
        };
        let environment: Vec<_> = all.iter().map(keyed).collect();
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
            .collect();

        for (loaded, from) in [
            (set(&all).load().unwrap(), "explicit"),
            (
                SettingsLoader::new()
                    .variables(variables(&environment))
                    .load()
                    .unwrap(),
                "environment",
            ),
            (
                SettingsLoader::new().secret("s", map(&all)).load().unwrap(),
                "Secret",
            ),
            (
                SettingsLoader::new()
                    .config_map("c", map(&all))
                    .load()
                    .unwrap(),
                "ConfigMap",
            ),
            (yaml(data), "ConfigMap in YAML"),
            (yaml(string_data), "Secret in YAML"),
            (yaml(lines("")), "plain map"),
            (
                SettingsLoader::new().file(mount.path()).load().unwrap(),
                "directory",
            ),
        ] {
            assert!(was_read(loaded.values()), "{key} from {from}: {loaded:?}");
            assert_ne!(source_of(&loaded, key), "default", "{key} from {from}");
        }
    }
}

/// What stands in the place of these depends on others, or on the process.
const SAID_IN_WORDS: [&str; 3] = [
    "concurrency-enabled",
    "concurrency-identity",
    "postgresql-application-name",
];

/// The table of the operators' guide has every key, in order, with its default.
#[test]
fn every_key_is_documented_with_its_default() {
    let guide = include_str!("../../../../docs/operations.md");
    let rows: Vec<_> = guide
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter(|(name, _)| Key::all().iter().any(|key| key.name() == *name))
        .collect();
    let expected: Vec<_> = Key::all()
        .iter()
        .map(|key| (key.name(), key.default()))
        .collect();
    assert_eq!(rows.len(), expected.len());
    for ((name, rest), (key, default)) in rows.into_iter().zip(expected) {
        assert_eq!(name, key);
        let documented = rest.split(" |").next().unwrap();
        let empty = rest.starts_with("| ");
        match default {
            Some(default) => assert_eq!(documented, format!("`{default}`"), "{name}"),
            None => assert!(
                empty || SAID_IN_WORDS.contains(&name),
                "{name} has no default"
            ),
        }
    }
}

#[test]
fn the_defaults_are_those_of_the_guides() {
    let loaded = SettingsLoader::new().load().unwrap();
    let values = loaded.values();
    assert!(!values.enabled);
    assert_eq!(values.session_ttl, secs(15));
    assert_eq!(values.postgresql.port, 5432);
    assert_eq!(values.postgresql.database, "pac_concurrency");
    assert_eq!(values.postgresql.username, "pac_user");
    assert_eq!(values.postgresql.ssl_mode, SslMode::Require);
    assert_eq!(values.postgresql.authentication, None);
    assert_eq!(values.postgresql.max_connections.get(), 10);
    assert_eq!(values.postgresql.connection_timeout, secs(30));
    assert_eq!(values.postgresql.lease_ttl, secs(3600));
    assert_eq!(values.postgresql.schema, "pac");
    let mock = cfg!(feature = "mock");
    assert_eq!(values.etcd.mode == EtcdMode::Mock, mock);
    assert_eq!(values.etcd.dial_timeout, secs(5));
    assert_eq!(values.etcd.lease_ttl, secs(3600));
    assert_eq!(values.etcd.compaction, None);
    assert_eq!(values.memory_lease_ttl, secs(1800));
}

/// The other settings that a key requires.
fn with_required(key: &str) -> Vec<(&'static str, &'static str)> {
    match key {
        "postgresql-cert-file" => vec![("postgresql-key-file", "/key")],
        "postgresql-key-file" => vec![("postgresql-cert-file", "/crt")],
        "etcd-cert-file" => vec![("etcd-key-file", "/key")],
        "etcd-key-file" => vec![("etcd-cert-file", "/crt")],
        "etcd-enabled" => vec![("etcd-endpoints", "etcd:2379")],
        _ => Vec::new(),
    }
}

fn is(path: Option<&Path>, expected: &str) -> bool {
    path == Some(Path::new(expected))
}
