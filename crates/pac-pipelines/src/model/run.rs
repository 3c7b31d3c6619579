//! A PipelineRun: what queues and runs.

use std::collections::BTreeMap;

use pac_core::{FencingToken, PipelineRunKey, RepositoryKey, Timestamp, Uid};
use serde_json::{Map, Value};

use super::fields::Fields;
use super::object::{describe, marks, other_marks, section_marks, single, single_json};
use super::order::ExecutionOrder;
use super::repository::{timestamp, version};
use super::status::{Condition, ConditionStatus, PacState, SpecStatus};
use super::version::ResourceVersion;
use crate::error::ModelError;
use crate::vocabulary;

/// A PipelineRun in a cluster, as far as limits and queues go.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunView {
    /// Its namespace and name.
    pub key: PipelineRunKey,
    /// Tells it apart from other runs of the same name.
    pub uid: Uid,
    /// Which state of the object this is, if that can be compared.
    pub version: Option<ResourceVersion>,
    /// The name that its own was made from.
    pub generate_name: Option<String>,
    /// When it was created; Kubernetes keeps whole seconds.
    pub created: Option<Timestamp>,
    /// When its deletion was asked for, if it was.
    pub deleted: Option<Timestamp>,
    /// The labels of [`vocabulary::LABELS`] that it has.
    pub labels: BTreeMap<String, String>,
    /// The annotations of [`vocabulary::ANNOTATIONS`] that it has, and those about
    /// [sections](crate::sections).
    pub annotations: BTreeMap<String, String>,
    /// Its other labels, up to 64 of them: a lane may depend on them.
    pub other_labels: BTreeMap<String, String>,
    /// Its other annotations, up to 64 of at most 256 bytes: a lane may depend on them.
    pub other_annotations: BTreeMap<String, String>,
    /// `spec.status`: what is wanted of it.
    pub spec_status: SpecStatus,
    /// `spec.managedBy`: the controller that runs it, where that is not Tekton's own.
    pub managed_by: Option<String>,
    /// The condition `Succeeded`; `None` until Tekton has seen the run.
    pub succeeded: Option<Condition>,
    /// `status.startTime`.
    pub started: Option<Timestamp>,
    /// `status.completionTime`.
    pub completed: Option<Timestamp>,
}

impl RunView {
    /// A run that was just created, to be run at once.
    #[must_use]
    pub fn new(key: PipelineRunKey, uid: Uid) -> Self {
        RunManifest::default().with_identity(key, uid)
    }

    /// Reads one run from the YAML or JSON of its object in a cluster.
    ///
    /// # Errors
    /// [`ModelError`] for a text that is not one document, a run without a name or a uid, and a
    /// field that is needed and has another type than Tekton gives it.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        RunManifest::parse(text)?.into_view()
    }

    /// Reads one run from the JSON that the API of a cluster answers with. The same as
    /// [`parse`](Self::parse), and much quicker; a key that comes twice has its last value.
    ///
    /// # Errors
    /// [`ModelError`] as of [`parse`](Self::parse).
    pub fn from_json(text: &str) -> Result<Self, ModelError> {
        RunManifest::read(&single_json(text)?)?.into_view()
    }

    /// The Repository that the run belongs to: that of its annotation, or else of its label, in
    /// its own namespace. `None` where it has neither, or one that is no name.
    #[must_use]
    pub fn repository(&self) -> Option<RepositoryKey> {
        let name = self.annotation(vocabulary::REPOSITORY);
        let name = name.or_else(|| self.label(vocabulary::REPOSITORY))?;
        RepositoryKey::new(self.key.namespace(), name).ok()
    }

    /// The order of its event's runs: ours, or else that of Pipelines-as-Code. `None` until it is
    /// known.
    #[must_use]
    pub fn order(&self) -> Option<ExecutionOrder> {
        let order = ExecutionOrder::parse(self.order_text()?);
        Some(order).filter(|order| !order.is_empty())
    }

    /// Whether the order of its event's runs is known. An order has as many entries as its event has
    /// runs, so that reading it of each run of a large event takes long; this does not.
    #[must_use]
    pub fn has_order(&self) -> bool {
        self.order_text().is_some_and(ExecutionOrder::names_a_run)
    }

    /// Whether another run is of the same event, as far as is known: they bear the same order.
    pub(crate) fn is_of_event_of(&self, other: &Self) -> bool {
        let order = self.order_text();
        order.is_some() && order == other.order_text()
    }

    fn order_text(&self) -> Option<&str> {
        let text = self.annotation(vocabulary::OUR_EXECUTION_ORDER);
        text.or_else(|| self.annotation(vocabulary::EXECUTION_ORDER))
    }

    /// The state that the annotation-based system keeps on it.
    #[must_use]
    pub fn state(&self) -> Option<PacState> {
        self.annotation(vocabulary::STATE).and_then(PacState::parse)
    }

    /// The token that it was started with by this software, if it was.
    #[must_use]
    pub fn token(&self) -> Option<FencingToken> {
        let number = self.annotation(vocabulary::TOKEN)?.parse().ok()?;
        Some(FencingToken::new(number))
    }

    /// The name of the global Repository of the controller that made it, where it says so.
    #[must_use]
    pub fn global_repository(&self) -> Option<String> {
        let info = self.annotation(vocabulary::CONTROLLER_INFO)?;
        let info: Value = serde_json::from_str(info).ok()?;
        let name = info.get("gRepo")?.as_str()?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// Whether an admission policy, or this software, has held it back for us.
    #[must_use]
    pub fn is_held_for_us(&self) -> bool {
        self.annotation(vocabulary::HELD) == Some("true")
    }

    /// Whether Pipelines-as-Code created it.
    #[must_use]
    pub fn is_of_pac(&self) -> bool {
        self.label(vocabulary::MANAGED_BY) == Some(vocabulary::PAC_MANAGER)
    }

    /// Whether another controller decides when and where it runs: Kueue, or one that
    /// `spec.managedBy` names. A [canary](vocabulary::CANARY) counts as one.
    #[must_use]
    pub fn is_foreign(&self) -> bool {
        let other = |name: &str| !name.is_empty() && name != vocabulary::TEKTON_MANAGER;
        self.label(vocabulary::KUEUE_QUEUE).is_some()
            || self.label(vocabulary::CANARY).is_some()
            || self.managed_by.as_deref().is_some_and(other)
    }

    /// Whether it has ended: `Succeeded` is true or false.
    #[must_use]
    pub fn is_done(&self) -> bool {
        let condition = self.succeeded.as_ref();
        condition.is_some_and(|condition| condition.status != ConditionStatus::Unknown)
    }

    /// Whether Tekton has ever begun to run it.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.started.is_some()
    }

    /// An annotation of [`vocabulary::ANNOTATIONS`].
    #[must_use]
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str)
    }

    /// A label of [`vocabulary::LABELS`].
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }
}

/// A PipelineRun as people write it: name, namespace and uid may be missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct RunManifest {
    /// Its namespace, if the text has it.
    pub namespace: Option<String>,
    /// Its name, if the text has it.
    pub name: Option<String>,
    /// The start of its name, where the cluster makes the rest up.
    pub generate_name: Option<String>,
    /// Its uid, if it was read from a cluster.
    pub uid: Option<Uid>,
    /// As of [`RunView::version`].
    pub version: Option<ResourceVersion>,
    /// As of [`RunView::created`].
    pub created: Option<Timestamp>,
    /// As of [`RunView::deleted`].
    pub deleted: Option<Timestamp>,
    /// As of [`RunView::labels`].
    pub labels: BTreeMap<String, String>,
    /// As of [`RunView::annotations`].
    pub annotations: BTreeMap<String, String>,
    /// As of [`RunView::other_labels`].
    pub other_labels: BTreeMap<String, String>,
    /// As of [`RunView::other_annotations`].
    pub other_annotations: BTreeMap<String, String>,
    /// As of [`RunView::spec_status`].
    pub spec_status: SpecStatus,
    /// As of [`RunView::managed_by`].
    pub managed_by: Option<String>,
    /// As of [`RunView::succeeded`].
    pub succeeded: Option<Condition>,
    /// As of [`RunView::started`].
    pub started: Option<Timestamp>,
    /// As of [`RunView::completed`].
    pub completed: Option<Timestamp>,
}

impl RunManifest {
    /// Reads one run from its YAML or JSON.
    ///
    /// # Errors
    /// [`ModelError`] for a text that is not one document, and a field that is needed and has
    /// another type than Tekton gives it.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        Self::read(&single(text)?)
    }

    /// The run as it is in a cluster.
    ///
    /// # Errors
    /// [`ModelError`] when it has no namespace, name or uid, or names that break the rules of
    /// Kubernetes.
    pub fn into_view(self) -> Result<RunView, ModelError> {
        let (namespace, name) = (self.namespace.clone(), self.name.clone());
        let object = match (&namespace, &name) {
            (Some(namespace), Some(name)) => format!("PipelineRun {namespace}/{name}"),
            (_, name) => format!(
                "PipelineRun {}",
                name.as_deref().unwrap_or("without a name")
            ),
        };
        let missing = |field: &str| {
            let rule = "is missing; every object that was read from a cluster has it";
            ModelError::new(&object, field, rule)
        };
        let namespace = namespace.ok_or_else(|| missing("metadata.namespace"))?;
        let name = name.ok_or_else(|| missing("metadata.name"))?;
        let key = PipelineRunKey::new(&namespace, &name)
            .map_err(|invalid| ModelError::new(&object, "metadata.name", invalid.rule()))?;
        let uid = self.uid.clone().ok_or_else(|| missing("metadata.uid"))?;
        Ok(self.with_identity(key, uid))
    }

    /// The run as it would be in a cluster under this name and uid.
    #[must_use]
    pub fn with_identity(self, key: PipelineRunKey, uid: Uid) -> RunView {
        RunView {
            key,
            uid,
            version: self.version,
            generate_name: self.generate_name,
            created: self.created,
            deleted: self.deleted,
            labels: self.labels,
            annotations: self.annotations,
            other_labels: self.other_labels,
            other_annotations: self.other_annotations,
            spec_status: self.spec_status,
            managed_by: self.managed_by,
            succeeded: self.succeeded,
            started: self.started,
            completed: self.completed,
        }
    }

    pub(super) fn read(map: &Map<String, Value>) -> Result<Self, ModelError> {
        let object = describe("PipelineRun", map);
        let top = Fields::of(&object, map);
        let (metadata, spec) = (top.inner("metadata")?, top.inner("spec")?);
        let status = top.inner("status")?;
        let text = |fields: &Fields<'_>, name| Ok(fields.text(name)?.map(str::to_owned));
        let uid = metadata.text("uid")?.map(str::parse::<Uid>).transpose();
        let mut annotations = marks(&metadata, "annotations", vocabulary::ANNOTATIONS)?;
        annotations.extend(section_marks(&metadata)?);
        Ok(Self {
            namespace: text(&metadata, "namespace")?,
            name: text(&metadata, "name")?,
            generate_name: text(&metadata, "generateName")?,
            uid: uid.map_err(|invalid| metadata.error("uid", invalid.rule()))?,
            version: version(&metadata)?,
            created: timestamp(&metadata, "creationTimestamp")?,
            deleted: timestamp(&metadata, "deletionTimestamp")?,
            labels: marks(&metadata, "labels", vocabulary::LABELS)?,
            annotations,
            other_labels: other_marks(&metadata, "labels", |name| {
                vocabulary::LABELS.contains(&name)
            })?,
            other_annotations: other_marks(&metadata, "annotations", vocabulary::keeps_annotation)?,
            spec_status: SpecStatus::parse(spec.text("status")?.unwrap_or_default()),
            managed_by: text(&spec, "managedBy")?,
            succeeded: succeeded(&status)?,
            started: timestamp(&status, "startTime")?,
            completed: timestamp(&status, "completionTime")?,
        })
    }
}

fn succeeded(status: &Fields<'_>) -> Result<Option<Condition>, ModelError> {
    for condition in status.list("conditions")? {
        if condition.text("type")? != Some(vocabulary::SUCCEEDED) {
            continue;
        }
        let value = condition.scalar("status")?.unwrap_or_default();
        let found = match value.to_ascii_lowercase().as_str() {
            "true" => ConditionStatus::True,
            "false" => ConditionStatus::False,
            "unknown" => ConditionStatus::Unknown,
            _ => {
                let expected = "\"True\", \"False\" or \"Unknown\"";
                return Err(condition.wrong("status", &Value::String(value), expected));
            }
        };
        let reason = condition.text("reason")?.unwrap_or_default();
        return Ok(Some(Condition::new(found, reason)));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: website-go-x7k2p
  generateName: website-go-
  namespace: ci
  uid: e102ca01-ea05-4154-b8e8-0bf7bbc2d43f
  resourceVersion: "228"
  creationTimestamp: "2026-11-29T08:00:01Z"
  labels:
    app.kubernetes.io/managed-by: pipelinesascode.tekton.dev
    pipelinesascode.tekton.dev/state: started
    somebody/else: x
  annotations:
    pipelinesascode.tekton.dev/repository: website
    pipelinesascode.tekton.dev/state: queued
    pipelinesascode.tekton.dev/execution-order: ci/website-go-x7k2p,bad,ci/website-doc-1
  managedFields: [{manager: x, fieldsV1: {"f:spec": {}}}]
spec:
  status: PipelineRunPending
  pipelineSpec: {tasks: [{name: a, taskSpec: {steps: [{image: x, script: "exit 0"}]}}]}
status:
  conditions:
  - {type: Ready, status: "True"}
  - {type: Succeeded, status: Unknown, reason: PipelineRunPending, message: held}
"#;

    #[test]
    fn a_run_is_read_as_far_as_it_matters() {
        let run = RunView::parse(RUN).unwrap();
        assert_eq!(run.key.as_str(), "ci/website-go-x7k2p");
        assert_eq!(run.repository().unwrap().as_str(), "ci/website");
        assert_eq!(run.spec_status, SpecStatus::Pending);
        assert_eq!(run.state(), Some(PacState::Queued));
        assert_eq!(
            run.created,
            Some(Timestamp::from_unix_millis(1_795_939_201_000))
        );
        assert_eq!(run.order().unwrap().runs().len(), 2);
        assert!(run.has_order());
        assert!(run.is_of_pac() && !run.is_done() && !run.has_started() && !run.is_foreign());
        assert!(!run.labels.contains_key("somebody/else"));
        assert_eq!(run.version, Some(ResourceVersion::new(228)));
    }

    #[test]
    fn json_of_the_api_is_read_by_the_same_rules() {
        let json = |status: &str| {
            format!(
                "{{\"metadata\":{{\"name\":\"a\",\"namespace\":\"ci\",\"uid\":\"u\"}},\
                 \"spec\":{{\"status\":{status}}}}}"
            )
        };
        let text = json("\"PipelineRunPending\"");
        assert_eq!(RunView::from_json(&text), RunView::parse(&text));
        let error = RunView::from_json(&json("5")).unwrap_err();
        assert_eq!(
            (error.object(), error.field()),
            ("PipelineRun ci/a", "spec.status")
        );
        assert!(
            RunView::from_json("[]")
                .unwrap_err()
                .rule()
                .contains("must be an object")
        );
    }

    #[test]
    fn runs_of_other_controllers_are_known_as_such() {
        let kueue = RUN.replace("somebody/else", vocabulary::KUEUE_QUEUE);
        assert!(RunView::parse(&kueue).unwrap().is_foreign());
        let by = |who| RUN.replace("spec:\n", &format!("spec:\n  managedBy: {who}\n"));
        assert!(
            RunView::parse(&by("kueue.x-k8s.io/multikueue"))
                .unwrap()
                .is_foreign()
        );
        assert!(
            !RunView::parse(&by("tekton.dev/pipeline"))
                .unwrap()
                .is_foreign()
        );
    }

    #[test]
    fn what_people_write_needs_no_name() {
        let text = "kind: PipelineRun\nmetadata: {generateName: go-, annotations: {pipelinesascode.\
                    tekton.dev/state: 5}}\n";
        let manifest = RunManifest::parse(text).unwrap();
        assert_eq!(manifest.generate_name.as_deref(), Some("go-"));
        let error = manifest.into_view().unwrap_err();
        assert_eq!(error.field(), "metadata.namespace");
    }

    #[test]
    fn errors_name_object_field_rule_and_cure() {
        for (from, to, field, rule) in [
            ("  uid: e", "  uid: \"/e", "line", ""),
            ("uid: e102", "uid: e/102", "metadata.uid", "1 to 128"),
            ("  uid: ", "  other: ", "metadata.uid", "is missing"),
            (
                "name: website-go-x7k2p",
                "name: Website",
                "metadata.name",
                "lower-case",
            ),
            (
                "status: Unknown",
                "status: Perhaps",
                "status.conditions[1].status",
                "\"True\"",
            ),
            (
                "\"2026-11-29T08",
                "\"2026-11-99T08",
                "metadata.creationTimestamp",
                "a time such",
            ),
            (
                "status: PipelineRunPending",
                "status: {}",
                "spec.status",
                "must be a text",
            ),
        ] {
            let error = RunView::parse(&RUN.replacen(from, to, 1)).unwrap_err();
            assert!(error.field().starts_with(field), "{error}");
            assert!(error.rule().contains(rule), "{error}");
        }
    }

    #[test]
    fn every_cancel_form_is_told_apart_from_what_is_not_known() {
        for (text, cancel, graceful) in [
            ("Cancelled", true, false),
            ("CancelledRunFinally", true, true),
            ("StoppedRunFinally", true, true),
            ("PipelineRunPending", false, false),
            ("", false, false),
            ("Paused", false, false),
        ] {
            let status = SpecStatus::parse(text);
            assert_eq!(
                (status.is_cancel(), status.is_graceful()),
                (cancel, graceful),
                "{text}"
            );
            assert_eq!(status.as_str(), text);
        }
    }
}
