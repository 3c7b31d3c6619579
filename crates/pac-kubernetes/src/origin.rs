//! What PipelineRuns were made for, as Pipelines-as-Code says on them.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pac_core::{PipelineRunKey, Uid};
use pac_pipelines::{ClusterError, vocabulary};

use crate::cluster::KubernetesCluster;

/// How many characters of one field are kept: no branch is as long.
const LONGEST: usize = 512;

/// What a PipelineRun was made for. Each field is `None` where the run does not say, has at most 512
/// characters, and no control characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunOrigin {
    /// The kind of event: `pull_request`, `push`, `incoming`.
    pub event_type: Option<String>,
    /// The branch; of a pull request, the one that it is to be merged into.
    pub branch: Option<String>,
    /// The branch that a pull request comes from.
    pub source_branch: Option<String>,
    /// The number of the pull request.
    pub pull_request: Option<String>,
    /// The commit.
    pub sha: Option<String>,
}

/// What the PipelineRuns of a namespace were made for.
#[derive(Debug, Clone, Default)]
pub struct RunOrigins(HashMap<PipelineRunKey, (Uid, RunOrigin)>);

impl RunOrigins {
    /// What the run of this name and uid was made for; `None` where the list did not have it.
    #[must_use]
    pub fn get(&self, run: &PipelineRunKey, uid: &Uid) -> Option<&RunOrigin> {
        let (found, origin) = self.0.get(run)?;
        // In a section the store has the uid with the number of the request.
        let uid = uid.as_str().split(':').next();
        (Some(found.as_str()) == uid).then_some(origin)
    }
}

impl KubernetesCluster {
    /// Reads what the runs of a namespace were made for, those that the
    /// [selector](crate::KubernetesOptions::run_selector) selects: their metadata, page by page.
    /// Dropped in flight, nothing is left.
    ///
    /// # Errors
    /// [`ClusterError`] when the cluster could not be asked, did not answer within the deadlines of
    /// its [options](crate::KubernetesOptions), or refused.
    pub async fn origins(&self, namespace: &str) -> Result<RunOrigins, ClusterError> {
        let runs = self.client().run_metadata(namespace, origin).await;
        let runs = runs.map_err(|failure| failure.of_read("list runs", namespace))?;
        Ok(RunOrigins(runs.into_iter().flatten().collect()))
    }
}

/// What a run was made for, by its name; `None` for one without a name or a uid.
fn origin(run: ObjectMeta) -> Option<(PipelineRunKey, (Uid, RunOrigin))> {
    let key = PipelineRunKey::new(run.namespace.as_deref()?, run.name.as_deref()?).ok()?;
    let uid = run.uid?.parse().ok()?;
    // A label has been made fit for a label.
    let maps = [run.annotations, run.labels];
    let mark = |name: &str| {
        let marks = maps.iter().flatten();
        let mark = marks.filter_map(|map: &BTreeMap<String, String>| map.get(name));
        let mut shown = mark.map(|text| shown(text));
        shown.find(|text| !text.is_empty())
    };
    let origin = RunOrigin {
        event_type: mark(vocabulary::EVENT_TYPE),
        branch: mark(vocabulary::BRANCH),
        source_branch: mark(vocabulary::SOURCE_BRANCH),
        pull_request: mark(vocabulary::PULL_REQUEST),
        sha: mark(vocabulary::SHA),
    };
    Some((key, (uid, origin)))
}

/// A text as it may be shown: whoever may write an object may write anything into it.
fn shown(text: &str) -> String {
    let shown = text.trim().chars().filter(|c| !c.is_control());
    shown.take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(labels: &serde_json::Value, annotations: &serde_json::Value) -> RunOrigin {
        let run = json!({"name": "a", "namespace": "ci", "uid": "u",
            "labels": labels, "annotations": annotations});
        let (key, (uid, found)) = origin(serde_json::from_value(run).unwrap()).unwrap();
        assert_eq!((key.as_str(), uid.as_str()), ("ci/a", "u"));
        found
    }

    #[test]
    fn an_annotation_is_taken_before_its_label() {
        let found = of(
            &json!({vocabulary::BRANCH: "feature-x", vocabulary::SHA: "4f1e2ab9"}),
            &json!({vocabulary::BRANCH: "feature/x", vocabulary::PULL_REQUEST: "12",
                vocabulary::SOURCE_BRANCH: ""}),
        );
        assert_eq!(found.branch.as_deref(), Some("feature/x"));
        assert_eq!(found.sha.as_deref(), Some("4f1e2ab9"));
        assert_eq!(found.pull_request.as_deref(), Some("12"));
        assert_eq!((found.event_type, found.source_branch), (None, None));
    }

    #[test]
    fn what_a_terminal_would_act_on_is_dropped_and_what_is_long_is_cut() {
        let found = of(
            &json!({}),
            &json!({vocabulary::BRANCH: "\u{1b}[31mred\n", vocabulary::SHA: "ü".repeat(2_000)}),
        );
        assert_eq!(found.branch.as_deref(), Some("[31mred"));
        assert_eq!(found.sha.unwrap().chars().count(), LONGEST);
    }

    #[test]
    fn a_run_of_another_uid_is_another_run() {
        let origins = RunOrigins(HashMap::from([(
            "ci/a".parse().unwrap(),
            ("u".parse().unwrap(), RunOrigin::default()),
        )]));
        let run = "ci/a".parse().unwrap();
        assert!(origins.get(&run, &"u".parse().unwrap()).is_some());
        assert!(origins.get(&run, &"v".parse().unwrap()).is_none());
        assert!(origin(ObjectMeta::default()).is_none());
    }
}
