//! The ConfigMap with the settings, to begin with.

use serde_json::json;

use super::manifest::Manifest;
use super::options::{Install, StoreDriver};

/// The ConfigMap. The address of the store is an example, which no name server resolves, and has
/// to be replaced. The password is empty: it is read from the Secret.
pub(super) fn config_map(install: &Install) -> Manifest {
    let data = match install.driver {
        StoreDriver::Postgresql => json!({
            "concurrency-enabled": "true",
            "concurrency-driver": "postgresql",
            "postgresql-host": "postgresql.example.com",
            "postgresql-port": "5432",
            "postgresql-database": "pac_concurrency",
            "postgresql-username": "pac_user",
            "postgresql-ssl-mode": "verify-full",
        }),
        StoreDriver::Etcd => json!({
            "concurrency-enabled": "true",
            "concurrency-driver": "etcd",
            "etcd-endpoints":
                "etcd-0.example.com:2379,etcd-1.example.com:2379,etcd-2.example.com:2379",
            "etcd-username": "pac_user",
        }),
    };
    Manifest::namespaced("v1", "ConfigMap", &install.namespace, Install::CONFIG_MAP)
        .with("data", data)
}

/// What the addresses of the generated settings end with until they are replaced.
pub(super) const EXAMPLE: &str = ".example.com";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_addresses_are_known_as_examples() {
        for (driver, key) in [
            (StoreDriver::Postgresql, "postgresql-host"),
            (StoreDriver::Etcd, "etcd-endpoints"),
        ] {
            let map = config_map(&Install::default().with_driver(driver));
            let data = &map.as_value()["data"];
            assert!(data[key].as_str().unwrap().contains(EXAMPLE));
            assert_eq!(data["concurrency-driver"], driver.name());
            assert!(data.get(driver.password_key()).is_none());
        }
    }
}
