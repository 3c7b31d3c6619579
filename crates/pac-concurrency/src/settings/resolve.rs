//! Converts the values found to settings, and checks all rules.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use pac_core::file;

use super::duration;
use super::found::Findings;
use super::key::{self, Key};
use super::parse;
use super::problem::SettingsError;
use super::reader::Reader;
use super::values::{
    Authentication, EtcdMode, EtcdValues, Migrate, PostgresqlValues, SslMode, Values,
};
use super::{DriverKind, EffectiveSetting, LoadedSettings, Password};

/// The shortest lease that etcd grants with its default election timeout.
const ETCD_SESSION_TTL: Duration = Duration::from_secs(2);

/// Larger than any certificate or key: all authorities of the web together are less than half of
/// it.
const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// Reads every key, whichever driver is selected, and checks the rules across keys for the
/// selected driver.
pub(super) fn resolve(
    findings: Findings,
    look_at_files: bool,
) -> Result<LoadedSettings, SettingsError> {
    let mut reader = Reader::choose(findings);
    let (values, decided_by) = values(&mut reader);
    pairs(&mut reader);
    if values.enabled {
        session(&mut reader, &values);
        match values.driver {
            DriverKind::Memory => {}
            DriverKind::Etcd => match values.etcd.mode {
                EtcdMode::Etcd => etcd(&mut reader, &values.etcd, look_at_files),
                EtcdMode::Mock => mock(&mut reader),
            },
            DriverKind::Postgresql => postgresql(&mut reader, &values.postgresql, look_at_files),
        }
    }
    let effective = effective(&reader, &values, decided_by);
    match reader.error() {
        Some(error) => Err(error),
        None => Ok(LoadedSettings { values, effective }),
    }
}

/// Reads all values; also returns the key that decided on `enabled` and `driver`. A wrong value
/// is recorded as a problem and replaced by any valid one, which is never used.
fn values(reader: &mut Reader) -> (Values, &'static Key) {
    let enabled = reader.value(&key::CONCURRENCY_ENABLED, parse::boolean);
    let named = reader.value(&key::CONCURRENCY_DRIVER, parse::driver);
    let etcd_enabled = reader.value(&key::ETCD_ENABLED, parse::boolean);
    let migrate_state = reader.value(&key::CONCURRENCY_MIGRATE_STATE, parse::boolean);
    let identity = reader.value(&key::CONCURRENCY_IDENTITY, parse::identity);
    let etcd = etcd_values(reader);
    let is_named = reader.is_set(&key::CONCURRENCY_DRIVER);
    let chosen = match etcd_enabled {
        Some(true) if !is_named => Some(DriverKind::Etcd),
        _ => named,
    };
    // If the value is wrong, that is recorded; still check what the settings would mean without
    // it.
    let enabled = enabled.unwrap_or(chosen.is_some());
    if enabled && chosen.is_none() && !is_named {
        let message = "is not set; choose etcd, postgresql or memory, or set \
                       concurrency-enabled to false";
        reader.problem(&key::CONCURRENCY_DRIVER, message);
    }
    let driver = chosen.unwrap_or(DriverKind::Memory);
    let decided_by = match is_named || etcd_enabled.is_none() {
        true => &key::CONCURRENCY_DRIVER,
        false => &key::ETCD_ENABLED,
    };
    let values = Values {
        enabled: enabled && chosen.is_some(),
        driver,
        session_ttl: duration(reader, &key::CONCURRENCY_SESSION_TTL, parse::session_ttl),
        migrate_state: migrate_state.unwrap_or(true),
        identity,
        postgresql: postgresql_values(reader),
        etcd,
        memory_lease_ttl: duration(reader, &key::MEMORY_LEASE_TTL, parse::lease_ttl),
    };
    (values, decided_by)
}

fn postgresql_values(reader: &mut Reader) -> PostgresqlValues {
    let ssl_mode = reader.value(&key::POSTGRESQL_SSL_MODE, parse::ssl_mode);
    let migrate = reader.value(&key::POSTGRESQL_MIGRATE, parse::migrate);
    let max_connections = reader.value(&key::POSTGRESQL_MAX_CONNECTIONS, parse::connections);
    PostgresqlValues {
        hosts: reader
            .value(&key::POSTGRESQL_HOST, parse::hosts)
            .unwrap_or_default(),
        port: reader
            .value(&key::POSTGRESQL_PORT, parse::port)
            .unwrap_or_default(),
        database: reader
            .value(&key::POSTGRESQL_DATABASE, parse::postgresql_name)
            .unwrap_or_default(),
        username: reader
            .value(&key::POSTGRESQL_USERNAME, parse::postgresql_name)
            .unwrap_or_default(),
        password: reader.password(&key::POSTGRESQL_PASSWORD, &key::POSTGRESQL_PASSWORD_FILE),
        ssl_mode: ssl_mode.unwrap_or(SslMode::Require),
        authentication: reader.value(&key::POSTGRESQL_AUTHENTICATION, parse::authentication),
        ca_file: reader.file(&key::POSTGRESQL_CA_FILE),
        cert_file: reader.file(&key::POSTGRESQL_CERT_FILE),
        key_file: reader.file(&key::POSTGRESQL_KEY_FILE),
        schema: reader
            .value(&key::POSTGRESQL_SCHEMA, parse::schema)
            .unwrap_or_default(),
        migrate: migrate.unwrap_or(Migrate::New),
        application_name: reader.value(&key::POSTGRESQL_APPLICATION_NAME, parse::postgresql_name),
        max_connections: max_connections.unwrap_or(NonZeroU32::MIN),
        connection_timeout: duration(reader, &key::POSTGRESQL_CONNECTION_TIMEOUT, parse::timeout),
        lease_ttl: duration(reader, &key::POSTGRESQL_LEASE_TTL, parse::lease_ttl),
    }
}

fn etcd_values(reader: &mut Reader) -> EtcdValues {
    EtcdValues {
        mode: etcd_mode(reader),
        is_mode_named: reader.is_set(&key::ETCD_MODE),
        endpoints: reader
            .value(&key::ETCD_ENDPOINTS, parse::endpoints)
            .unwrap_or_default(),
        username: reader.value(&key::ETCD_USERNAME, parse::line),
        password: reader.password(&key::ETCD_PASSWORD, &key::ETCD_PASSWORD_FILE),
        ca_file: reader.file(&key::ETCD_CA_FILE),
        cert_file: reader.file(&key::ETCD_CERT_FILE),
        key_file: reader.file(&key::ETCD_KEY_FILE),
        server_name: reader.value(&key::ETCD_SERVER_NAME, parse::server_name),
        prefix: reader
            .value(&key::ETCD_PREFIX, parse::prefix)
            .unwrap_or_default(),
        dial_timeout: duration(reader, &key::ETCD_DIAL_TIMEOUT, parse::dial_timeout),
        lease_ttl: duration(reader, &key::ETCD_LEASE_TTL, parse::lease_ttl),
        compaction: reader
            .value(&key::ETCD_COMPACTION, parse::compaction)
            .unwrap_or_default(),
    }
}

/// The mode that is set, or else the one that the other settings and this build suggest.
fn etcd_mode(reader: &mut Reader) -> EtcdMode {
    let named = reader.value(&key::ETCD_MODE, parse::etcd_mode);
    if reader.is_set(&key::ETCD_MODE) {
        return named.unwrap_or(EtcdMode::Etcd);
    }
    if cfg!(feature = "mock") && !reader.is_set(&key::ETCD_ENDPOINTS) {
        EtcdMode::Mock
    } else {
        EtcdMode::Etcd
    }
}

/// Reads a duration; zero if it is wrong.
fn duration(
    reader: &mut Reader,
    key: &'static Key,
    parse: fn(&str) -> parse::Parsed<Duration>,
) -> Duration {
    reader.value(key, parse).unwrap_or_default()
}

/// Checks keys that must be set together.
fn pairs(reader: &mut Reader) {
    for (one, other) in [
        (&key::POSTGRESQL_CERT_FILE, &key::POSTGRESQL_KEY_FILE),
        (&key::ETCD_CERT_FILE, &key::ETCD_KEY_FILE),
    ] {
        for (there, missing) in [(one, other), (other, one)] {
            if reader.is_set(there) && !reader.is_set(missing) {
                let message = format!(
                    "is set without {}; a client certificate takes both",
                    missing.name()
                );
                reader.problem(there, message);
            }
        }
    }
}

fn session(reader: &mut Reader, values: &Values) {
    let (session, lease) = (values.session_ttl, values.lease_ttl());
    let key = match values.driver {
        DriverKind::Memory => &key::MEMORY_LEASE_TTL,
        DriverKind::Etcd => &key::ETCD_LEASE_TTL,
        DriverKind::Postgresql => &key::POSTGRESQL_LEASE_TTL,
    };
    if !lease.is_zero() && session > lease {
        let message = format!(
            "{} is longer than {} ({}, from {}); a slot must outlive a session",
            duration::format(session),
            key.name(),
            duration::format(lease),
            reader.source(key)
        );
        reader.problem(&key::CONCURRENCY_SESSION_TTL, message);
    }
    let too_short = !session.is_zero() && session < ETCD_SESSION_TTL;
    if values.driver == DriverKind::Etcd && too_short {
        let message = format!(
            "{} is too short for etcd, whose leases last for 2s at least",
            duration::format(session)
        );
        reader.problem(&key::CONCURRENCY_SESSION_TTL, message);
    }
}

fn postgresql(reader: &mut Reader, values: &PostgresqlValues, look_at_files: bool) {
    if !reader.is_set(&key::POSTGRESQL_HOST) {
        let message = "is not set; the driver postgresql needs at least one";
        reader.problem(&key::POSTGRESQL_HOST, message);
    }
    match values.ssl_mode {
        SslMode::VerifyCa if values.ca_file.is_none() => {
            let message = format!(
                "verify-ca needs {}, the certificate authority to trust; or choose verify-full, \
                 which takes those that this system trusts where no file is named",
                key::POSTGRESQL_CA_FILE.name()
            );
            reader.problem(&key::POSTGRESQL_SSL_MODE, message);
        }
        SslMode::Disable if values.ca_file.is_some() || values.cert_file.is_some() => {
            let message = "disable goes without certificates; choose verify-full, or take the \
                           files out";
            reader.problem(&key::POSTGRESQL_SSL_MODE, message);
        }
        _ => {}
    }
    let bound = values.authentication == Some(Authentication::ChannelBinding);
    if values.ssl_mode == SslMode::Disable && bound {
        let message = "channel-binding needs TLS, and postgresql-ssl-mode is disable; choose scram, or \
                       another SSL mode";
        reader.problem(&key::POSTGRESQL_AUTHENTICATION, message);
    }
    if look_at_files {
        let password = values.password.as_ref();
        password_file(reader, &key::POSTGRESQL_PASSWORD_FILE, password);
        pem(
            reader,
            &key::POSTGRESQL_CA_FILE,
            values.ca_file.as_ref(),
            CERTIFICATE,
        );
        pem(
            reader,
            &key::POSTGRESQL_CERT_FILE,
            values.cert_file.as_ref(),
            CERTIFICATE,
        );
        pem(
            reader,
            &key::POSTGRESQL_KEY_FILE,
            values.key_file.as_ref(),
            KEY,
        );
    }
}

fn etcd(reader: &mut Reader, values: &EtcdValues, look_at_files: bool) {
    if !reader.is_set(&key::ETCD_ENDPOINTS) {
        let message = "is not set; the driver etcd needs at least one, such as etcd:2379";
        reader.problem(&key::ETCD_ENDPOINTS, message);
    }
    let has_password =
        reader.is_set(&key::ETCD_PASSWORD) || reader.is_set(&key::ETCD_PASSWORD_FILE);
    match (reader.is_set(&key::ETCD_USERNAME), has_password) {
        (true, false) => {
            let message = "is set without etcd-password; give both, or none";
            reader.problem(&key::ETCD_USERNAME, message);
        }
        (false, true) => {
            let message = "is not set, but a password is; give both, or none";
            reader.problem(&key::ETCD_USERNAME, message);
        }
        _ => {}
    }
    let with_ca = reader.is_set(&key::ETCD_CA_FILE);
    for key in [&key::ETCD_CERT_FILE, &key::ETCD_SERVER_NAME] {
        if reader.is_set(key) && !values.uses_tls() {
            let message = "is set without TLS; set etcd-ca-file, the certificate authority to \
                           trust, or write the endpoints with https://";
            reader.problem(key, message);
        }
    }
    let is = |scheme: &str| values.endpoints.iter().any(|e| e.starts_with(scheme));
    if is("http://") && with_ca {
        let message = "http does not go with etcd-ca-file; write https, or take the file out";
        reader.problem(&key::ETCD_ENDPOINTS, message);
    } else if is("http://") && is("https://") {
        let message = "http and https do not go together; write all with https";
        reader.problem(&key::ETCD_ENDPOINTS, message);
    }
    if look_at_files {
        password_file(reader, &key::ETCD_PASSWORD_FILE, values.password.as_ref());
        pem(
            reader,
            &key::ETCD_CA_FILE,
            values.ca_file.as_ref(),
            CERTIFICATE,
        );
        pem(
            reader,
            &key::ETCD_CERT_FILE,
            values.cert_file.as_ref(),
            CERTIFICATE,
        );
        pem(reader, &key::ETCD_KEY_FILE, values.key_file.as_ref(), KEY);
    }
}

fn mock(reader: &mut Reader) {
    if !cfg!(feature = "mock") {
        let message = "mock is not compiled in: it keeps nothing, and is for tests; write etcd, or \
                       enable the feature `mock` of the crate pac-concurrency";
        reader.problem(&key::ETCD_MODE, message);
    }
}

const CERTIFICATE: (&str, &str) = ("CERTIFICATE-----", "certificate");
const KEY: (&str, &str) = ("PRIVATE KEY-----", "private key");

fn password_file(reader: &mut Reader, key: &'static Key, password: Option<&Password>) {
    let Some(path) = password.and_then(Password::file) else {
        return;
    };
    // A mounted Secret's file was checked when it was found.
    if let (true, Err(reason)) = (reader.is_set(key), file::read_password(path)) {
        reader.problem(key, format!("{}: {reason}", file::shown(path)));
    }
}

/// Checks that the file contains PEM of the right kind. TLS checks the content later.
fn pem(reader: &mut Reader, key: &'static Key, path: Option<&PathBuf>, (mark, what): (&str, &str)) {
    let Some(path) = path else {
        return;
    };
    match file::read(path, MAX_PEM_BYTES) {
        Err(reason) => reader.problem(key, format!("{}: {reason}", file::shown(path))),
        Ok(text) if !text.contains("-----BEGIN ") || !text.contains(mark) => {
            let message = format!("{}: holds no {what} in PEM", file::shown(path));
            reader.problem(key, message);
        }
        Ok(_) => {}
    }
}

/// What stands where no file of authorities is named.
const OF_THE_SYSTEM: &str = "(the authorities that this system trusts)";

/// What stands where no authentication is named.
const OF_THE_SSL_MODE: &str = "(what postgresql-ssl-mode calls for)";

/// What stands where no identity is named.
const OF_THE_PROCESS: &str = "(the program, host and pid of each process)";

/// What stands where connections have no name of their own.
const THE_IDENTITY: &str = "(as concurrency-identity)";

fn effective(reader: &Reader, values: &Values, decided_by: &'static Key) -> Vec<EffectiveSetting> {
    let mut effective = Vec::new();
    for key in Key::all() {
        let mut source = reader.source(key);
        let (value, is_shown) = match () {
            () if **key == key::CONCURRENCY_ENABLED => {
                if !reader.is_set(key) {
                    source = reader.source(decided_by);
                }
                (values.enabled.to_string(), true)
            }
            () if **key == key::CONCURRENCY_DRIVER && values.enabled => {
                source = reader.source(decided_by);
                (values.driver.to_string(), true)
            }
            () if **key == key::ETCD_MODE => {
                if !reader.is_set(key) && reader.is_set(&key::ETCD_ENDPOINTS) {
                    source = reader.source(&key::ETCD_ENDPOINTS);
                }
                (values.etcd.mode.to_string(), true)
            }
            () if **key == key::POSTGRESQL_CA_FILE
                && !reader.is_set(key)
                && values.postgresql.ssl_mode == SslMode::VerifyFull =>
            {
                source = reader.source(&key::POSTGRESQL_SSL_MODE);
                (OF_THE_SYSTEM.to_owned(), false)
            }
            () if **key == key::POSTGRESQL_AUTHENTICATION && !reader.is_set(key) => {
                source = reader.source(&key::POSTGRESQL_SSL_MODE);
                (OF_THE_SSL_MODE.to_owned(), false)
            }
            () if **key == key::CONCURRENCY_IDENTITY && !reader.is_set(key) => {
                (OF_THE_PROCESS.to_owned(), false)
            }
            () if **key == key::POSTGRESQL_APPLICATION_NAME && !reader.is_set(key) => {
                (THE_IDENTITY.to_owned(), false)
            }
            () if **key == key::ETCD_CA_FILE && !reader.is_set(key) && values.etcd.uses_tls() => {
                source = reader.source(&key::ETCD_ENDPOINTS);
                (OF_THE_SYSTEM.to_owned(), false)
            }
            () => match reader.shown(key) {
                Some(shown) => shown,
                None => continue,
            },
        };
        effective.push(EffectiveSetting {
            key,
            value,
            is_shown,
            source,
            used: match key.driver() {
                None => true,
                Some(driver) => values.enabled && driver == values.driver,
            },
        });
    }
    effective
}
