//! From an admission review to its answer. Pure.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pac_core::RepositoryKey;
use pac_pipelines::vocabulary::{
    EXECUTION_ORDER, HELD, KUEUE_QUEUE, LIMIT, MANAGED_BY, OUR_EXECUTION_ORDER, REPOSITORY,
};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Value, json};

use super::rule::{Rule, Verdict};

/// The version of reviews that is understood.
const VERSION: &str = "admission.k8s.io/v1";

/// The kind of a review.
const KIND: &str = "AdmissionReview";

/// The labels and annotations that the rules look at. Nothing else of the maps is kept.
const KEPT: [&str; 6] = [
    EXECUTION_ORDER,
    HELD,
    KUEUE_QUEUE,
    MANAGED_BY,
    OUR_EXECUTION_ORDER,
    REPOSITORY,
];

/// What is known of the limit of a Repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lookup {
    /// The Repository bears the annotation
    /// [`vocabulary::LIMIT`](pac_pipelines::vocabulary::LIMIT).
    Limited,
    /// It bears no such annotation, or there is no such Repository.
    Unlimited,
    /// It could not be read, for this reason.
    Unknown(String),
}

impl Lookup {
    /// What a Repository that was read says; `None` where there is none.
    pub(super) fn of(repository: Option<&Value>) -> Self {
        let annotations = repository.and_then(|found| found.pointer("/metadata/annotations"));
        match annotations.is_some_and(|all| all.get(LIMIT).is_some()) {
            true => Self::Limited,
            false => Self::Unlimited,
        }
    }
}

/// Why a body has no answer: it is no review, and names no request that an answer could be of. To
/// be answered with the status 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the body is no {KIND} of {VERSION}: {0}")]
pub(super) struct Refusal(String);

/// How far a review can be answered without reading anything.
#[derive(Debug)]
pub(super) enum Considered {
    /// This is the answer.
    Answered(Vec<u8>),
    /// The answer depends on a Repository.
    Asks(Question),
}

/// A review whose answer depends on a Repository.
#[derive(Debug)]
pub(super) struct Question {
    rule: Rule,
    uid: String,
    repository: RepositoryKey,
    patch: json_patch::Patch,
}

impl Question {
    pub(super) fn repository(&self) -> &RepositoryKey {
        &self.repository
    }

    pub(super) fn answer(&self, found: &Lookup) -> Vec<u8> {
        match found {
            Lookup::Limited => changed(&self.uid, &self.patch),
            Lookup::Unlimited => unchanged(&self.uid),
            Lookup::Unknown(why) => {
                let message = format!(
                    "the Repository {} cannot be read: {why}; try again",
                    self.repository
                );
                unsure(self.rule, &self.uid, 503, &message)
            }
        }
    }
}

/// Judges a review. What is wrong with one is told in its answer, which allows or refuses the request
/// by [`Rule::allows_when_unsure`].
///
/// # Errors
/// [`Refusal`] for a body that is no review.
pub(super) fn consider(rule: Rule, body: &[u8]) -> Result<Considered, Refusal> {
    let review: Review = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    let Some(request) = review.request.filter(|request| !request.uid.is_empty()) else {
        return Err(Refusal("request.uid is missing".to_owned()));
    };
    let uid = request.uid.as_str();
    if review.api_version != VERSION || review.kind != KIND {
        let message = format!("the review is not a {KIND} of {VERSION}");
        return Ok(Considered::Answered(unsure(rule, uid, 400, &message)));
    }
    Ok(Considered::Answered(match rule.judge(&request) {
        Ok(Verdict::Unchanged) => unchanged(uid),
        Ok(Verdict::Changed(patch)) => changed(uid, &patch),
        Ok(Verdict::IfLimited(name, patch)) => {
            match RepositoryKey::new(&request.namespace, &name) {
                Ok(repository) => {
                    return Ok(Considered::Asks(Question {
                        rule,
                        uid: request.uid,
                        repository,
                        patch,
                    }));
                }
                // No Repository can have such a name.
                Err(_) => unchanged(uid),
            }
        }
        Err(message) => unsure(rule, uid, 400, &message),
    }))
}

/// What is wrong with a body, without a word of it: a run may have anything in it.
fn unreadable(error: &serde_json::Error) -> Refusal {
    let what = match error.classify() {
        Category::Data => "a field of it is of another type",
        Category::Io | Category::Syntax | Category::Eof => "it is not JSON",
    };
    Refusal(format!(
        "{what}, at line {}, column {}",
        error.line(),
        error.column()
    ))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    request: Option<Request>,
}

/// What the API server asks about.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    pub(super) operation: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    resource: Resource,
    sub_resource: Option<String>,
    pub(super) object: Option<Object>,
    pub(super) old_object: Option<Object>,
}

impl Request {
    /// Whether it is about PipelineRuns themselves, not about a subresource of them.
    pub(super) fn is_about_runs(&self) -> bool {
        let resource = &self.resource;
        resource.group == "tekton.dev"
            && resource.version == "v1"
            && resource.resource == "pipelineruns"
            && self.sub_resource.as_deref().unwrap_or_default().is_empty()
    }
}

#[derive(Debug, Default, Deserialize)]
struct Resource {
    #[serde(default)]
    group: String,
    #[serde(default)]
    version: String,
    #[serde(default)]
    resource: String,
}

/// A PipelineRun, as far as the rules look at it.
#[derive(Debug, Deserialize)]
pub(super) struct Object {
    metadata: Option<Metadata>,
    spec: Option<Spec>,
}

impl Object {
    pub(super) fn label(&self, key: &str) -> Option<&str> {
        self.metadata.as_ref()?.labels.as_ref()?.get(key)
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.as_ref()?.annotations.as_ref()?.get(key)
    }

    /// Whether there is a map of annotations that one can be added to.
    pub(super) fn has_annotations(&self) -> Result<bool, String> {
        match &self.metadata {
            Some(metadata) => Ok(metadata.annotations.is_some()),
            None => Err("the PipelineRun has no metadata".to_owned()),
        }
    }

    /// Whether an object of one of these kinds owns it.
    pub(super) fn has_owner(&self, kinds: &[&str]) -> bool {
        let metadata = self.metadata.as_ref();
        let owners = metadata.and_then(|metadata| metadata.owner_references.as_deref());
        let mut owners = owners.unwrap_or_default().iter();
        owners.any(|owner| kinds.contains(&owner.kind.as_str()))
    }

    /// `spec.status`; empty where it is not set.
    pub(super) fn status(&self) -> Result<&str, String> {
        let Some(spec) = &self.spec else {
            return Err("the PipelineRun has no spec".to_owned());
        };
        match &spec.status {
            None | Some(Value::Null) => Ok(""),
            Some(Value::String(status)) => Ok(status),
            Some(_) => Err("spec.status of the PipelineRun is not a text".to_owned()),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    labels: Option<Texts>,
    annotations: Option<Texts>,
    owner_references: Option<Vec<Owner>>,
}

#[derive(Debug, Deserialize)]
struct Owner {
    #[serde(default)]
    kind: String,
}

#[derive(Debug, Deserialize)]
struct Spec {
    status: Option<Value>,
}

/// A map of labels or annotations with the [kept](KEPT) ones alone.
#[derive(Debug)]
struct Texts(BTreeMap<&'static str, String>);

impl Texts {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keeping;

        impl<'de> Visitor<'de> for Keeping {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                let mut texts = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    match KEPT.into_iter().find(|kept| *kept == key) {
                        Some(kept) => {
                            texts.insert(kept, map.next_value()?);
                        }
                        None => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                }
                Ok(Texts(texts))
            }
        }

        deserializer.deserialize_map(Keeping)
    }
}

fn unchanged(uid: &str) -> Vec<u8> {
    answer(json!({"uid": uid, "allowed": true}))
}

fn changed(uid: &str, patch: &json_patch::Patch) -> Vec<u8> {
    let patch = STANDARD.encode(json!(patch).to_string());
    answer(json!({"uid": uid, "allowed": true, "patchType": "JSONPatch", "patch": patch}))
}

/// The answer to a request that cannot be judged. The message reaches the user, in a warning or in
/// the refusal.
fn unsure(rule: Rule, uid: &str, code: u16, why: &str) -> Vec<u8> {
    let message = format!("rule {} of pac-concurrency: {why}", rule.name());
    answer(match rule.allows_when_unsure() {
        true => json!({"uid": uid, "allowed": true, "warnings": [message]}),
        false => {
            json!({"uid": uid, "allowed": false, "status": {"code": code, "message": message}})
        }
    })
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is made for this one call"
)]
fn answer(response: Value) -> Vec<u8> {
    let review = json!({"apiVersion": VERSION, "kind": KIND, "response": response});
    review.to_string().into_bytes()
}

#[cfg(test)]
#[path = "review_tests.rs"]
mod tests;
