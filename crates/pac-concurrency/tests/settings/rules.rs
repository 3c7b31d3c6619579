//! Rules across keys.

use std::fs;

use crate::{problems, set};

#[test]
fn what_contradicts_itself_is_refused() {
    let postgresql = [
        ("concurrency-driver", "postgresql"),
        ("postgresql-host", "db"),
        ("postgresql-database", "pac"),
        ("postgresql-username", "me"),
    ];
    let etcd = [
        ("concurrency-driver", "etcd"),
        ("etcd-endpoints", "etcd:2379"),
    ];
    let missing = "/there/is/none.pem";
    for (base, more, expected) in [
        (
            &postgresql[..],
            vec![
                ("concurrency-session-ttl", "20m"),
                ("postgresql-lease-ttl", "10m"),
            ],
            "--set: concurrency-session-ttl: 20m is longer than postgresql-lease-ttl (10m, from --set)",
        ),
        (
            &postgresql[..1],
            vec![],
            "postgresql-host: is not set; the driver postgresql needs at least one",
        ),
        (
            &postgresql[..],
            vec![("postgresql-cert-file", "Cargo.toml")],
            "is set without postgresql-key-file",
        ),
        (
            &postgresql[..],
            vec![("postgresql-key-file", "Cargo.toml")],
            "is set without postgresql-cert-file",
        ),
        (
            &postgresql[..],
            vec![("postgresql-ssl-mode", "verify-ca")],
            "verify-ca needs postgresql-ca-file",
        ),
        (
            &postgresql[..],
            vec![
                ("postgresql-ssl-mode", "disable"),
                ("postgresql-ca-file", "Cargo.toml"),
            ],
            "disable goes without certificates",
        ),
        (
            &postgresql[..],
            vec![
                ("postgresql-ssl-mode", "disable"),
                ("postgresql-authentication", "channel-binding"),
            ],
            "channel-binding needs TLS",
        ),
        (
            &postgresql[..],
            vec![("postgresql-ca-file", missing)],
            "none.pem: cannot be read",
        ),
        (
            &postgresql[..],
            vec![("postgresql-ca-file", "Cargo.toml")],
            "Cargo.toml: holds no certificate in PEM",
        ),
        (
            &postgresql[..],
            vec![("postgresql-password-file", missing)],
            "none.pem: cannot be read",
        ),
        (
            &etcd[..1],
            vec![("etcd-mode", "etcd")],
            "etcd-endpoints: is not set",
        ),
        (
            &etcd[..],
            vec![("concurrency-session-ttl", "1s")],
            "too short for etcd",
        ),
        (
            &etcd[..],
            vec![("etcd-username", "me")],
            "is set without etcd-password",
        ),
        (
            &etcd[..],
            vec![("etcd-password", "x")],
            "a password is; give both",
        ),
        (
            &etcd[..],
            vec![("etcd-server-name", "x")],
            "set etcd-ca-file",
        ),
        (
            &etcd[..],
            vec![("etcd-endpoints", "https://a:1,http://b:1")],
            "http and https do not go together",
        ),
        (
            &etcd[..],
            vec![("etcd-endpoints", "http://a:1"), ("etcd-ca-file", "x")],
            "http does not go",
        ),
    ] {
        let values: Vec<_> = base.iter().copied().chain(more).collect();
        let problems = problems(set(&values)).join("\n");
        assert!(problems.contains(expected), "{values:?}: {problems}");
    }
    // Settings of a driver that is not selected may be incomplete.
    set(&[
        ("concurrency-driver", "memory"),
        ("postgresql-ca-file", missing),
        ("etcd-username", "me"),
    ])
    .load()
    .unwrap();
    let unknown = problems(set(&[("postgres-host", "x"), ("nonsense", "y")]));
    assert_eq!(
        unknown[0],
        "--set: postgres-host: is no key; did you mean postgresql-host?"
    );
    assert!(
        unknown[1].starts_with("--set: nonsense: is no key"),
        "{unknown:?}"
    );
}

#[test]
fn pem_files_that_are_there_are_taken() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, what: &str| {
        let path = directory.path().join(name);
        fs::write(
            &path,
            format!("-----BEGIN {what}-----\nAA==\n-----END {what}-----\n"),
        )
        .unwrap();
        path.display().to_string()
    };
    let (ca, key) = (file("ca", "CERTIFICATE"), file("key", "EC PRIVATE KEY"));
    let values = [
        ("concurrency-driver", "etcd"),
        ("etcd-endpoints", "https://etcd:2379"),
        ("etcd-ca-file", &ca),
        ("etcd-cert-file", &ca),
        ("etcd-key-file", &key),
    ];
    set(&values).load().unwrap();
    let swapped = set(&values)
        .set("etcd-key-file", &ca)
        .set("etcd-cert-file", &key);
    let problems = problems(swapped);
    assert!(problems[0].contains("holds no certificate"), "{problems:?}");
    assert!(problems[1].contains("holds no private key"), "{problems:?}");
}
