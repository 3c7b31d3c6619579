//! All keys, with their names, variables and defaults.

use super::DriverKind;

/// A key of the settings.
///
/// In a ConfigMap, a Secret or a plain map it goes by its [name](Key::name); in the environment
/// by its [variables](Key::variables).
#[derive(Debug, PartialEq, Eq)]
pub struct Key {
    name: &'static str,
    /// The variable's name in etcd's own tools and in the guides.
    usual_variable: Option<&'static str>,
    default: Option<&'static str>,
    driver: Option<DriverKind>,
    secret: bool,
}

impl Key {
    /// All keys; related ones are next to each other.
    #[must_use]
    pub fn all() -> &'static [&'static Self] {
        &ALL
    }

    /// Its name in a ConfigMap or a Secret: `postgresql-host`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its environment variables, in order of precedence: `PAC_ETCD_ENDPOINTS`,
    /// `ETCD_ENDPOINTS`.
    pub fn variables(&self) -> impl Iterator<Item = String> {
        let own = format!("PAC_{}", self.name.to_ascii_uppercase().replace('-', "_"));
        [Some(own), self.usual_variable.map(str::to_owned)]
            .into_iter()
            .flatten()
    }

    /// The value if no source sets the key.
    #[must_use]
    pub fn default(&self) -> Option<&'static str> {
        self.default
    }

    /// The driver that uses the key; `None` if it applies to all.
    #[must_use]
    pub fn driver(&self) -> Option<DriverKind> {
        self.driver
    }

    /// Whether the value must never be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.secret
    }

    /// Whether the value names a file.
    pub(super) fn is_file(&self) -> bool {
        self.name.ends_with("-file")
    }

    pub(super) fn named(name: &str) -> Option<&'static Self> {
        ALL.into_iter().find(|key| key.name == name)
    }

    const fn general(name: &'static str) -> Self {
        Self {
            name,
            usual_variable: None,
            default: None,
            driver: None,
            secret: false,
        }
    }

    const fn of(driver: DriverKind, name: &'static str) -> Self {
        Self {
            driver: Some(driver),
            ..Self::general(name)
        }
    }

    const fn postgresql(name: &'static str) -> Self {
        Self::of(DriverKind::Postgresql, name)
    }

    const fn etcd(name: &'static str, usual_variable: &'static str) -> Self {
        Self {
            usual_variable: Some(usual_variable),
            ..Self::of(DriverKind::Etcd, name)
        }
    }

    const fn or(self, default: &'static str) -> Self {
        Self {
            default: Some(default),
            ..self
        }
    }

    const fn secret(self) -> Self {
        Self {
            secret: true,
            ..self
        }
    }
}

static ALL: [&Key; 38] = [
    &CONCURRENCY_ENABLED,
    &CONCURRENCY_DRIVER,
    &CONCURRENCY_SESSION_TTL,
    &CONCURRENCY_MIGRATE_STATE,
    &CONCURRENCY_IDENTITY,
    &POSTGRESQL_URL,
    &POSTGRESQL_HOST,
    &POSTGRESQL_PORT,
    &POSTGRESQL_DATABASE,
    &POSTGRESQL_USERNAME,
    &POSTGRESQL_PASSWORD,
    &POSTGRESQL_PASSWORD_FILE,
    &POSTGRESQL_SSL_MODE,
    &POSTGRESQL_AUTHENTICATION,
    &POSTGRESQL_CA_FILE,
    &POSTGRESQL_CERT_FILE,
    &POSTGRESQL_KEY_FILE,
    &POSTGRESQL_SCHEMA,
    &POSTGRESQL_MIGRATE,
    &POSTGRESQL_APPLICATION_NAME,
    &POSTGRESQL_MAX_CONNECTIONS,
    &POSTGRESQL_CONNECTION_TIMEOUT,
    &POSTGRESQL_LEASE_TTL,
    &ETCD_ENABLED,
    &ETCD_MODE,
    &ETCD_ENDPOINTS,
    &ETCD_USERNAME,
    &ETCD_PASSWORD,
    &ETCD_PASSWORD_FILE,
    &ETCD_CA_FILE,
    &ETCD_CERT_FILE,
    &ETCD_KEY_FILE,
    &ETCD_SERVER_NAME,
    &ETCD_PREFIX,
    &ETCD_DIAL_TIMEOUT,
    &ETCD_LEASE_TTL,
    &ETCD_COMPACTION,
    &MEMORY_LEASE_TTL,
];

pub(super) static CONCURRENCY_ENABLED: Key = Key::general("concurrency-enabled");
pub(super) static CONCURRENCY_DRIVER: Key = Key::general("concurrency-driver");
pub(super) static CONCURRENCY_SESSION_TTL: Key = Key::general("concurrency-session-ttl").or("15s");
pub(super) static CONCURRENCY_MIGRATE_STATE: Key =
    Key::general("concurrency-migrate-state").or("true");

/// Without it, it is made of the process.
pub(super) static CONCURRENCY_IDENTITY: Key = Key::general("concurrency-identity");

/// Stands for several of the others.
pub(super) static POSTGRESQL_URL: Key = Key::postgresql("postgresql-url").secret();
pub(super) static POSTGRESQL_HOST: Key = Key::postgresql("postgresql-host");
pub(super) static POSTGRESQL_PORT: Key = Key::postgresql("postgresql-port").or("5432");
pub(super) static POSTGRESQL_DATABASE: Key =
    Key::postgresql("postgresql-database").or("pac_concurrency");
pub(super) static POSTGRESQL_USERNAME: Key = Key::postgresql("postgresql-username").or("pac_user");
pub(super) static POSTGRESQL_PASSWORD: Key = Key::postgresql("postgresql-password").secret();
pub(super) static POSTGRESQL_PASSWORD_FILE: Key = Key::postgresql("postgresql-password-file");
pub(super) static POSTGRESQL_SSL_MODE: Key = Key::postgresql("postgresql-ssl-mode").or("require");
/// Without it, the SSL mode decides.
pub(super) static POSTGRESQL_AUTHENTICATION: Key = Key::postgresql("postgresql-authentication");
pub(super) static POSTGRESQL_CA_FILE: Key = Key::postgresql("postgresql-ca-file");
pub(super) static POSTGRESQL_CERT_FILE: Key = Key::postgresql("postgresql-cert-file");
pub(super) static POSTGRESQL_KEY_FILE: Key = Key::postgresql("postgresql-key-file");
pub(super) static POSTGRESQL_SCHEMA: Key = Key::postgresql("postgresql-schema").or("pac");
pub(super) static POSTGRESQL_MIGRATE: Key = Key::postgresql("postgresql-migrate").or("new");
/// Without it, it is the identity.
pub(super) static POSTGRESQL_APPLICATION_NAME: Key = Key::postgresql("postgresql-application-name");
pub(super) static POSTGRESQL_MAX_CONNECTIONS: Key =
    Key::postgresql("postgresql-max-connections").or("10");
pub(super) static POSTGRESQL_CONNECTION_TIMEOUT: Key =
    Key::postgresql("postgresql-connection-timeout").or("30s");
pub(super) static POSTGRESQL_LEASE_TTL: Key = Key::postgresql("postgresql-lease-ttl").or("1h");

/// Older than `concurrency-driver`, and used only if that is not set.
pub(super) static ETCD_ENABLED: Key = Key::of(DriverKind::Etcd, "etcd-enabled");
pub(super) static ETCD_MODE: Key = Key::of(DriverKind::Etcd, "etcd-mode").or("etcd");
pub(super) static ETCD_ENDPOINTS: Key = Key::etcd("etcd-endpoints", "ETCD_ENDPOINTS");
pub(super) static ETCD_USERNAME: Key = Key::etcd("etcd-username", "ETCD_USERNAME");
pub(super) static ETCD_PASSWORD: Key = Key::etcd("etcd-password", "ETCD_PASSWORD").secret();
pub(super) static ETCD_PASSWORD_FILE: Key = Key::etcd("etcd-password-file", "ETCD_PASSWORD_FILE");
pub(super) static ETCD_CA_FILE: Key = Key::etcd("etcd-ca-file", "ETCD_CA_FILE");
pub(super) static ETCD_CERT_FILE: Key = Key::etcd("etcd-cert-file", "ETCD_CERT_FILE");
pub(super) static ETCD_KEY_FILE: Key = Key::etcd("etcd-key-file", "ETCD_KEY_FILE");
pub(super) static ETCD_SERVER_NAME: Key = Key::etcd("etcd-server-name", "ETCD_SERVER_NAME");
pub(super) static ETCD_PREFIX: Key = Key::of(DriverKind::Etcd, "etcd-prefix").or("/pac/v1/");
pub(super) static ETCD_DIAL_TIMEOUT: Key =
    Key::etcd("etcd-dial-timeout", "ETCD_DIAL_TIMEOUT").or("5s");
pub(super) static ETCD_LEASE_TTL: Key = Key::of(DriverKind::Etcd, "etcd-lease-ttl").or("1h");
pub(super) static ETCD_COMPACTION: Key = Key::of(DriverKind::Etcd, "etcd-compaction").or("off");

pub(super) static MEMORY_LEASE_TTL: Key = Key::of(DriverKind::Memory, "memory-lease-ttl").or("30m");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_its_own_names() {
        let mut names: Vec<String> = Vec::new();
        for key in Key::all() {
            assert_eq!(Key::named(key.name()), Some(*key));
            names.push(key.name().to_owned());
            names.extend(key.variables());
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn every_name_of_the_guides_is_a_variable() {
        let variables: Vec<String> = Key::all().iter().flat_map(|key| key.variables()).collect();
        for name in [
            "PAC_ETCD_ENABLED",
            "PAC_ETCD_MODE",
            "PAC_POSTGRESQL_HOST",
            "ETCD_ENDPOINTS",
            "ETCD_DIAL_TIMEOUT",
            "ETCD_USERNAME",
            "ETCD_PASSWORD",
            "ETCD_CERT_FILE",
            "ETCD_KEY_FILE",
            "ETCD_CA_FILE",
            "ETCD_SERVER_NAME",
        ] {
            assert!(variables.iter().any(|variable| variable == name), "{name}");
        }
    }
}
