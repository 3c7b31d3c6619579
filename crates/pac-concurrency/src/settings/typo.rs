//! Recognises misspelt keys and variables.

use strsim::osa_distance;

use super::key::Key;

/// Prefixes that no other key of a Pipelines-as-Code ConfigMap has.
const OUR_PREFIXES: [&str; 3] = ["concurrency-", "postgresql-", "etcd-"];

/// The most letters missing, added, wrong or swapped that count as a typo.
const TYPO: usize = 2;

/// The complaint about an unknown name in a map, if it resembles a known one. A Secret may
/// contain keys of its database with the same prefixes (`etcd-root-password`).
pub(super) fn in_a_map(name: &str, in_a_secret: bool) -> Option<String> {
    let normal = name.to_ascii_lowercase().replace(['_', '.'], "-");
    let (nearest, distance) = nearest(&normal)?;
    let prefixed = OUR_PREFIXES.iter().any(|prefix| normal.starts_with(prefix));
    match distance {
        0..=TYPO => Some(format!("is no key; did you mean {nearest}?")),
        _ if prefixed && !in_a_secret => {
            let prefix = normal.split_once('-').map_or("", |(prefix, _)| prefix);
            Some(unknown(prefix, nearest, distance))
        }
        _ => None,
    }
}

/// The complaint about an unknown key that was set explicitly.
pub(super) fn explicit(name: &str) -> String {
    let normal = name.to_ascii_lowercase().replace(['_', '.'], "-");
    in_a_map(name, false).unwrap_or_else(|| match nearest(&normal) {
        Some((nearest, distance)) => unknown("concurrency", nearest, distance),
        None => "is no key".to_owned(),
    })
}

/// The complaint about an unknown variable, if it resembles a known one.
pub(super) fn in_the_environment(variable: &str) -> Option<String> {
    let nearest = Key::all()
        .iter()
        .flat_map(|key| key.variables())
        .map(|ours| (osa_distance(variable, &ours), ours))
        .min()?;
    let ours = variable
        .strip_prefix("PAC_")
        .is_some_and(|rest| rest.starts_with("POSTGRESQL_") || rest.starts_with("CONCURRENCY_"))
        || variable.starts_with("PAC_ETCD_");
    match nearest {
        (distance, name) if distance <= TYPO && variable.len() > 8 => {
            Some(format!("is no setting; did you mean {name}?"))
        }
        (_, name) if ours => Some(format!("is no setting; the nearest one is {name}")),
        _ => None,
    }
}

/// The nearest key with its distance. If only one key begins with the name, as for `etcd-cert`,
/// it is that one.
fn nearest(normal: &str) -> Option<(&'static str, usize)> {
    let keys = || Key::all().iter().map(|key| key.name());
    let mut longer = keys().filter(|name| normal.contains('-') && name.starts_with(normal));
    if let (Some(only), None) = (longer.next(), longer.next()) {
        return Some((only, 1));
    }
    keys()
        .map(|name| (name, osa_distance(normal, name)))
        .min_by_key(|(_, distance)| *distance)
}

fn unknown(prefix: &str, nearest: &str, distance: usize) -> String {
    if distance <= nearest.len() / 2 {
        return format!("is no key; did you mean {nearest}?");
    }
    let keys: Vec<&str> = Key::all()
        .iter()
        .map(|key| key.name())
        .filter(|name| name.starts_with(prefix))
        .collect();
    format!("is no key; there are {}", keys.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nearly_a_key_is_reported_with_the_nearest_one() {
        for (name, nearest) in [
            ("postgresql-hots", "postgresql-host"),
            ("postgres-host", "postgresql-host"),
            ("POSTGRESQL_HOST", "postgresql-host"),
            ("concurency-driver", "concurrency-driver"),
            ("etcd-endpoint", "etcd-endpoints"),
            ("etcd-cert", "etcd-cert-file"),
            ("memory-leasettl", "memory-lease-ttl"),
        ] {
            let complaint = in_a_map(name, false).unwrap();
            assert_eq!(complaint, format!("is no key; did you mean {nearest}?"));
        }
        let far = in_a_map("concurrency-something-entirely-different", false).unwrap();
        assert!(
            far.contains("there are concurrency-enabled, concurrency-driver"),
            "{far}"
        );
    }

    #[test]
    fn keys_of_others_are_left_alone() {
        for name in [
            "application-name",
            "max-keep-run-upper-limit",
            "secret-auto-create",
            "tekton-dashboard-url",
            "memory-limit",
            "password",
            "host",
            "",
        ] {
            assert_eq!(in_a_map(name, false), None, "{name}");
            assert_eq!(in_a_map(name, true), None, "{name}");
        }
        assert_eq!(in_a_map("etcd-root-password", true), None);
        assert!(in_a_map("etcd-root-password", false).is_some());
        assert!(explicit("host").contains("is no key"));
    }

    #[test]
    fn variables_of_others_are_left_alone() {
        for name in [
            "PATH",
            "PAC_CONTROLLER_LABEL",
            "PAC_TEST_POSTGRES_15",
            "ETCD_NAME",
            "ETCD_DATA_DIR",
            "ETCD_TRUSTED_CA_FILE",
            "POSTGRESQL_HOST_OF_OTHERS",
        ] {
            assert_eq!(in_the_environment(name), None, "{name}");
        }
        for (name, nearest) in [
            ("PAC_POSTGRESQL_HOTS", "PAC_POSTGRESQL_HOST"),
            ("ETCD_ENDPOINT", "ETCD_ENDPOINTS"),
            ("PAC_CONCURRENCY_ENABLE", "PAC_CONCURRENCY_ENABLED"),
        ] {
            let complaint = in_the_environment(name).unwrap();
            assert!(complaint.contains(nearest), "{complaint}");
        }
    }
}
