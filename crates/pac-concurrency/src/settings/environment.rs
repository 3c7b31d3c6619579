//! Reads the variables of the environment.

use std::ffi::OsString;

use super::found::{Findings, Found};
use super::key::Key;
use super::problem::Source;
use super::typo;

/// Reads the variables that set a key. Of two for one key, the `PAC_` one takes precedence.
pub(super) fn read(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    findings: &mut Findings,
) {
    let mut weaker = Vec::new();
    let mut stronger = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str() else {
            continue;
        };
        if is_of_a_service(name, &value) {
            continue;
        }
        let source = Source::Variable(name.to_owned());
        let Some(key) = named(name) else {
            if let Some(complaint) = typo::in_the_environment(name) {
                findings.problem(source, Some(name), complaint);
            }
            continue;
        };
        match value.into_string() {
            Ok(value) if name.starts_with("PAC_") => {
                stronger.push(Found::text(key, value, source));
            }
            Ok(value) => weaker.push(Found::text(key, value, source)),
            Err(_) => findings.problem(source, Some(name), "is not UTF-8"),
        }
    }
    findings.found.extend(weaker);
    findings.found.extend(stronger);
}

fn named(variable: &str) -> Option<&'static Key> {
    let mut keys = Key::all().iter();
    keys.find(|key| key.variables().any(|name| name == variable))
        .copied()
}

/// Whether Kubernetes set this variable for a Service of the namespace: one named
/// `pac-postgresql` makes it set `PAC_POSTGRESQL_PORT=tcp://10.0.0.7:5432`.
fn is_of_a_service(name: &str, value: &OsString) -> bool {
    let address = value.to_str().is_some_and(|value| {
        ["tcp://", "udp://", "sctp://"]
            .iter()
            .any(|p| value.starts_with(p))
    });
    address && name.contains("_PORT")
        || name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || ["_TCP", "_UDP", "_SCTP"]
            .iter()
            .any(|protocol| name.contains("_PORT_") && name.contains(protocol))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::found::FoundValue;

    fn read(variables: &[(&str, &str)]) -> Findings {
        let mut findings = Findings::default();
        let variables = variables.iter().map(|(k, v)| (k.into(), v.into()));
        super::read(variables, &mut findings);
        findings
    }

    #[test]
    fn every_key_is_read_from_each_of_its_variables() {
        for key in Key::all() {
            for variable in key.variables() {
                let findings = read(&[(&variable, "x"), ("PATH", "y")]);
                assert_eq!(findings.problems, []);
                let [found] = findings.found.as_slice() else {
                    panic!("{variable}");
                };
                assert_eq!(found.key, *key);
                assert_eq!(found.source.to_string(), variable);
            }
        }
    }

    #[test]
    fn of_two_variables_for_one_key_ours_is_the_stronger() {
        let findings = read(&[("PAC_ETCD_ENDPOINTS", "a:1"), ("ETCD_ENDPOINTS", "b:1")]);
        let FoundValue::Text(last) = &findings.found[1].value else {
            panic!("text");
        };
        assert_eq!(last, "a:1");
    }

    #[test]
    fn addresses_of_services_are_no_settings() {
        let findings = read(&[
            ("PAC_POSTGRESQL_PORT", "tcp://10.0.0.7:5432"),
            ("PAC_POSTGRESQL_SERVICE_HOST", "10.0.0.7"),
            ("PAC_POSTGRESQL_SERVICE_PORT_DB", "5432"),
            ("PAC_POSTGRESQL_PORT_5432_TCP_ADDR", "10.0.0.7"),
            ("PAC_ETCD_PORT", "tcp://10.0.0.8:2379"),
        ]);
        assert_eq!(findings.problems, []);
        assert_eq!(findings.found.len(), 0);
    }

    #[test]
    fn a_variable_that_is_nearly_ours_is_reported() {
        let findings = read(&[("PAC_POSTGRESQL_HOTS", "db")]);
        assert_eq!(
            findings.problems[0].to_string(),
            "PAC_POSTGRESQL_HOTS: is no setting; did you mean PAC_POSTGRESQL_HOST?"
        );
    }
}
