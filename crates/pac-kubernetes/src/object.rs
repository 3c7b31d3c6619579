//! The objects of the API, as little of them as is needed.
//!
//! Whatever types the fields have, an object is taken in, so that one that cannot be understood
//! never hides the others of its list. The model says what is wrong with it.

use std::borrow::Cow;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::{ClusterResourceScope, NamespaceResourceScope, Resource};
use pac_core::{PipelineRunKey, RepositoryKey};
use pac_pipelines::model::{NamespaceView, RepositoryView, RunView};
use pac_pipelines::{ModelError, Unreadable, UnreadableObject, vocabulary};
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An object of a kind that is followed.
pub(crate) trait Object:
    Resource<DynamicType = ()>
    + Clone
    + fmt::Debug
    + DeserializeOwned
    + Serialize
    + Send
    + Sync
    + 'static
{
    /// What the rest of the workspace sees of it.
    type View: Clone + Send + 'static;

    /// Drops everything that no view has; with lanes, other labels and annotations stay, since the
    /// view chooses among them.
    fn prune(&mut self, lanes: bool);

    /// The view of the object, or why there is none.
    fn view(&self) -> Result<Self::View, Unreadable>;

    /// Namespace and name.
    fn path(&self) -> String {
        let (namespace, name) = names(self.meta());
        format!("{namespace}/{name}")
    }

    /// The number of its `resourceVersion`; 0 if it has none that is a number.
    fn version(&self) -> u64 {
        let version = self.meta().resource_version.as_deref();
        version.and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// A PipelineRun: metadata, what is wanted of it, and how it stands.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct RunObject {
    #[serde(default)]
    pub(crate) metadata: ObjectMeta,
    #[serde(default, deserialize_with = "run_spec")]
    spec: Value,
    #[serde(default, deserialize_with = "run_status")]
    status: Value,
}

/// A Repository: metadata, its limit and its address.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct RepositoryObject {
    #[serde(default)]
    pub(crate) metadata: ObjectMeta,
    #[serde(default, deserialize_with = "repository_spec")]
    spec: Value,
}

/// A Namespace: metadata alone.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct NamespaceObject {
    #[serde(default)]
    pub(crate) metadata: ObjectMeta,
}

impl RunObject {
    /// The version of an object that is held back and has no annotation at all.
    pub(crate) fn without_annotations(&self) -> Option<&str> {
        let is_pending =
            self.spec.get("status").and_then(Value::as_str) == Some(vocabulary::PENDING);
        let is_bare = self.metadata.annotations.is_none();
        let version = self.metadata.resource_version.as_deref();
        version.filter(|_| is_pending && is_bare)
    }
}

impl Object for RunObject {
    type View = RunView;

    fn prune(&mut self, lanes: bool) {
        let keeps = |name: &str| vocabulary::keeps_annotation(name);
        if lanes {
            prune(&mut self.metadata, None);
        } else {
            prune(&mut self.metadata, Some((vocabulary::LABELS, &keeps)));
        }
        // Other conditions, and messages, say nothing here.
        if let Some(Value::Array(conditions)) = self.status.get_mut("conditions") {
            conditions.retain(|one| {
                one.get("type")
                    .is_none_or(|name| name == vocabulary::SUCCEEDED)
            });
            for condition in conditions.iter_mut().filter_map(Value::as_object_mut) {
                condition.retain(|field, _| matches!(field.as_str(), "type" | "status" | "reason"));
            }
        }
    }

    fn view(&self) -> Result<RunView, Unreadable> {
        read(self, RunView::from_json, |namespace, name| {
            let key = PipelineRunKey::new(namespace, name).ok();
            key.map(UnreadableObject::Run)
        })
    }
}

impl Object for RepositoryObject {
    type View = RepositoryView;

    fn prune(&mut self, _: bool) {
        let keeps = |name: &str| vocabulary::REPOSITORY_ANNOTATIONS.contains(&name);
        prune(&mut self.metadata, Some((&[], &keeps)));
    }

    fn view(&self) -> Result<RepositoryView, Unreadable> {
        read(self, RepositoryView::from_json, |namespace, name| {
            let key = RepositoryKey::new(namespace, name).ok();
            key.map(UnreadableObject::Repository)
        })
    }
}

impl Object for NamespaceObject {
    type View = NamespaceView;

    fn prune(&mut self, _: bool) {
        let keeps = |name: &str| vocabulary::NAMESPACE_ANNOTATIONS.contains(&name);
        prune(&mut self.metadata, Some((&[], &keeps)));
    }

    fn view(&self) -> Result<NamespaceView, Unreadable> {
        read(self, NamespaceView::from_json, |_, _| None)
    }
}

/// The labels that are kept, and which annotations are.
type Chosen<'a> = (&'a [&'a str], &'a dyn Fn(&str) -> bool);

/// Keeps these labels and annotations alone; all of them without a choice.
fn prune(metadata: &mut ObjectMeta, kept: Option<Chosen<'_>>) {
    metadata.managed_fields = None;
    metadata.owner_references = None;
    metadata.finalizers = None;
    let Some((labels, keeps_annotation)) = kept else {
        return;
    };
    if let Some(found) = &mut metadata.labels {
        found.retain(|name, _| labels.contains(&name.as_str()));
    }
    if let Some(found) = &mut metadata.annotations {
        found.retain(|name, _| keeps_annotation(name));
    }
}

fn names(metadata: &ObjectMeta) -> (&str, &str) {
    (
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

/// Has the model read an object, so that its rules stand there alone.
fn read<O: Object, V>(
    object: &O,
    model: impl Fn(&str) -> Result<V, ModelError>,
    identity: impl Fn(&str, &str) -> Option<UnreadableObject>,
) -> Result<V, Unreadable> {
    let text = serde_json::to_string(object)
        .map_err(|error| ModelError::new(object.path(), "metadata", error.to_string()));
    text.and_then(|text| model(&text)).map_err(|error| {
        let (namespace, name) = names(object.meta());
        let which = identity(namespace, name).unwrap_or(UnreadableObject::Nameless);
        Unreadable::new(which, error)
    })
}

fn run_spec<'de, D: Deserializer<'de>>(from: D) -> Result<Value, D::Error> {
    from.deserialize_any(Kept(&["status", "managedBy"]))
}

fn run_status<'de, D: Deserializer<'de>>(from: D) -> Result<Value, D::Error> {
    from.deserialize_any(Kept(&["conditions", "startTime", "completionTime"]))
}

fn repository_spec<'de, D: Deserializer<'de>>(from: D) -> Result<Value, D::Error> {
    from.deserialize_any(Kept(&["concurrency_limit", "url"]))
}

/// Keeps these fields of a mapping. Of anything else it keeps enough for an error.
struct Kept(&'static [&'static str]);

impl<'de> Visitor<'de> for Kept {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            if self.0.contains(&name.as_str()) {
                kept.insert(name, map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Value::Object(kept))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::Array(Vec::new()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

impl Resource for RunObject {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "PipelineRun".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "tekton.dev".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "pipelineruns".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Resource for RepositoryObject {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Repository".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "pipelinesascode.tekton.dev".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1alpha1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "repositories".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Resource for NamespaceObject {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Namespace".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "namespaces".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use pac_pipelines::model::SpecStatus;
    use serde_json::json;

    use super::*;

    fn run(spec: &Value, status: &Value) -> RunObject {
        serde_json::from_value(json!({
            "apiVersion": "tekton.dev/v1", "kind": "PipelineRun",
            "metadata": {
                "name": "a", "namespace": "ci", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-11-29T08:00:01Z",
                "labels": {vocabulary::MANAGED_BY: vocabulary::PAC_MANAGER, "x/y": "z"},
                "annotations": {vocabulary::HELD: "true", "big": "x"},
                "managedFields": [{"manager": "x", "fieldsV1": {"f:spec": {}}}],
                "finalizers": ["f"]
            },
            "spec": spec, "status": status
        }))
        .unwrap()
    }

    #[test]
    fn what_no_view_has_is_dropped_and_the_view_stays_the_same() {
        let spec = json!({"status": "PipelineRunPending", "pipelineSpec": {"tasks": [1, [2]]}});
        let status = json!({
            "startTime": "2026-11-29T08:00:02Z", "childReferences": [{}],
            "conditions": [{"type": "Other"}, {"type": "Succeeded", "status": "Unknown",
                "reason": "Running", "message": "long"}]
        });
        let mut object = run(&spec, &status);
        let mut before = object.view().unwrap();
        object.prune(true);
        assert_eq!(object.view().unwrap(), before);
        object.prune(false);
        // What lanes alone depend on.
        assert_eq!(
            before.other_labels.len() + before.other_annotations.len(),
            2
        );
        before.other_labels.clear();
        before.other_labels.clear();
        before.other_annotations.clear();
        assert_eq!(object.view().unwrap(), before);
        assert_eq!(before.spec_status, SpecStatus::Pending);
        assert_eq!(before.succeeded.unwrap().reason, "Running");
        assert!(before.created.is_some() && before.started.is_some());
        let text = serde_json::to_string(&object).unwrap();
        for gone in [
            "x/y",
            "big",
            "managedFields",
            "tasks",
            "childReferences",
            "Other",
            "long",
        ] {
            assert!(!text.contains(gone), "{gone}: {text}");
        }
        assert_eq!((object.path().as_str(), object.version()), ("ci/a", 7));
    }

    #[test]
    fn what_a_run_asks_for_and_was_answered_is_kept_within_bounds() {
        let mut object = run(&json!({}), &json!({}));
        let annotations = object.metadata.annotations.as_mut().unwrap();
        for number in 10..40 {
            for prefix in [vocabulary::SECTION_PREFIX, vocabulary::SECTION_TOKEN_PREFIX] {
                annotations.insert(format!("{prefix}s{number}"), "5-a run".to_owned());
            }
        }
        let long = format!("{}s10", vocabulary::SECTION_PREFIX);
        annotations.insert(long, "x".repeat(4_096));
        let mut before = object.view().unwrap();
        // For lanes alone.
        before.other_labels.clear();
        before.other_annotations.clear();
        object.prune(false);
        let view = object.view().unwrap();
        assert_eq!(view, before);
        let about = |prefix| {
            let names = view.annotations.keys();
            names.filter(|name| name.starts_with(prefix)).count()
        };
        assert_eq!(about(vocabulary::SECTION_PREFIX), 15);
        assert_eq!(about(vocabulary::SECTION_TOKEN_PREFIX), 16);
    }

    #[test]
    fn an_object_of_the_wrong_types_is_taken_in_and_named() {
        for (spec, status) in [
            (json!(5), json!({})),
            (json!([{}]), json!("x")),
            (json!({"status": {}}), json!(null)),
            (json!({}), json!({"conditions": {"a": 1}})),
            (json!({}), json!({"startTime": "yesterday"})),
        ] {
            let unreadable = run(&spec, &status).view().unwrap_err();
            let key = "ci/a".parse().unwrap();
            assert_eq!(
                unreadable.object,
                UnreadableObject::Run(key),
                "{unreadable:?}"
            );
        }
        let nothing: RunObject = serde_json::from_str("{}").unwrap();
        let unreadable = nothing.view().unwrap_err();
        assert_eq!(unreadable.object, UnreadableObject::Nameless);
    }

    #[test]
    fn a_repository_keeps_its_limit_and_its_annotation() {
        let mut object: RepositoryObject = serde_json::from_value(json!({
            "metadata": {"name": "r", "namespace": "ci",
                "annotations": {vocabulary::LIMIT: "2", "x": "y"}},
            "spec": {"url": "https://example.org/x", "settings": {"a": 1}}
        }))
        .unwrap();
        object.prune(false);
        let view = object.view().unwrap();
        assert_eq!(view.limit, Some(pac_core::Limit::new(2)));
        assert_eq!(view.url.as_deref(), Some("https://example.org/x"));
        assert_eq!(object.metadata.annotations.unwrap().len(), 1);
    }
}
