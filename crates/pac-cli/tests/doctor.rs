//! `pac doctor` on healthy stores, and on stores with defects.

#![cfg(all(unix, any(feature = "etcd", feature = "postgres")))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::servers;

use serde_json::{Value, json};
use servers::own::free_port;
use servers::{Finished, Running, Store, on_every_store};

on_every_store! {
    all_is_well_and_nothing_is_left,
    nobody_at_the_port,
    limits_that_are_switched_off,
}

const STEPS: [&str; 13] = [
    "settings",
    "reachable",
    "tls",
    "authenticated",
    "privileges",
    "schema",
    "version",
    "store",
    "session",
    "clock",
    "write-and-read",
    "watch",
    "clean-up",
];

/// The result of `pac doctor --output json` with more settings: its exit code, and a result and
/// a detail for each step.
struct Doctor {
    code: i32,
    checks: Vec<Value>,
}

impl Doctor {
    fn at(store: &Store, settings: &[String], variables: &[(&str, &str)]) -> Self {
        let mut args: Vec<_> = settings.iter().flat_map(|set| ["--set", set]).collect();
        args.extend(["doctor", "--output", "json"]);
        let mut command = store.pac(&args);
        command.envs(variables.iter().copied());
        let Finished {
            code,
            stdout,
            stderr,
        } = Running::start(command).wait();
        for (_, secret) in variables {
            assert!(
                !stdout.contains(secret) && !stderr.contains(secret),
                "{stdout}{stderr}"
            );
        }
        let checks: Vec<Value> = serde_json::from_str(&stdout).unwrap();
        let names: Vec<_> = checks.iter().map(|check| check["check"].clone()).collect();
        assert_eq!(json!(names), json!(STEPS));
        Self { code, checks }
    }

    fn check(&self, step: &str) -> (&str, &str) {
        let check = self.checks.iter().find(|check| check["check"] == step);
        let text = |key: &str| check.unwrap()[key].as_str().unwrap();
        (text("result"), text("detail"))
    }

    /// Asserts that exactly this step failed, with these words and this exit code, and that no
    /// later step was tried.
    #[track_caller]
    fn assert_failed(&self, step: &str, words: &[&str], code: i32) {
        let (result, detail) = self.check(step);
        assert_eq!((result, self.code), ("failed", code), "{:#?}", self.checks);
        for word in words {
            assert!(detail.contains(word), "{word}: {detail}");
        }
        let at = STEPS.iter().position(|name| *name == step).unwrap();
        for (earlier, check) in self.checks.iter().enumerate().filter(|(i, _)| *i != at) {
            assert_ne!(check["result"], "failed", "{check}");
            let not_tried = check["detail"] == format!("not tried, since {step} failed");
            assert!(
                not_tried
                    || earlier < at
                    || ["ok", "warning"].iter().any(|r| check["result"] == *r),
                "{check}"
            );
        }
    }
}

fn all_is_well_and_nothing_is_left(store: &Store) {
    let doctor = Doctor::at(store, &[], &[]);
    assert_eq!(doctor.code, 0, "{:#?}", doctor.checks);
    let etcd = store.settings().iter().any(|(_, value)| value == "etcd");
    let skipped: &[_] = if etcd {
        &["tls", "authenticated", "schema", "clock"]
    } else {
        &["tls"]
    };
    for step in STEPS {
        let expected = if skipped.contains(&step) {
            "skipped"
        } else if step == "store" && !etcd {
            // The database of the tests is open to every role.
            "warning"
        } else {
            "ok"
        };
        let (result, detail) = doctor.check(step);
        // The etcd of the tests is not compacted, and other tests write to it.
        let is_shared = etcd && detail.contains("never been compacted");
        assert!(result == expected || is_shared, "{:#?}", doctor.checks);
    }
    let digits = |text: &str| text.chars().any(|c| c.is_ascii_digit());
    assert!(digits(doctor.check("version").1), "{:#?}", doctor.checks);
    let watch = doctor.check("watch").1;
    assert!(digits(watch) && watch.ends_with(" ms"), "{watch}");
    assert_eq!(store.json(&["status"]), json!([]));

    // The table succeeds too; a second run is not disturbed by the first.
    let table = store.run(&["doctor"]);
    assert_eq!((table.code, table.stderr.as_str()), (0, ""), "{table:?}");
    assert_eq!(table.stdout.lines().count(), STEPS.len(), "{table:?}");
    assert!(
        table.stdout.starts_with("ok       settings: right; "),
        "{table:?}"
    );
}

fn nobody_at_the_port(store: &Store) {
    let port = free_port();
    let nowhere = [
        format!("postgresql-port={port}"),
        format!("etcd-endpoints=127.0.0.1:{port}"),
    ];
    let doctor = Doctor::at(store, &nowhere, &[("PAC_POSTGRESQL_PASSWORD", "k3ep-it")]);
    doctor.assert_failed("reachable", &["onnection refused"], 69);
    let table = store.run(&["--set", &nowhere[0], "--set", &nowhere[1], "doctor"]);
    assert!(table.stdout.contains("\nFAILED   reachable: "), "{table:?}");
}

fn limits_that_are_switched_off(store: &Store) {
    let off = ["concurrency-enabled=false".to_owned()];
    let doctor = Doctor::at(store, &off, &[]);
    doctor.assert_failed("settings", &["not enabled"], 78);
    let wrong = ["concurrency-session-ttl=soon".to_owned()];
    let doctor = Doctor::at(store, &wrong, &[]);
    doctor.assert_failed("settings", &["concurrency-session-ttl"], 78);
}

#[cfg(feature = "etcd")]
#[test]
fn a_user_for_an_etcd_without_users_fails_at_authentication() {
    let store = Store::etcd();
    let user = ["etcd-username=pac".to_owned()];
    let doctor = Doctor::at(&store, &user, &[("ETCD_PASSWORD", "k3ep-it")]);
    doctor.assert_failed("authenticated", &["check user and password"], 77);
}

#[test]
fn memory_has_nothing_to_check_beyond_the_settings() {
    let mut drivers = vec!["concurrency-driver=memory"];
    if cfg!(feature = "mock") {
        drivers.push("etcd-mode=memory");
    }
    for driver in drivers {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pac"));
        command.args(["doctor", "--set", "concurrency-driver=etcd"]);
        command.args(["--set", driver]);
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{driver}: {text}");
        assert!(
            text.contains("nothing to check beyond the settings"),
            "{text}"
        );
    }
}

#[cfg(feature = "postgres")]
mod roles {
    use super::servers::own::OwnServer;
    use super::{Doctor, Store, json};

    /// Roles need a password. The role `pac_runtime` exists and may connect.
    fn server() -> (OwnServer, Store) {
        let hba = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
        let server = OwnServer::start("PAC_TEST_POSTGRES", "", hba);
        sql(&server, "CREATE ROLE pac_runtime LOGIN PASSWORD 'k3ep-it'");
        let store = Store::at_postgres(&server.port.to_string());
        (server, store)
    }

    fn sql(server: &OwnServer, sql: &str) {
        let mut psql = server.program("psql");
        psql.args(["-h", "127.0.0.1", "-p", &server.port.to_string()]);
        psql.args(["-U", "postgres", "-v", "ON_ERROR_STOP=1", "-qc", sql]);
        let output = psql.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn as_role(store: &Store, password: &str, more: &[&str]) -> Doctor {
        let settings = ["postgresql-username=pac_runtime"].iter().chain(more);
        let settings: Vec<_> = settings.map(|&setting| setting.to_owned()).collect();
        Doctor::at(store, &settings, &[("PAC_POSTGRESQL_PASSWORD", password)])
    }

    #[test]
    fn a_wrong_password_fails_at_authentication() {
        let (_server, store) = server();
        let doctor = as_role(&store, "wr0ng-one", &[]);
        doctor.assert_failed("authenticated", &["refuses the password"], 77);
        assert_eq!(doctor.check("reachable").0, "ok");
    }

    #[test]
    fn what_a_role_may_not_do_fails_at_privileges() {
        let (server, store) = server();
        // Nothing creates the schema but what is asked to.
        let doctor = Doctor::at(&store, &[], &[]);
        doctor.assert_failed("schema", &["pac schema apply", "correct"], 78);
        assert_eq!(store.run(&["schema", "apply"]).code, 0);
        assert_eq!(Doctor::at(&store, &[], &[]).code, 0);
        // The schema exists, but the role may not read it.
        let cure = ["docs/deploy/postgresql.sql"];
        as_role(&store, "k3ep-it", &[]).assert_failed("privileges", &cure, 77);
        // The role may read the schema's version, and nothing more.
        let mut settings = store.settings().iter();
        let schema = &settings
            .find(|(key, _)| key == "postgresql-schema")
            .unwrap()
            .1;
        let grant = |what: &str| {
            sql(
                &server,
                &format!("SET search_path = {schema}; GRANT {what} TO pac_runtime"),
            );
        };
        grant(&format!("USAGE ON SCHEMA {schema}"));
        grant("SELECT ON meta");
        let doctor = as_role(&store, "k3ep-it", &[]);
        assert_eq!(doctor.check("session").0, "skipped");
        doctor.assert_failed("privileges", &cure, 77);
        // The role may write sessions, but no runs. The attempt leaves nothing behind.
        grant("SELECT ON secrets");
        grant("SELECT, UPDATE ON floor, server");
        grant("SELECT, INSERT, UPDATE, DELETE ON repositories, sessions");
        grant("SELECT ON queue, slots, history");
        grant(&format!("EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema}"));
        let doctor = as_role(&store, "k3ep-it", &[]);
        assert_eq!(doctor.check("session").0, "ok");
        assert_eq!(doctor.check("clean-up").0, "ok", "{:#?}", doctor.checks);
        doctor.assert_failed("privileges", &cure, 77);
        assert_eq!(store.json(&["status"]), json!([]));
        // The role has everything that docs/deploy/postgresql.sql lists.
        grant("INSERT, DELETE ON queue, history");
        grant("INSERT, UPDATE, DELETE ON slots");
        grant("SELECT, INSERT ON migrated");
        assert_eq!(as_role(&store, "k3ep-it", &[]).code, 0);
        // What only looking for dead sessions needs is missed, too.
        for missing in [
            "DELETE ON sessions",
            "UPDATE ON sessions",
            "UPDATE ON server",
        ] {
            let revoke = format!("REVOKE {missing} FROM pac_runtime");
            sql(&server, &format!("SET search_path = {schema}; {revoke}"));
            let doctor = as_role(&store, "k3ep-it", &[]);
            let (privilege, table) = missing.split_once(" ON ").unwrap();
            let named = format!("{privilege} ON {schema}.{table}");
            let (result, detail) = doctor.check("privileges");
            assert_eq!((result, doctor.code), ("failed", 77), "{missing}");
            assert!(detail.contains(&named), "{detail}");
            // Without it a session cannot be closed.
            let closed = doctor.check("clean-up").0;
            let expected = ["DELETE ON sessions", "UPDATE ON sessions"].contains(&missing);
            assert_eq!(closed == "failed", expected, "{:#?}", doctor.checks);
            grant(missing);
        }
    }

    #[test]
    fn a_server_without_tls_fails_at_tls_and_a_missing_database_at_the_schema() {
        let (_server, store) = server();
        let doctor = as_role(&store, "k3ep-it", &["postgresql-ssl-mode=require"]);
        doctor.assert_failed("tls", &["does not speak TLS"], 78);
        let doctor = as_role(&store, "k3ep-it", &["postgresql-database=nowhere"]);
        doctor.assert_failed("schema", &["create it"], 78);
        assert_eq!(doctor.check("privileges").0, "skipped");
    }
}

#[cfg(feature = "etcd")]
mod users {
    use std::path::PathBuf;
    use std::process::{Child, Command, Stdio};

    use super::servers::{eventually, variable};
    use super::{Doctor, Store, free_port};

    /// An etcd with authentication: `pac` has all privileges below its prefix, `stranger` none.
    struct Member {
        server: Child,
        _data: tempfile::TempDir,
        client: String,
    }

    impl Drop for Member {
        fn drop(&mut self) {
            let _ = self.server.kill();
            let _ = self.server.wait();
        }
    }

    impl Member {
        fn start(prefix: &str) -> Self {
            let data = tempfile::tempdir().unwrap();
            let address = || format!("http://127.0.0.1:{}", free_port());
            let (client, peer) = (address(), address());
            let server = Command::new(variable("PAC_TEST_ETCD_NEWEST_BIN"))
                .arg("--data-dir")
                .arg(data.path().join("data"))
                .args(["--listen-client-urls", &client])
                .args(["--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer])
                .args(["--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &format!("default={peer}")])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let member = Self {
                server: server.unwrap(),
                _data: data,
                client,
            };
            eventually("etcd is healthy", || member.etcdctl("endpoint health"));
            for command in [
                "user add root:root",
                "user add pac:k3ep-it",
                "user add stranger:k3ep-it",
                "role add root",
                "role add pac",
                &format!("role grant-permission --prefix=true pac readwrite {prefix}"),
                "user grant-role root root",
                "user grant-role pac pac",
                "auth enable",
            ] {
                assert!(member.etcdctl(command), "{command}");
            }
            member
        }

        fn etcdctl(&self, command: &str) -> bool {
            let etcdctl = PathBuf::from(variable("PAC_TEST_ETCD_NEWEST_BIN"));
            let mut etcdctl = Command::new(etcdctl.with_file_name("etcdctl"));
            etcdctl.env("ETCDCTL_API", "3");
            etcdctl.args(["--endpoints", &self.client]);
            let output = etcdctl.args(command.split(' ')).output();
            output.unwrap().status.success()
        }
    }

    #[test]
    fn passwords_and_privileges_are_told_apart() {
        let store = Store::etcd();
        let prefix = store
            .settings()
            .iter()
            .find(|(key, _)| key == "etcd-prefix");
        let member = Member::start(&prefix.unwrap().1);
        let endpoint = format!("etcd-endpoints={}", member.client);
        let doctor = |user: &str, password: &str| {
            let settings = [endpoint.clone(), format!("etcd-username={user}")];
            Doctor::at(&store, &settings, &[("ETCD_PASSWORD", password)])
        };
        let wrong = doctor("pac", "wr0ng-one");
        wrong.assert_failed("authenticated", &["check user and password"], 77);
        doctor("stranger", "k3ep-it").assert_failed("privileges", &["prefix"], 77);
        let right = doctor("pac", "k3ep-it");
        assert_eq!(right.code, 0, "{:#?}", right.checks);
        assert_eq!(right.check("authenticated").0, "ok");
    }
}
