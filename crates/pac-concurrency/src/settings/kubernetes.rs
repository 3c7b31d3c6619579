//! Reads ConfigMaps and Secrets in YAML files, and plain maps of settings.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::found::{Findings, Found};
use super::key::Key;
use super::problem::{Place, Source};
use super::yaml::{self, Node, Value};

/// Reads the settings in the text of a file.
pub(super) fn read(file: &Path, text: &str, findings: &mut Findings) {
    let whole = |line| Source::ConfigMap(Place::new(file, line));
    let documents = match yaml::parse(text) {
        Ok(documents) => documents,
        Err(error) => return findings.problem(whole(Some(error.line)), None, error.message),
    };
    let mut reading = Reading {
        file,
        findings,
        useful: false,
    };
    documents
        .iter()
        .for_each(|document| reading.document(document));
    if !reading.useful {
        let message = "holds no ConfigMap, no Secret and no setting; is it the right file?";
        findings.problem(whole(None), None, message);
    }
}

struct Reading<'a> {
    file: &'a Path,
    findings: &'a mut Findings,
    /// Whether the file has anything that could contain settings.
    useful: bool,
}

impl Reading<'_> {
    fn document(&mut self, document: &Node) {
        let Some(entries) = document.entries() else {
            let message = "is neither a Kubernetes object nor a map of settings";
            let source = Source::ConfigMap(self.place(document));
            self.useful = true;
            return self.findings.problem(source, None, message);
        };
        match document.get("kind").and_then(Node::text) {
            Some("ConfigMap") => {
                self.useful = true;
                let data = document.get("data");
                self.texts(data, Source::ConfigMap, true);
            }
            Some("Secret") => {
                self.useful = true;
                self.base64(document.get("data"));
                // As in Kubernetes, `stringData` takes precedence.
                self.texts(document.get("stringData"), Source::Secret, true);
            }
            Some("List" | "ConfigMapList" | "SecretList") => {
                if let Some(Value::Sequence(items)) = document.get("items").map(|node| &node.value)
                {
                    items.iter().for_each(|item| self.document(item));
                }
            }
            Some(_) => {}
            None => {
                self.useful |= entries
                    .iter()
                    .filter_map(|(key, _)| key.text())
                    .any(|name| Key::named(name).is_some());
                self.texts(Some(document), Source::ConfigMap, false);
            }
        }
    }

    /// Reads entries that are plain text. If `strictly`, reports those that the API server would
    /// refuse.
    fn texts(&mut self, map: Option<&Node>, whose: fn(Place) -> Source, strictly: bool) {
        for (key, name, node) in self.ours(map, whose) {
            let source = whose(self.place(node));
            match &node.value {
                Value::Scalar { text, plain } => {
                    if strictly && *plain && is_no_text(text) {
                        let cure = match (&source, key.is_secret()) {
                            (Source::ConfigMap(_), false) => format!("write \"{text}\""),
                            _ => "write it".to_owned(),
                        };
                        let message = format!(
                            "is a number or a boolean, which Kubernetes refuses here; {cure}, \
                             with the quotes"
                        );
                        self.findings.problem(source.clone(), Some(&name), message);
                    }
                    let text = if node.is_null() { "" } else { text };
                    self.findings.found.push(Found::text(key, text, source));
                }
                Value::Sequence(_) | Value::Mapping(_) => {
                    let message = "is a list or a map; it takes one line of text";
                    self.findings.problem(source, Some(&name), message);
                }
            }
        }
    }

    /// Reads the `data` of a Secret.
    fn base64(&mut self, map: Option<&Node>) {
        for (key, name, node) in self.ours(map, Source::Secret) {
            let source = Source::Secret(self.place(node));
            let encoded: String = node.text().unwrap_or("!").split_whitespace().collect();
            let decoded = STANDARD.decode(encoded).ok().map(String::from_utf8);
            match decoded {
                Some(Ok(text)) => self.findings.found.push(Found::text(key, text, source)),
                Some(Err(_)) => {
                    let message = "is base64 of something that is not text (UTF-8)";
                    self.findings.problem(source, Some(&name), message);
                }
                None => {
                    let message = "is not base64, which `data` takes; put plain text into \
                                   `stringData`, or encode it: echo -n … | base64";
                    self.findings.problem(source, Some(&name), message);
                }
            }
        }
    }

    /// The entries with known keys, and these keys as written.
    fn ours<'n>(
        &mut self,
        map: Option<&'n Node>,
        whose: fn(Place) -> Source,
    ) -> Vec<(&'static Key, String, &'n Node)> {
        let entries = match map {
            Some(map) if !map.is_null() => map.entries(),
            _ => return Vec::new(),
        };
        let Some(entries) = entries else {
            let place = map.map_or_else(|| Place::new(self.file, None), |map| self.place(map));
            let message = "data is no map of keys to values";
            self.findings.problem(whose(place), None, message);
            return Vec::new();
        };
        let mut ours = Vec::new();
        for (name, node) in entries {
            let text = name.text().unwrap_or_default();
            if let Some(key) = self.findings.key(text, &whose(self.place(name))) {
                ours.push((key, text.to_owned(), node));
            }
        }
        ours
    }

    fn place(&self, node: &Node) -> Place {
        Place::new(self.file, Some(node.line))
    }
}

/// Whether YAML 1.1, which Kubernetes uses, reads this as a boolean or a number.
fn is_no_text(plain: &str) -> bool {
    let boolean = matches!(
        plain.to_ascii_lowercase().as_str(),
        "true" | "false" | "yes" | "no" | "on" | "off" | "y" | "n"
    );
    let digits = plain.strip_prefix(['-', '+']).unwrap_or(plain);
    let number = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && (digits.parse::<f64>().is_ok()
            || digits.starts_with("0x") && i64::from_str_radix(&digits[2..], 16).is_ok());
    boolean || number
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::found::FoundValue;

    fn findings(text: &str) -> Findings {
        let mut findings = Findings::default();
        read(Path::new("f.yaml"), text, &mut findings);
        findings
    }

    fn found(text: &str) -> Vec<(&'static str, String, String)> {
        let findings = findings(text);
        assert_eq!(findings.problems, []);
        let shown = |found: Found| match found.value {
            FoundValue::Text(text) => (found.key.name(), text, found.source.to_string()),
            FoundValue::Password(_) => panic!("no file"),
        };
        findings.found.into_iter().map(shown).collect()
    }

    fn problems(text: &str) -> Vec<String> {
        let problems = findings(text).problems;
        problems.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_config_map_and_a_secret_in_one_file() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\ndata:\n  \
            application-name: CI\n  postgresql-host: \"db\"\n---\nkind: Deployment\nspec: {}\n---\n\
            apiVersion: v1\nkind: Secret\ntype: Opaque\ndata:\n  postgresql-password: aHVu\n    \
            dGVyMg==\n  other: '!'\nstringData:\n  etcd-username: me\n";
        let expected = [
            ("postgresql-host", "db", "f.yaml:7"),
            ("postgresql-password", "hunter2", "f.yaml:16"),
            ("etcd-username", "me", "f.yaml:20"),
        ];
        let found = found(text);
        let found: Vec<_> = found
            .iter()
            .map(|(key, value, source)| (*key, value.as_str(), source.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_list_as_kubectl_prints_it() {
        let text = r#"{"kind": "List", "items": [{"kind": "ConfigMap",
            "data": {"etcd-mode": "mock"}}, {"kind": "Secret", "data": null}]}"#;
        assert_eq!(found(text).len(), 1);
    }

    #[test]
    fn a_plain_map_needs_no_quotes() {
        let text = "postgresql-port: 5433\nconcurrency-enabled: true\netcd-username:\n";
        let found = found(text);
        assert_eq!(found[0].1, "5433");
        assert_eq!(found[2].1, "");
    }

    #[test]
    fn string_data_wins_over_data() {
        let text = "kind: Secret\nstringData: {etcd-password: b}\ndata: {etcd-password: YQ==}\n";
        assert_eq!(found(text).last().unwrap().1, "b");
    }

    #[test]
    fn what_kubernetes_would_refuse_is_refused() {
        let text = "kind: ConfigMap\ndata:\n  postgresql-port: 5432\n  concurrency-enabled: yes\n  \
            postgresql-lease-ttl: 1h\n  etcd-endpoints: [a, b]\n  postgresql-host: 10.0.0.7\n";
        assert_eq!(
            problems(text),
            [
                "f.yaml:3: postgresql-port: is a number or a boolean, which Kubernetes refuses \
                 here; write \"5432\", with the quotes",
                "f.yaml:4: concurrency-enabled: is a number or a boolean, which Kubernetes refuses \
                 here; write \"yes\", with the quotes",
                "f.yaml:6: etcd-endpoints: is a list or a map; it takes one line of text",
            ]
        );
    }

    #[test]
    fn a_broken_secret_is_not_repeated() {
        let text = "kind: Secret\ndata:\n  postgresql-password: hunter2!\n  etcd-password: \
            /////w==\nstringData:\n  etcd-username: 12345678\n";
        let problems = problems(text);
        assert_eq!(problems.len(), 3);
        assert!(problems[0].starts_with("f.yaml:3: postgresql-password: is not base64"));
        assert!(problems[1].contains("not text"));
        let all = problems.join("\n");
        assert!(
            !all.contains("hunter2") && !all.contains("12345678"),
            "{all}"
        );
    }

    #[test]
    fn a_file_without_settings_is_the_wrong_file() {
        for text in [
            "",
            "---\n",
            "kind: Deployment\n",
            "a: b\n",
            "kind: Configmap\ndata: {}\n",
        ] {
            let problems = problems(text);
            assert!(
                problems[0].contains("is it the right file?"),
                "{text}: {problems:?}"
            );
        }
        assert!(problems("- a\n")[0].contains("neither a Kubernetes object"));
        assert!(problems("kind: ConfigMap\ndata: text\n")[0].contains("no map"));
        assert!(problems("a: [\n")[0].contains("is not YAML"));
        assert_eq!(problems("kind: ConfigMap\n"), [""; 0]);
    }
}
