//! Parses the text of one value to its type. An error is the end of a sentence that begins with
//! the value.

use std::borrow::Cow;
use std::net::Ipv6Addr;
use std::num::NonZeroU32;
use std::time::Duration;

use pac_core::SessionIdentity;

use super::DriverKind;
use super::duration::{self, DurationError};
use super::values::{Authentication, EtcdMode, Host, Migrate, SslMode};

/// The rule that a value breaks, and the cure. A borrowed text repeats nothing of the value.
pub(super) type Refusal = Cow<'static, str>;
pub(super) type Parsed<T> = Result<T, Refusal>;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// PostgreSQL silently cuts a name off after this many bytes.
const POSTGRESQL_NAME: usize = 63;

pub(super) fn boolean(text: &str) -> Parsed<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err("is neither true nor false".into()),
    }
}

pub(super) fn driver(text: &str) -> Parsed<DriverKind> {
    text.parse()
        .map_err(|_| "is no driver; choose etcd, postgresql or memory".into())
}

pub(super) fn etcd_mode(text: &str) -> Parsed<EtcdMode> {
    match text {
        "etcd" => Ok(EtcdMode::Etcd),
        // The older name.
        "mock" | "memory" => Ok(EtcdMode::Mock),
        _ => Err("is no mode; choose etcd, mock or memory".into()),
    }
}

pub(super) fn migrate(text: &str) -> Parsed<Migrate> {
    match text {
        "never" => Ok(Migrate::Never),
        "new" => Ok(Migrate::New),
        "always" => Ok(Migrate::Always),
        _ => Err("is none of never, new and always".into()),
    }
}

pub(super) fn ssl_mode(text: &str) -> Parsed<SslMode> {
    match text {
        "disable" => Ok(SslMode::Disable),
        "require" => Ok(SslMode::Require),
        "verify-ca" => Ok(SslMode::VerifyCa),
        "verify-full" => Ok(SslMode::VerifyFull),
        "allow" | "prefer" => Err(
            "would fall back to plain text in silence; choose disable, require, verify-ca or \
             verify-full"
                .into(),
        ),
        _ => Err("is no SSL mode; choose disable, require, verify-ca or verify-full".into()),
    }
}

pub(super) fn authentication(text: &str) -> Parsed<Authentication> {
    match text {
        "channel-binding" => Ok(Authentication::ChannelBinding),
        "scram" => Ok(Authentication::Scram),
        "any" => Ok(Authentication::Any),
        _ => Err("is none of channel-binding, scram and any".into()),
    }
}

/// 1 s to 1 h. A shorter TTL would not outlive a pause of a busy process.
pub(super) fn session_ttl(text: &str) -> Parsed<Duration> {
    duration_within(text, SECOND, HOUR)
}

/// 1 s to 30 days.
pub(super) fn lease_ttl(text: &str) -> Parsed<Duration> {
    duration_within(text, SECOND, 30 * 24 * HOUR)
}

/// `off`, or 1 minute to 30 days. Controllers that could not reach etcd for less than a minute hear
/// what they missed.
pub(super) fn compaction(text: &str) -> Parsed<Option<Duration>> {
    if text == "off" {
        return Ok(None);
    }
    duration_within(text, 60 * SECOND, 30 * 24 * HOUR).map(Some)
}

/// 100 ms to 10 minutes.
pub(super) fn timeout(text: &str) -> Parsed<Duration> {
    duration_within(text, SECOND / 10, HOUR / 6)
}

/// Like [`timeout`]; digits without a unit are seconds.
pub(super) fn dial_timeout(text: &str) -> Parsed<Duration> {
    let bare = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if bare {
        timeout(&format!("{text}s"))
    } else {
        timeout(text)
    }
}

fn duration_within(text: &str, least: Duration, most: Duration) -> Parsed<Duration> {
    let value = duration::parse(text).map_err(DurationError::rule)?;
    let range = || format!("{} to {}", duration::format(least), duration::format(most));
    match value {
        value if value < least => Err(format!("is too short; {} are allowed", range()).into()),
        value if value > most => Err(format!("is too long; {} are allowed", range()).into()),
        value => Ok(value),
    }
}

pub(super) fn port(text: &str) -> Parsed<u16> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err("is no port; 1 to 65535 are".into()),
    }
}

pub(super) fn connections(text: &str) -> Parsed<NonZeroU32> {
    match text.parse::<NonZeroU32>() {
        Ok(count) if count.get() <= 1000 => Ok(count),
        _ => Err("is no number of connections; 1 to 1000 are".into()),
    }
}

/// Several hosts separated by commas, each with or without a port of its own; or the directory
/// of a socket.
pub(super) fn hosts(text: &str) -> Parsed<Vec<Host>> {
    text.split(',').map(|part| host(part.trim())).collect()
}

fn host(text: &str) -> Parsed<Host> {
    if text.starts_with('/') {
        return line(text).map(|name| Host { name, port: None });
    }
    let (name, port) = split_port(text)?;
    Ok(Host {
        name: name.to_owned(),
        port,
    })
}

/// Splits a host name or address from the port after it. An IPv6 address with a port needs
/// brackets.
fn split_port(text: &str) -> Parsed<(&str, Option<u16>)> {
    if text.contains('@') || text.contains("://") || text.contains('/') {
        return Err(
            "is no host; write a name or an address, without a user and without a \
                    scheme"
                .into(),
        );
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Ok((text, None));
    }
    if let Some((address, rest)) = text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        if address.parse::<Ipv6Addr>().is_err() {
            return Err("has brackets, but no IPv6 address in them".into());
        }
        return match rest.strip_prefix(':') {
            Some(digits) => Ok((address, Some(port(digits)?))),
            None if rest.is_empty() => Ok((address, None)),
            None => Err("has something other than a port after the address".into()),
        };
    }
    let (name, port) = match text.split_once(':') {
        Some((name, digits)) => (name, Some(port(digits)?)),
        None => (text, None),
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if name.is_empty() || name.len() > 253 || !name.chars().all(plain) {
        return Err(
            "is no host; a name has letters, digits, dots and hyphens, and at most 253 of them"
                .into(),
        );
    }
    Ok((name, port))
}

pub(super) fn server_name(text: &str) -> Parsed<String> {
    match split_port(text)? {
        (name, None) => Ok(name.to_owned()),
        _ => Err("has a port; a certificate is for a name alone".into()),
    }
}

/// Members of an etcd cluster, separated by commas.
pub(super) fn endpoints(text: &str) -> Parsed<Vec<String>> {
    text.split(',').map(|part| endpoint(part.trim())).collect()
}

fn endpoint(text: &str) -> Parsed<String> {
    let address = match text.split_once("://") {
        Some(("http" | "https", address)) => address.strip_suffix('/').unwrap_or(address),
        Some(_) => return Err("is no endpoint; the scheme is http or https".into()),
        None => text,
    };
    match split_port(address)? {
        (_, Some(_)) => Ok(text.strip_suffix('/').unwrap_or(text).to_owned()),
        (_, None) => {
            Err("has an endpoint without a port; write host:port, such as etcd:2379".into())
        }
    }
}

/// Who a process says it is.
pub(super) fn identity(text: &str) -> Parsed<SessionIdentity> {
    SessionIdentity::named(text).map_err(|refused| refused.rule().into())
}

/// The name of a database or a user.
pub(super) fn postgresql_name(text: &str) -> Parsed<String> {
    if text.len() > POSTGRESQL_NAME {
        return Err("is longer than the 63 bytes that a name in PostgreSQL has".into());
    }
    line(text)
}

/// A schema name: one that needs no quotes, so that people can write it without.
pub(super) fn schema(text: &str) -> Parsed<String> {
    let mut bytes = text.bytes();
    let first = bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let plain =
        bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !first || !plain || text.len() > POSTGRESQL_NAME {
        return Err(
            "is no name for a schema; 1 to 63 lower-case letters, digits and underscores are, \
             and no digit comes first"
                .into(),
        );
    }
    if text.starts_with("pg_") || text == "information_schema" {
        return Err("is a schema of PostgreSQL itself; choose another one, such as pac".into());
    }
    Ok(text.to_owned())
}

/// The prefix of all keys in etcd. A slash is added at its end.
pub(super) fn prefix(text: &str) -> Parsed<String> {
    let segments = text.trim_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '/');
    if !text.starts_with('/') || segments.is_empty() || text.len() > 200 {
        return Err(
            "is no prefix; it starts with a slash and has 2 to 200 characters, such as \
                    /pac/v1/"
                .into(),
        );
    }
    if !text.chars().all(plain) || text.contains("//") {
        return Err(
            "is no prefix; between the slashes are letters, digits, dots, hyphens and \
                    underscores"
                .into(),
        );
    }
    Ok(format!("/{segments}/"))
}

/// One line of text.
pub(super) fn line(text: &str) -> Parsed<String> {
    if text.chars().any(char::is_control) {
        return Err("has a line break or another control character".into());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For each parser: values that it accepts, and values that it refuses with the rule.
    macro_rules! takes {
        ($parser:ident: $([$good:expr => $value:expr]),* ; $([$bad:expr => $rule:expr]),*) => {
            $(assert_eq!($parser($good), Ok($value), "{}", $good);)*
            $(
                let error = $parser($bad).unwrap_err();
                assert!(error.contains($rule), "{}: {error}", $bad);
            )*
        };
    }

    fn host_at(name: &str, port: Option<u16>) -> Host {
        Host {
            name: name.to_owned(),
            port,
        }
    }

    #[test]
    fn switches() {
        takes!(boolean: ["true" => true], ["1" => true], ["Yes" => true], ["ON" => true],
            ["false" => false], ["0" => false], ["no" => false], ["F" => false];
            ["enabled" => "neither"], ["2" => "neither"]);
    }

    #[test]
    fn choices_are_listed() {
        takes!(driver: ["etcd" => DriverKind::Etcd], ["postgresql" => DriverKind::Postgresql],
            ["memory" => DriverKind::Memory];
            ["postgres" => "etcd, postgresql or memory"], ["ETCD" => "etcd, postgresql or memory"]);
        takes!(etcd_mode: ["etcd" => EtcdMode::Etcd], ["mock" => EtcdMode::Mock],
            ["memory" => EtcdMode::Mock]; ["prod" => "etcd, mock or memory"]);
        takes!(migrate: ["never" => Migrate::Never], ["new" => Migrate::New],
            ["always" => Migrate::Always]; ["true" => "never, new and always"]);
        takes!(ssl_mode: ["disable" => SslMode::Disable], ["require" => SslMode::Require],
            ["verify-ca" => SslMode::VerifyCa], ["verify-full" => SslMode::VerifyFull];
            ["prefer" => "in silence"], ["on" => "disable, require, verify-ca or verify-full"]);
        takes!(authentication: ["channel-binding" => Authentication::ChannelBinding],
            ["scram" => Authentication::Scram], ["any" => Authentication::Any];
            ["md5" => "channel-binding, scram and any"]);
    }

    #[test]
    fn durations_are_held_to_their_range() {
        takes!(session_ttl: ["15s" => 15 * SECOND], ["1h" => HOUR];
            ["500ms" => "1s to 1h"], ["2h" => "too long"], ["15" => "no unit"], ["-1s" => "negative"]);
        takes!(lease_ttl: ["1h30m" => HOUR * 3 / 2], ["720h" => 720 * HOUR];
            ["721h" => "too long"], ["1d" => "unknown unit"], ["1 h" => "unknown unit"]);
        takes!(timeout: ["30s" => 30 * SECOND], ["500ms" => SECOND / 2];
            ["5" => "no unit"], ["1ms" => "too short"], ["99999999999h" => "longer than"]);
        takes!(compaction: ["off" => None], ["5m" => Some(300 * SECOND)];
            ["30s" => "too short"], ["never" => "duration"]);
        takes!(dial_timeout: ["5" => 5 * SECOND], ["5s" => 5 * SECOND], ["1m" => 60 * SECOND];
            ["0" => "too short"], ["5.5" => "no unit"], ["601" => "too long"]);
    }

    #[test]
    fn numbers_are_held_to_their_range() {
        takes!(port: ["5432" => 5432], ["65535" => 65535];
            ["0" => "1 to 65535"], ["65536" => "1 to 65535"], ["-1" => "1 to 65535"], ["x" => "port"]);
        takes!(connections: ["10" => NonZeroU32::new(10).unwrap()];
            ["0" => "1 to 1000"], ["1001" => "1 to 1000"], ["1e3" => "1 to 1000"]);
    }

    #[test]
    fn hosts_and_endpoints() {
        takes!(hosts: ["db" => vec![host_at("db", None)]],
            ["db-1.x:5433, 10.0.0.7,[::1]:5434,::1,[::1]" => vec![
                host_at("db-1.x", Some(5433)), host_at("10.0.0.7", None),
                host_at("::1", Some(5434)), host_at("::1", None), host_at("::1", None)]],
            ["/var/run/postgresql" => vec![host_at("/var/run/postgresql", None)]];
            ["/a\nb" => "control"], ["a,,b" => "no host"], ["db:0" => "no port"], ["db:x" => "no port"], ["a b" => "no host"],
            ["postgres://u:p@db" => "without a user"], ["[x]:1" => "no IPv6"], ["[::1]x" => "other than"]);
        takes!(endpoints: ["etcd:2379" => vec!["etcd:2379".to_owned()]],
            ["http://a:1,https://b:2/, [::1]:3" =>
                vec!["http://a:1".to_owned(), "https://b:2".to_owned(), "[::1]:3".to_owned()]];
            ["etcd" => "without a port"], ["ftp://a:1" => "http or https"],
            ["u@a:1" => "without a user"], ["http://a:1/x" => "no host"], ["" => "no host"]);
        takes!(server_name: ["etcd.example.com" => "etcd.example.com".to_owned()];
            ["etcd:2379" => "has a port"], ["*" => "no host"]);
    }

    #[test]
    fn names() {
        takes!(postgresql_name: ["pac user" => "pac user".to_owned()];
            ["a\nb" => "control"], [&"x".repeat(64) => "63 bytes"]);
        takes!(identity: ["night-batch" => SessionIdentity::named("night-batch").unwrap()];
            ["a b" => "1 to 63 ASCII letters"], [&"x".repeat(64) => "1 to 63"],
            ["postgres://u:p@db" => "not a URL"]);
        takes!(schema: ["pac" => "pac".to_owned()], ["_p1" => "_p1".to_owned()];
            ["1p" => "no digit"], ["Pac" => "lower-case"], ["a-b" => "underscores"],
            ["pg_x" => "itself"], [&"x".repeat(64) => "63"], ["p\"; DROP" => "lower-case"]);
        takes!(prefix: ["/pac/v1" => "/pac/v1/".to_owned()], ["/x/" => "/x/".to_owned()];
            ["pac" => "starts with a slash"], ["/" => "2 to 200"], ["/a//b" => "between"],
            ["/a b" => "between"]);
        takes!(line: ["x" => "x".to_owned()]; ["a\tb" => "control"]);
    }
}
