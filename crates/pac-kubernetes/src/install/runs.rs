//! The PipelineRuns of a cluster, as far as an installation has to know them.

use pac_pipelines::model::ExecutionOrder;
use pac_pipelines::vocabulary::{
    EXECUTION_ORDER, HELD, KUEUE_QUEUE, MANAGED_BY, OUR_EXECUTION_ORDER, PAC_MANAGER, PENDING,
    STATE, SUCCEEDED, TOKEN,
};
use serde_json::Value;

use super::api::{ClusterAccess, Place, RUN};
use super::error::InstallError;
use super::options::Install;

/// A PipelineRun that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LiveRun {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    /// Whether it is held back: `spec.status` is `PipelineRunPending`.
    pub(super) pending: bool,
    /// The execution order that Pipelines-as-Code goes by.
    pub(super) pac_order: Option<String>,
    /// The execution order where the policy has moved it.
    pub(super) our_order: Option<String>,
    /// Whether the gate's policy has held it back.
    pub(super) held_by_gate: bool,
    /// Whether the controller has started it.
    pub(super) has_token: bool,
    /// The state that Pipelines-as-Code has written.
    pub(super) state: Option<String>,
}

impl LiveRun {
    /// Reads a run; `None` for one that has ended, and for one that is Kueue's.
    pub(super) fn read(run: &Value) -> Option<Self> {
        let metadata = run.get("metadata")?;
        let text = |field: &str| {
            let text = metadata.get(field).and_then(Value::as_str);
            text.unwrap_or_default().to_owned()
        };
        let annotation = |key: &str| {
            let text = metadata.get("annotations")?.get(key)?.as_str()?;
            Some(text.to_owned())
        };
        let is_kueues = metadata
            .get("labels")
            .is_some_and(|labels| labels.get(KUEUE_QUEUE).is_some());
        if is_kueues || is_done(run) {
            return None;
        }
        Some(Self {
            namespace: text("namespace"),
            name: text("name"),
            uid: text("uid"),
            pending: run.pointer("/spec/status").and_then(Value::as_str) == Some(PENDING),
            pac_order: annotation(EXECUTION_ORDER),
            our_order: annotation(OUR_EXECUTION_ORDER),
            held_by_gate: annotation(HELD).as_deref() == Some("true"),
            has_token: annotation(TOKEN).is_some(),
            state: annotation(STATE),
        })
    }

    /// Whether it waits for the controller, or was started by it and not given back since.
    pub(super) fn is_ours(&self) -> bool {
        let started = self.has_token && self.pac_order.is_none();
        started || self.our_order.is_some() || (self.pending && self.held_by_gate)
    }

    /// Whether it has no order anywhere, though it waits in a queue or was started from one.
    pub(super) fn lacks_an_order(&self) -> bool {
        let is_queued = self.pending && self.state.as_deref() == Some("queued");
        let was_started = !self.pending && self.has_token;
        self.our_order.is_none() && self.pac_order.is_none() && (is_queued || was_started)
    }

    /// Whether it waits in the queue of Pipelines-as-Code.
    pub(super) fn waits_in_pac(&self) -> bool {
        self.pending && self.pac_order.is_some()
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place::new(RUN, self.namespace.as_str(), &self.name)
    }

    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// The runs that have not ended: those of Pipelines-as-Code, or all, outside of the namespaces
/// that are left alone.
pub(super) async fn live(
    access: &ClusterAccess,
    install: &Install,
    of_pac_alone: bool,
) -> Result<Vec<LiveRun>, InstallError> {
    let selector = match of_pac_alone {
        true => format!("{MANAGED_BY}={PAC_MANAGER}"),
        false => String::new(),
    };
    let keep = |run: &Value| {
        LiveRun::read(run).filter(|run| !install.excluded_namespaces.contains(&run.namespace))
    };
    access
        .list(Place::new(RUN, None, ""), &selector, keep)
        .await
}

/// Up to three names of runs, and how many there are.
pub(super) fn some<'a>(runs: impl IntoIterator<Item = &'a LiveRun>) -> String {
    let keys: Vec<String> = runs.into_iter().map(LiveRun::key).collect();
    some_of(&keys)
}

/// Up to three of these, and how many there are.
pub(super) fn some_of(names: &[String]) -> String {
    let shown: Vec<&str> = names.iter().take(3).map(String::as_str).collect();
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// An order without the entries that no run can be named by: one of them ends the watcher of
/// Pipelines-as-Code whenever it starts.
pub(super) fn well_formed(order: &str) -> String {
    ExecutionOrder::parse(order).to_string()
}

fn is_done(run: &Value) -> bool {
    let conditions = run.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|condition| {
        let is = |field: &str, wanted: &str| {
            condition.get(field).and_then(Value::as_str) == Some(wanted)
        };
        is("type", SUCCEEDED) && (is("status", "True") || is("status", "False"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(annotations: &Value, spec: &Value, status: &Value) -> Value {
        json!({
            "metadata": {"namespace": "ci", "name": "a", "uid": "u", "annotations": annotations},
            "spec": spec, "status": status,
        })
    }

    #[test]
    fn what_has_ended_and_what_is_kueues_is_left_out() {
        let condition =
            |status: &str| json!({"conditions": [{"type": SUCCEEDED, "status": status}]});
        for (status, live) in [("True", false), ("False", false), ("Unknown", true)] {
            let run = run(&json!({}), &json!({}), &condition(status));
            assert_eq!(LiveRun::read(&run).is_some(), live, "{status}");
        }
        let mut kueues = run(&json!({}), &json!({}), &json!({}));
        kueues["metadata"]["labels"] = json!({KUEUE_QUEUE: "q"});
        assert_eq!(LiveRun::read(&kueues), None);
    }

    #[test]
    fn it_is_known_which_queue_a_run_is_in() {
        let pending = json!({"status": PENDING});
        let of = |annotations: Value, spec: &Value| {
            LiveRun::read(&run(&annotations, spec, &json!({}))).unwrap()
        };
        assert!(of(json!({OUR_EXECUTION_ORDER: "ci/a"}), &pending).is_ours());
        assert!(of(json!({TOKEN: "3"}), &json!({})).is_ours());
        assert!(of(json!({HELD: "true"}), &pending).is_ours());
        let of_pac = of(json!({EXECUTION_ORDER: "ci/a"}), &pending);
        assert!(of_pac.waits_in_pac() && !of_pac.is_ours());
        assert!(!of(json!({EXECUTION_ORDER: "ci/a"}), &json!({})).waits_in_pac());
        // It was given back.
        assert!(!of(json!({TOKEN: "3", EXECUTION_ORDER: "ci/a"}), &json!({})).is_ours());
    }

    #[test]
    fn a_run_of_a_queue_may_have_no_order() {
        let of = |annotations: Value, status: &str| {
            LiveRun::read(&run(&annotations, &json!({"status": status}), &json!({}))).unwrap()
        };
        assert!(of(json!({STATE: "queued"}), PENDING).lacks_an_order());
        assert!(of(json!({TOKEN: "3"}), "").lacks_an_order());
        assert!(!of(json!({}), PENDING).lacks_an_order());
        assert!(!of(json!({STATE: "started"}), "").lacks_an_order());
        assert!(!of(json!({TOKEN: "3", OUR_EXECUTION_ORDER: "ci/a"}), "").lacks_an_order());
    }

    #[test]
    fn many_names_are_counted() {
        let names: Vec<String> = ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec();
        assert_eq!(some_of(&names[..2]), "a, b");
        assert_eq!(some_of(&names), "a, b, c and 2 more");
    }

    #[test]
    fn a_malformed_entry_is_not_given_back() {
        assert_eq!(well_formed("ci/a,oops,ci/b"), "ci/a,ci/b");
    }
}
