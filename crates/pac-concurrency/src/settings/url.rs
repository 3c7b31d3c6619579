//! A connection URL of PostgreSQL, taken apart into the keys that it stands for.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::key::{self, Key};
use super::parse::Parsed;

/// The parameters that libpq knows by these names too, and the keys that they stand for.
const PARAMETERS: [(&str, &Key); 10] = [
    ("host", &key::POSTGRESQL_HOST),
    ("port", &key::POSTGRESQL_PORT),
    ("dbname", &key::POSTGRESQL_DATABASE),
    ("user", &key::POSTGRESQL_USERNAME),
    ("password", &key::POSTGRESQL_PASSWORD),
    ("sslmode", &key::POSTGRESQL_SSL_MODE),
    ("sslrootcert", &key::POSTGRESQL_CA_FILE),
    ("sslcert", &key::POSTGRESQL_CERT_FILE),
    ("sslkey", &key::POSTGRESQL_KEY_FILE),
    ("application_name", &key::POSTGRESQL_APPLICATION_NAME),
];

/// Reads `postgres://user:password@host:port,host:port/database?sslmode=verify-full`, as libpq
/// defines it: every part may be missing, and what is special in it is percent-encoded. No error
/// repeats a part of it.
pub(super) fn postgresql(text: &str) -> Parsed<Vec<(&'static Key, String)>> {
    let rest = ["postgres://", "postgresql://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme))
        .ok_or("is no URL of PostgreSQL; it starts with postgres:// or postgresql://")?;
    let (address, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = address.split_once('/').unwrap_or((address, ""));
    if database.contains(['/', '@']) {
        return Err(
            "has a part that is not percent-encoded; write %2F for / and %40 for @ in the \
                    password"
                .into(),
        );
    }
    let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let mut parts = Vec::new();
    let mut of_the_system = false;
    for (key, part) in [
        (&key::POSTGRESQL_HOST, hosts),
        (&key::POSTGRESQL_DATABASE, database),
        (&key::POSTGRESQL_USERNAME, user),
        (&key::POSTGRESQL_PASSWORD, password),
    ] {
        add(&mut parts, key, part)?;
    }
    for parameter in parameters.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = parameter
            .split_once('=')
            .ok_or("has a parameter without a value; write name=value after the ?")?;
        match (name, value) {
            ("sslrootcert", "system") => of_the_system = true,
            // libpq's other values ask for less than is asked for without them.
            ("channel_binding", "require") => {
                let known = &key::POSTGRESQL_AUTHENTICATION;
                add(&mut parts, known, "channel-binding")?;
            }
            ("channel_binding", _) => {
                return Err(
                    "has channel_binding with another value than require; leave it out, and \
                            set postgresql-authentication where the server cannot do that"
                        .into(),
                );
            }
            ("connect_timeout", seconds) => {
                let known = &key::POSTGRESQL_CONNECTION_TIMEOUT;
                add(&mut parts, known, &format!("{seconds}s"))?;
            }
            _ => {
                let known = PARAMETERS.iter().find(|(known, _)| *known == name);
                let (_, key) = known.ok_or(
                    "has a parameter that is not known; those that are: host, port, dbname, user, \
                     password, sslmode, sslrootcert, sslcert, sslkey, application_name, \
                     channel_binding, connect_timeout",
                )?;
                add(&mut parts, key, value)?;
            }
        }
    }
    if of_the_system {
        let mode = parts
            .iter()
            .find(|(key, _)| *key == &key::POSTGRESQL_SSL_MODE);
        match mode.map(|(_, mode)| mode.as_str()) {
            Some("verify-full") => {}
            None => add(&mut parts, &key::POSTGRESQL_SSL_MODE, "verify-full")?,
            Some(_) => return Err("has sslrootcert=system without sslmode=verify-full".into()),
        }
    }
    Ok(parts)
}

fn add(parts: &mut Vec<(&'static Key, String)>, key: &'static Key, text: &str) -> Parsed<()> {
    if text.is_empty() {
        return Ok(());
    }
    if parts.iter().any(|(known, _)| *known == key) {
        return Err(Cow::Borrowed("names a part twice; keep one of them"));
    }
    let decoded = percent_decode_str(text).decode_utf8();
    let decoded = decoded.map_err(|_| "is not UTF-8 once its percent-encoding is undone")?;
    parts.push((key, decoded.into_owned()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<(&'static str, String)> {
        let parts = postgresql(text).unwrap();
        parts
            .into_iter()
            .map(|(key, part)| (key.name(), part))
            .collect()
    }

    #[test]
    fn every_part_goes_to_its_key() {
        let all = "postgres://me:p%40ss%2Fw@a:5433,[::1]:5434/d?sslmode=verify-full\
                   &sslrootcert=/ca.pem&connect_timeout=8&sslcert=c&sslkey=k\
                   &channel_binding=require&application_name=batch%201";
        let expected = [
            ("postgresql-host", "a:5433,[::1]:5434"),
            ("postgresql-database", "d"),
            ("postgresql-username", "me"),
            ("postgresql-password", "p@ss/w"),
            ("postgresql-ssl-mode", "verify-full"),
            ("postgresql-ca-file", "/ca.pem"),
            ("postgresql-connection-timeout", "8s"),
            ("postgresql-cert-file", "c"),
            ("postgresql-key-file", "k"),
            ("postgresql-authentication", "channel-binding"),
            ("postgresql-application-name", "batch 1"),
        ];
        assert_eq!(
            parts(all),
            expected.map(|(key, part)| (key, part.to_owned()))
        );
        let socket = "postgresql://%2Frun%2Fpostgresql/d?sslrootcert=system";
        assert_eq!(
            parts(socket)[0],
            ("postgresql-host", "/run/postgresql".to_owned())
        );
        let verified = ("postgresql-ssl-mode", "verify-full".to_owned());
        assert_eq!(parts(socket)[2], verified);
        assert_eq!(parts(socket).len(), 3);
        assert_eq!(parts("postgres://"), []);
    }

    #[test]
    fn what_is_wrong_is_said_without_repeating_it() {
        for (text, rule) in [
            ("mysql://hunter2@db", "starts with postgres://"),
            ("postgres://db?hunter2", "name=value"),
            ("postgres://db?hunter2=1", "not known"),
            ("postgres://a/d?host=hunter2", "twice"),
            ("postgres://db?channel_binding=hunter2", "require"),
            ("postgres://hunter2%ff@db", "UTF-8"),
            ("postgres://me:hunter2/2@db/x", "percent-encoded"),
            (
                "postgres://db?sslmode=require&sslrootcert=system",
                "verify-full",
            ),
        ] {
            let error = postgresql(text).unwrap_err();
            assert!(
                error.contains(rule) && !error.contains("hunter2"),
                "{error}"
            );
        }
    }
}
