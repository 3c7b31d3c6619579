//! Recognises misspelt keys and variables.

use strsim::osa_distance;

use super::key::Key;

/// Prefixes that no other key of a Pipelines-as-Code ConfigMap has.
const OUR_PREFIXES: [&str; 3] = ["concurrency-", "postgresql-", "etcd-"];

/// The most letters missing, added, wrong or swapped that count as a typo.
const TYPO: usize = 2;

/// Longer names resemble none: the longest key has 29 letters, and the longest variable 33.
const LONGEST: usize = 64;

/// A name that resembles a known one.
#[derive(Debug)]
pub(super) struct Typo {
    /// In lower case, with hyphens.
    normal: String,
}

/// Whether an unknown name in a map resembles a known one. A Secret may contain keys of its
/// database with the same prefixes (`etcd-root-password`). Quick, since a file may have as many
/// names as fit into it.
pub(super) fn in_a_map(name: &str, in_a_secret: bool) -> Option<Typo> {
    let normal = normal(name);
    let prefixed = OUR_PREFIXES.iter().any(|prefix| normal.starts_with(prefix));
    let resembles = prefixed && !in_a_secret
        || begins_one(&normal).is_some()
        || keys().any(|key| is_near(&normal, key));
    resembles.then_some(Typo { normal })
}

impl Typo {
    /// What is wrong with the name, and which ones there are.
    pub(super) fn complaint(&self) -> String {
        let prefix = self.normal.split_once('-').map_or("", |(prefix, _)| prefix);
        match nearest(&self.normal) {
            Some((nearest, 0..=TYPO)) => format!("is no key; did you mean {nearest}?"),
            Some((nearest, distance)) => unknown(prefix, nearest, distance),
            None => format!("is no key; none has more than {LONGEST} letters"),
        }
    }
}

/// The complaint about an unknown key that was set explicitly.
pub(super) fn explicit(name: &str) -> String {
    match in_a_map(name, false) {
        Some(typo) => typo.complaint(),
        None => match nearest(&normal(name)) {
            Some((nearest, distance)) => unknown("concurrency", nearest, distance),
            None => format!("is no key; none has more than {LONGEST} letters"),
        },
    }
}

/// The complaint about an unknown variable, if it resembles a known one.
pub(super) fn in_the_environment(variable: &str) -> Option<String> {
    let ours = variable
        .strip_prefix("PAC_")
        .is_some_and(|rest| rest.starts_with("POSTGRESQL_") || rest.starts_with("CONCURRENCY_"))
        || variable.starts_with("PAC_ETCD_");
    if variable.len() > LONGEST {
        return ours.then(|| format!("is no setting; none has more than {LONGEST} letters"));
    }
    let nearest = Key::all()
        .iter()
        .flat_map(|key| key.variables())
        .map(|ours| (osa_distance(variable, &ours), ours))
        .min()?;
    match nearest {
        (distance, name) if distance <= TYPO && variable.len() > 8 => {
            Some(format!("is no setting; did you mean {name}?"))
        }
        (_, name) if ours => Some(format!("is no setting; the nearest one is {name}")),
        _ => None,
    }
}

fn normal(name: &str) -> String {
    name.to_ascii_lowercase().replace(['_', '.'], "-")
}

fn keys() -> impl Iterator<Item = &'static str> {
    Key::all().iter().map(|key| key.name())
}

/// Whether so few letters are wrong that it is a typo.
fn is_near(normal: &str, key: &str) -> bool {
    // The distance is at least the difference of the lengths; this is a thousand times as quick.
    normal.len() <= key.len() + TYPO * char::MAX.len_utf8()
        && normal.chars().count().abs_diff(key.len()) <= TYPO
        && osa_distance(normal, key) <= TYPO
}

/// The only key that begins with the name, as for `etcd-cert`.
fn begins_one(normal: &str) -> Option<&'static str> {
    let mut longer = keys().filter(|name| normal.contains('-') && name.starts_with(normal));
    match (longer.next(), longer.next()) {
        (Some(only), None) => Some(only),
        _ => None,
    }
}

/// The nearest key with its distance: the only one that begins with the name, or the one with
/// the fewest other letters. `None` for a name longer than any that resembles a key.
fn nearest(normal: &str) -> Option<(&'static str, usize)> {
    if let Some(only) = begins_one(normal) {
        return Some((only, 1));
    }
    if normal.len() > LONGEST {
        return None;
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
            let complaint = in_a_map(name, false).unwrap().complaint();
            assert_eq!(complaint, format!("is no key; did you mean {nearest}?"));
        }
        let far = in_a_map("concurrency-something-entirely-different", false);
        let far = far.unwrap().complaint();
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
            assert!(in_a_map(name, false).is_none(), "{name}");
            assert!(in_a_map(name, true).is_none(), "{name}");
        }
        assert!(in_a_map("etcd-root-password", true).is_none());
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
