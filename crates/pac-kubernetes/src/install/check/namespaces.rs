//! The step about what Namespaces say.

use std::collections::BTreeMap;

use pac_core::RepositoryKey;
use pac_pipelines::lanes::{NamespaceRule, is_lane};
use pac_pipelines::model::NamespaceView;
use pac_pipelines::vocabulary::{HOLD_RUNS, LIMIT, NAMESPACE_ANNOTATIONS};
use serde_json::Value;

use super::super::api::{ClusterAccess, NAMESPACE, Place, REPOSITORY};
use super::super::options::{Admission, Install, InstallMode};
use super::super::runs::some_of;
use super::{Examined, ok, skipped, wrong};

pub(super) async fn namespaces(access: &ClusterAccess, install: &Install) -> Examined {
    let place = Place::new(NAMESPACE, None, "");
    let keep = |object: &Value| {
        let annotations = object.pointer("/metadata/annotations")?.as_object()?;
        let ours = annotations.iter();
        let ours = ours.filter(|(name, _)| NAMESPACE_ANNOTATIONS.contains(&name.as_str()));
        let ours: BTreeMap<String, String> = ours
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect();
        let name = object.pointer("/metadata/name")?.as_str()?;
        let is_left_alone = install.excluded_namespaces.contains(name);
        let mut view = NamespaceView::new(name);
        view.annotations = ours;
        let labels = object.pointer("/metadata/labels");
        let label = labels.and_then(|labels| labels.get(HOLD_RUNS));
        let is_labelled = label.and_then(Value::as_str) == Some("true");
        (!view.annotations.is_empty() && !is_left_alone).then_some((view, is_labelled))
    };
    let all = access.list(place, "", keep).await?;
    if install.mode != InstallMode::Gate {
        if all.is_empty() {
            return skipped("only the mode gate looks at annotations of Namespaces");
        }
        let names: Vec<String> = all.into_iter().map(|(view, _)| view.name).collect();
        let message = format!(
            "{} have annotations about queues, which only the mode gate looks at; remove them, or \
             install that mode",
            some_of(&names)
        );
        return wrong("Namespaces", message);
    }
    if install.admission == Admission::Webhook {
        let unlabelled = all.iter().filter(|(_, is_labelled)| !is_labelled);
        let names: Vec<String> = unlabelled.map(|(view, _)| view.name.clone()).collect();
        if let Some(one) = names.first() {
            let message = format!(
                "{} have annotations about queues, and the webhook holds none of their runs back \
                 without the label {HOLD_RUNS}: kubectl label namespace {one} {HOLD_RUNS}=true",
                some_of(&names)
            );
            return wrong("Namespaces", message);
        }
    }
    let rules = all
        .iter()
        .map(|(view, _)| (view.name.as_str(), NamespaceRule::of(view)));
    let rules: BTreeMap<&str, NamespaceRule> = rules.collect();
    let problems = rules.values().flat_map(NamespaceRule::problems);
    let problems: Vec<String> = problems.map(ToString::to_string).collect();
    if !problems.is_empty() {
        return wrong("Namespaces", problems.join("; "));
    }
    in_their_way(access, &rules).await?;
    let lanes = rules.values().filter(|rule| rule.has_lanes()).count();
    ok(format!(
        "{} Namespaces with a limit, {lanes} of them with lanes",
        rules.len()
    ))
}

/// Refuses Repositories whose runs no lane can take.
async fn in_their_way(
    access: &ClusterAccess,
    rules: &BTreeMap<&str, NamespaceRule>,
) -> Result<(), super::InstallError> {
    let keep = |object: &Value| {
        let text = |field: &str| object.pointer(field).and_then(Value::as_str);
        let key = RepositoryKey::new(text("/metadata/namespace")?, text("/metadata/name")?).ok()?;
        let has_lanes = rules
            .get(key.namespace())
            .is_some_and(NamespaceRule::has_lanes);
        let annotations = object.pointer("/metadata/annotations");
        let is_limited = annotations.is_some_and(|all| all.get(LIMIT).is_some());
        let why = match (is_lane(&key), has_lanes && is_limited) {
            (true, _) => "has a name that begins with \"lane.\", as those of lanes do",
            (false, true) => "has a limit of its own, and its Namespace has lanes",
            (false, false) => return None,
        };
        Some(format!("{key} {why}"))
    };
    let found = access
        .list(Place::new(REPOSITORY, None, ""), "", keep)
        .await?;
    if found.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{}: none of their runs starts; give them another name, or remove one of the limits",
        some_of(&found)
    );
    wrong("Repositories", message).map(drop)
}
