//! A PipelineRun that does nothing, to see what happens to it.

use std::time::{Duration, Instant};

use pac_pipelines::vocabulary::{
    CANARY, EXECUTION_ORDER, MANAGED_BY, OUR_EXECUTION_ORDER, PAC_MANAGER, PENDING, REPOSITORY,
    STATE, TOKEN,
};
use serde_json::{Value, json};

use super::api::{Change, ClusterAccess, Place, REPOSITORY as REPOSITORIES, RUN};
use super::apply::LOOK_AGAIN;
use super::error::InstallError;

/// What the names of the runs begin with.
const NAME: &str = "pac-canary-";

/// What became of a canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Canary {
    /// It stayed pending for the whole time.
    StayedPending,
    /// A controller has started it, with this token, one that does not know its label: nothing is
    /// known of Pipelines-as-Code.
    StartedByUs(String),
    /// Something else has started it.
    StartedByOthers,
    /// It was deleted meanwhile.
    Gone,
}

/// Whether the policy of the mode takeover acts in a namespace: asks what would be created, and
/// creates nothing.
pub(super) async fn policy_acts(
    access: &ClusterAccess,
    namespace: &str,
) -> Result<bool, InstallError> {
    let order = format!("{namespace}/{NAME}dry-run");
    let run = manifest(namespace, "pac-canary", &[(EXECUTION_ORDER, &order)]);
    let created = access
        .create(Place::new(RUN, namespace, ""), run, true)
        .await?;
    let annotation = |key: &str| annotation(&created, key);
    Ok(annotation(OUR_EXECUTION_ORDER) == Some(&order) && annotation(EXECUTION_ORDER).is_none())
}

/// The Repository that a canary in this namespace belongs to: rather one with a limit, where
/// Pipelines-as-Code has a queue. `None` where there is none.
pub(super) async fn repository(
    access: &ClusterAccess,
    namespace: &str,
) -> Result<Option<String>, InstallError> {
    let place = Place::new(REPOSITORIES, namespace, "");
    let keep = |object: &Value| {
        let name = object.pointer("/metadata/name").and_then(Value::as_str)?;
        let is_unlimited = object.pointer("/spec/concurrency_limit").is_none();
        Some((is_unlimited, name.to_owned()))
    };
    let all = access.list(place, "", keep).await?;
    Ok(all.into_iter().min().map(|(_, name)| name))
}

/// Creates a run as it is held back after the policy has moved its order, looks at it for `time`,
/// and removes it. Dropped in flight, it leaves the run behind, which never runs a step.
pub(super) async fn watch(
    access: &ClusterAccess,
    namespace: &str,
    repository: &str,
    time: Duration,
) -> Result<Canary, InstallError> {
    let order = format!("{namespace}/{NAME}self");
    let marks = [(OUR_EXECUTION_ORDER, order.as_str()), (STATE, "queued")];
    let run = manifest(namespace, repository, &marks);
    let created = access
        .create(Place::new(RUN, namespace, ""), run, false)
        .await?;
    let text = |pointer: &str| {
        created
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let place = Place::new(RUN, namespace, text("/metadata/name"));
    let seen = look(access, place, time).await;
    let removed = remove(access, place, text("/metadata/uid")).await;
    let seen = seen?;
    removed?;
    Ok(seen)
}

async fn look(
    access: &ClusterAccess,
    place: Place<'_>,
    time: Duration,
) -> Result<Canary, InstallError> {
    let started = Instant::now();
    loop {
        let Some(run) = access.get(place).await? else {
            return Ok(Canary::Gone);
        };
        if run.pointer("/spec/status").and_then(Value::as_str) != Some(PENDING) {
            return Ok(match annotation(&run, TOKEN) {
                Some(token) => Canary::StartedByUs(token.to_owned()),
                None => Canary::StartedByOthers,
            });
        }
        if started.elapsed() >= time {
            return Ok(Canary::StayedPending);
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Removes the run. It is marked as completed before, so that Pipelines-as-Code lets it go and
/// reports nothing.
async fn remove(access: &ClusterAccess, place: Place<'_>, uid: &str) -> Result<(), InstallError> {
    let completed = json!({"metadata": {
        "annotations": {STATE: "completed"}, "labels": {STATE: "completed"},
    }});
    access.change(place, Change::Merge(completed)).await?;
    access.delete(place, uid).await.map(drop).map_err(|error| {
        let message = format!("{}; remove it by hand", error.message());
        InstallError::new(error.kind(), error.subject(), message)
    })
}

/// A held run whose one task is skipped, should it ever start.
fn manifest(namespace: &str, repository: &str, marks: &[(&str, &str)]) -> Value {
    let mut run = json!({
        "apiVersion": RUN.api_version,
        "kind": RUN.name,
        "metadata": {
            "generateName": NAME,
            "namespace": namespace,
            "labels": {MANAGED_BY: PAC_MANAGER, STATE: "started", CANARY: "true"},
            "annotations": {REPOSITORY: repository},
        },
        "spec": {
            "status": PENDING,
            "pipelineSpec": {"tasks": [{
                "name": "nothing",
                "when": [{"input": "canary", "operator": "in", "values": ["never"]}],
                "taskSpec": {"steps": [{
                    "name": "nothing", "image": "busybox", "command": ["true"],
                }]},
            }]},
        },
    });
    let annotations = run
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut);
    if let Some(annotations) = annotations {
        annotations.extend(
            marks
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).into())),
        );
    }
    run
}

fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations")?.get(key)?.as_str()
}
