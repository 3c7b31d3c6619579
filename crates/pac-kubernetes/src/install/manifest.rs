//! One object to apply, and texts of several.

use std::fmt;

use serde::Serialize;
use serde_json::{Value, json};

use super::options::Install;

/// The label that tells the objects of an installation from those of others.
pub(super) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Its value.
pub(super) const MANAGER: &str = "pac-kubernetes";

/// Objects could not be written as YAML.
#[derive(Debug, thiserror::Error)]
#[error("the manifests cannot be written as YAML: {0}; this is a bug")]
pub struct ManifestError(String);

/// One object to apply. Its content is that of the API of Kubernetes, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Manifest(Value);

impl Manifest {
    /// An object of the whole cluster, with its labels and nothing else.
    pub(super) fn cluster_wide(version: &str, kind: &str, name: &str) -> Self {
        Self(json!({
            "apiVersion": version,
            "kind": kind,
            "metadata": {
                "name": name,
                "labels": {
                    "app.kubernetes.io/name": Install::NAME,
                    "app.kubernetes.io/part-of": Install::NAME,
                    MANAGED_BY: MANAGER,
                    "app.kubernetes.io/version": env!("CARGO_PKG_VERSION"),
                },
            },
        }))
    }

    /// An object of a namespace, with its labels and nothing else.
    pub(super) fn namespaced(version: &str, kind: &str, namespace: &str, name: &str) -> Self {
        let mut manifest = Self::cluster_wide(version, kind, name);
        if let Some(metadata) = manifest
            .0
            .get_mut("metadata")
            .and_then(Value::as_object_mut)
        {
            metadata.insert("namespace".to_owned(), namespace.into());
        }
        manifest
    }

    /// The same with one more field at the top: `spec`, `rules`, `data`.
    pub(super) fn with(mut self, field: &str, value: Value) -> Self {
        if let Some(top) = self.0.as_object_mut() {
            top.insert(field.to_owned(), value);
        }
        self
    }

    /// The same with an annotation.
    pub(super) fn with_annotation(mut self, key: &str, value: &str) -> Self {
        if let Some(metadata) = self.0.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("annotations".to_owned(), json!({key: value}));
        }
        self
    }

    /// The whole object.
    #[must_use]
    pub fn as_value(&self) -> &Value {
        &self.0
    }

    /// Group and version: `apps/v1`, or `v1` of the core group.
    #[must_use]
    pub fn api_version(&self) -> &str {
        self.text("/apiVersion").unwrap_or_default()
    }

    /// The kind: `Deployment`.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text("/kind").unwrap_or_default()
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.text("/metadata/name").unwrap_or_default()
    }

    /// The namespace; `None` for an object of the whole cluster.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.text("/metadata/namespace")
    }

    fn text(&self, pointer: &str) -> Option<&str> {
        self.0.pointer(pointer).and_then(Value::as_str)
    }
}

/// Kind, namespace and name, for messages: `Deployment pac-concurrency/pac-concurrency`.
impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace() {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind(), self.name()),
            None => write!(f, "{} {}", self.kind(), self.name()),
        }
    }
}

/// The objects as YAML documents, in this order, for `kubectl apply -f`.
///
/// # Errors
/// [`ManifestError`] if an object has no form in YAML, which none of [`Install::manifests`] does.
pub fn to_yaml(manifests: &[Manifest]) -> Result<String, ManifestError> {
    let options = serde_saphyr::ser_options! {
        // A folded text is hard to read, and an expression is one to read.
        min_fold_chars: usize::MAX,
        compact_list_indent: true,
    };
    let mut text = String::new();
    for manifest in manifests {
        text.push_str("---\n");
        serde_saphyr::to_fmt_writer_with_options(&mut text, manifest, options.clone())
            .map_err(|error| ManifestError(error.to_string()))?;
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}

/// The whole installation as a YAML file, after a comment that says what to fill in.
///
/// # Errors
/// As of [`to_yaml`].
pub fn to_document(install: &Install) -> Result<String, ManifestError> {
    let settings = match install.is_shared() {
        true => format!(
            "# The settings go into the ConfigMap {} of {}, which is there already: see\n\
             # docs/deploy/configmap.yaml.\n",
            Install::CONFIG_MAP,
            install.namespace
        ),
        false => {
            "# Put the address of your store into the ConfigMap, and the image where yours is.\n"
                .to_owned()
        }
    };
    Ok(format!(
        "# What the controller needs, as `pac kubernetes install` prints it. docs/kubernetes.md says more.\n\
         {settings}\
         # The password stands in a Secret, which is not in this file. Without it no pod starts:\n\
         #   {}\n{}",
        install.secret_command(),
        to_yaml(&install.manifests())?
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_means_the_same_as_the_objects() {
        let install = Install::default()
            .with_cancel_at_once(true)
            .with_excluded_namespace("on")
            .with_excluded_namespace("123");
        let manifests = install.manifests();
        let text = to_yaml(&manifests).unwrap();
        let read: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        let written: Vec<&Value> = manifests.iter().map(Manifest::as_value).collect();
        assert_eq!(read.iter().collect::<Vec<_>>(), written);
        // YAML 1.1, which kubectl reads, takes these for a boolean and a number without quotes.
        assert!(
            text.contains("- \"on\"\n") || text.contains("- 'on'\n"),
            "{text}"
        );
        assert!(
            text.contains("- \"123\"\n") || text.contains("- '123'\n"),
            "{text}"
        );
    }

    #[test]
    fn an_object_is_named_with_its_namespace() {
        let names: Vec<_> = Install::default()
            .manifests()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names[0], "Namespace pac-concurrency");
        assert_eq!(names[1], "ServiceAccount pac-concurrency/pac-concurrency");
    }
}
