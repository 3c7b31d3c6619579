//! The precedence of sources.

use std::fs;

use pac_concurrency::settings::{Password, Secret};
use pac_concurrency::{DriverKind, ErrorKind, SettingsLoader};

use crate::{map, problems, reads, secs, set, source_of, variables};

#[test]
fn the_stronger_source_holds_and_an_empty_value_is_none() {
    let layers = || {
        SettingsLoader::new()
            .config_map(
                "map",
                map(&[("memory-lease-ttl", "1m"), ("etcd-username", "map")]),
            )
            .secret(
                "secret",
                map(&[("memory-lease-ttl", "2m"), ("etcd-username", "")]),
            )
    };
    let ttl = |loader: SettingsLoader| {
        let loaded = loader.load().unwrap();
        let source = source_of(&loaded, "memory-lease-ttl");
        (loaded.values().memory_lease_ttl.as_secs() / 60, source)
    };
    let variable = |value| variables(&[("PAC_MEMORY_LEASE_TTL", value)]);
    assert_eq!(ttl(layers()), (2, "secret".to_owned()));
    // The order of sources matters only among those of one kind.
    let later = layers().config_map("later", map(&[("memory-lease-ttl", "9m")]));
    assert_eq!(ttl(later), (2, "secret".to_owned()));
    let later = layers().secret("later", map(&[("memory-lease-ttl", "9m")]));
    assert_eq!(ttl(later), (9, "later".to_owned()));
    let from_environment = (3, "PAC_MEMORY_LEASE_TTL".to_owned());
    assert_eq!(ttl(layers().variables(variable("3m"))), from_environment);
    assert_eq!(
        ttl(layers().variables(variable(""))),
        (2, "secret".to_owned())
    );
    let explicit = layers()
        .variables(variable("3m"))
        .set("memory-lease-ttl", "4m");
    assert_eq!(ttl(explicit.clone()), (4, "--set".to_owned()));
    assert_eq!(
        ttl(explicit.set("memory-lease-ttl", "")),
        (30, "default".to_owned())
    );
    let loaded = layers().load().unwrap();
    assert_eq!(loaded.values().etcd.username.as_deref(), Some("map"));
}

#[test]
fn the_names_of_the_guide_are_variables_too() {
    let loaded = SettingsLoader::new()
        .variables(variables(&[
            ("PAC_ETCD_ENABLED", "true"),
            ("PAC_ETCD_MODE", "etcd"),
            ("ETCD_ENDPOINTS", "localhost:2379,localhost:2380"),
            ("ETCD_DIAL_TIMEOUT", "5"),
            ("ETCD_USERNAME", "user"),
            ("ETCD_PASSWORD", "pass"),
            ("ETCD_CERT_FILE", "/path/to/cert.pem"),
            ("ETCD_KEY_FILE", "/path/to/key.pem"),
            ("ETCD_CA_FILE", "/path/to/ca.pem"),
            ("ETCD_SERVER_NAME", "etcd.example.com"),
        ]))
        .without_looking_at_files()
        .load()
        .unwrap();
    let values = loaded.values();
    assert_eq!((values.enabled, values.driver), (true, DriverKind::Etcd));
    assert_eq!(values.etcd.endpoints.len(), 2);
    assert_eq!(values.etcd.dial_timeout, secs(5));
    assert_eq!(values.etcd.server_name.as_deref(), Some("etcd.example.com"));
    assert!(reads(values.etcd.password.as_ref(), "pass"));
    let with_both = SettingsLoader::new().variables(variables(&[
        ("PAC_ETCD_PREFIX", "/a"),
        ("ETCD_USERNAME", "weak"),
        ("PAC_ETCD_USERNAME", "strong"),
    ]));
    let loaded = with_both.load().unwrap();
    assert_eq!(loaded.values().etcd.username.as_deref(), Some("strong"));
}

#[tokio::test]
async fn concurrency_is_enabled_by_its_key_else_by_naming_a_driver() {
    let etcd = ("etcd-endpoints", "etcd:2379");
    for (values, expected) in [
        (vec![], None),
        (
            vec![
                ("concurrency-enabled", "false"),
                ("concurrency-driver", "etcd"),
            ],
            None,
        ),
        (vec![("etcd-enabled", "false")], None),
        (vec![("etcd-enabled", "true"), etcd], Some(DriverKind::Etcd)),
        (
            vec![("etcd-enabled", "true"), ("concurrency-enabled", "false")],
            None,
        ),
        (
            vec![("etcd-enabled", "true"), ("concurrency-driver", "memory")],
            Some(DriverKind::Memory),
        ),
        (
            vec![
                ("etcd-enabled", "false"),
                ("concurrency-driver", "etcd"),
                etcd,
            ],
            Some(DriverKind::Etcd),
        ),
        (
            vec![("concurrency-driver", "memory")],
            Some(DriverKind::Memory),
        ),
    ] {
        let settings = set(&values).load().unwrap().settings();
        let enabled = settings.enabled.then_some(settings.driver);
        assert_eq!(enabled, expected, "{values:?}");
    }
    let unnamed = problems(set(&[("concurrency-enabled", "true")]));
    assert!(
        unnamed[0].starts_with("concurrency-driver: is not set; choose etcd"),
        "{unnamed:?}"
    );

    let disabled = SettingsLoader::new().load().unwrap().settings();
    assert!(
        pac_concurrency::connect_if_enabled(&disabled)
            .await
            .unwrap()
            .is_none()
    );
    let error = pac_concurrency::connect(&disabled).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("name a driver"), "{error}");
}

#[test]
fn a_mock_of_etcd_is_used_where_it_is_compiled_in_and_refused_elsewhere() {
    for (driver, mode) in [
        (("concurrency-driver", "etcd"), ("etcd-mode", "mock")),
        (("etcd-enabled", "true"), ("etcd-mode", "memory")),
    ] {
        let loader = set(&[driver, mode]);
        if cfg!(feature = "mock") {
            let loaded = loader.load().unwrap();
            assert_eq!(loaded.values().driver, DriverKind::Etcd);
            assert!(loaded.values().is_in_process() && loaded.settings().is_in_process());
        } else {
            let problems = problems(loader);
            let refused = problems[0].contains("etcd-mode: mock is not compiled in");
            assert!(
                refused && problems[0].contains("feature `mock`"),
                "{problems:?}"
            );
        }
    }
}

#[test]
fn without_a_mode_etcd_is_a_cluster_where_endpoints_are_set() {
    let driver = ("concurrency-driver", "etcd");
    let cluster = set(&[driver, ("etcd-endpoints", "etcd:2379")]);
    let cluster = cluster.load().unwrap();
    assert!(!cluster.values().is_in_process());
    assert!(!cluster.values().etcd.is_mode_named);
    let mode = cluster
        .effective()
        .iter()
        .find(|e| e.key.name() == "etcd-mode");
    assert_eq!(mode.unwrap().value, "etcd");
    let alone = set(&[driver]);
    if cfg!(feature = "mock") {
        assert!(alone.load().unwrap().values().is_in_process());
    } else {
        let problems = problems(alone);
        assert!(
            problems[0].starts_with("etcd-endpoints: is not set"),
            "{problems:?}"
        );
    }
}

#[test]
fn an_empty_password_in_the_config_map_is_read_from_the_secret() {
    let directory = tempfile::tempdir().unwrap();
    let mount = directory.path().join("secret");
    fs::create_dir(&mount).unwrap();
    fs::write(mount.join("postgresql-password"), "hunter2\n").unwrap();
    let config_map = directory.path().join("configmap.yaml");
    fs::write(
        &config_map,
        "kind: ConfigMap\ndata:\n  postgresql-password: \"\"\n",
    )
    .unwrap();
    let loaded = SettingsLoader::new()
        .file(&mount)
        .file(&config_map)
        .load()
        .unwrap();
    let password = loaded.values().postgresql.password.clone().unwrap();
    assert_eq!(
        password,
        Password::in_file(mount.join("postgresql-password"))
    );
    assert_eq!(password.read().unwrap(), Some(Secret::new("hunter2")));
    fs::write(mount.join("postgresql-password"), "changed").unwrap();
    assert_eq!(password.read().unwrap(), Some(Secret::new("changed")));
}

#[test]
fn of_a_password_and_its_file_the_stronger_source_holds() {
    let file = ("postgresql-password-file", "Cargo.toml");
    let value = ("postgresql-password", "hunter2");
    let weak_file = SettingsLoader::new()
        .config_map("c", map(&[file]))
        .secret("s", map(&[value]));
    let loaded = weak_file.load().unwrap();
    assert!(reads(
        loaded.values().postgresql.password.as_ref(),
        "hunter2"
    ));
    let strong_file = SettingsLoader::new()
        .secret("s", map(&[value]))
        .set(file.0, file.1);
    let loaded = strong_file.load().unwrap();
    let expected = Password::in_file("Cargo.toml");
    assert_eq!(loaded.values().postgresql.password, Some(expected));
    let both = problems(SettingsLoader::new().config_map("c", map(&[file, value])));
    assert!(both[0].contains("keep one of them"), "{both:?}");
}
