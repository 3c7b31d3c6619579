//! A stand-in for Pipelines-as-Code's controller, which makes PipelineRuns of events.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::{effective_limit, is_done, pac};
use crate::failure::Failure;
use crate::handle::Handle;
use crate::object::{self, text};
use crate::policies::{EXECUTION_ORDER, MANAGED_BY, PAC, PENDING, REPOSITORY};
use crate::server::ApiServer;

/// A PipelineRun in the `.tekton` directory of a repository.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Template {
    /// Its name. Runs get it with a dash and five letters after it.
    pub name: String,
    /// Whether the run gets just this name; the real controller always adds letters.
    pub exact_name: bool,
    /// The spec of the run.
    pub spec: Value,
    /// Further annotations of the run.
    pub annotations: Vec<(String, String)>,
    /// Further labels of the run.
    pub labels: Vec<(String, String)>,
}

impl Template {
    /// A template with one task, `build`.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            exact_name: false,
            spec: json!({"pipelineSpec": {"tasks": [{"name": "build"}]}}),
            annotations: Vec::new(),
            labels: Vec::new(),
        }
    }

    /// A template whose run has just this name.
    #[must_use]
    pub fn exact(name: &str) -> Self {
        let mut template = Self::new(name);
        template.exact_name = true;
        template
    }
}

/// A step of the controller that fails, as it can in a real one: the runs then wait for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mishap {
    /// The provider takes no status, or the second write fails: the runs get no state annotation.
    NoState,
    /// The last write fails: the runs get no order.
    NoOrder,
}

/// Makes PipelineRuns of events, as Pipelines-as-Code's controller does.
///
/// It knows no provider: an event is the Repository that it is of, and the templates that match.
#[derive(Debug, Clone)]
pub struct PacController {
    objects: Handle,
}

impl PacController {
    /// A controller of this server.
    #[must_use]
    pub fn new(server: &ApiServer) -> Self {
        Self::at(server.handle())
    }

    /// A controller of the server of this handle.
    #[must_use]
    pub fn at(objects: Handle) -> Self {
        Self { objects }
    }

    /// Makes the runs of an event; returns their names in the order in which they are to run.
    ///
    /// With a limit the runs are born pending, and get their order last, after their state.
    ///
    /// # Errors
    /// 404 when there is no such Repository, and the answer to a creation that fails.
    pub fn event(
        &self,
        namespace: &str,
        repository: &str,
        templates: &[Template],
    ) -> Result<Vec<String>, Failure> {
        self.event_with(namespace, repository, templates, None)
    }

    /// The same, with a step that fails.
    ///
    /// # Errors
    /// As of [`PacController::event`].
    pub fn event_with(
        &self,
        namespace: &str,
        repository: &str,
        templates: &[Template],
        mishap: Option<Mishap>,
    ) -> Result<Vec<String>, Failure> {
        let found = self.objects.get("repositories", namespace, repository)?;
        let limited = effective_limit(&self.objects, &found).is_some_and(|limit| limit != 0);
        let mut names = Vec::new();
        for template in templates {
            let run = new_run(namespace, repository, template, limited);
            let made = self.objects.create("pipelineruns", run)?;
            let name = object::name(&made).to_owned();
            if mishap != Some(Mishap::NoState) {
                // Not its own limit, but the answer says whether the run is held.
                self.mark(namespace, &name, text(&made, "/spec/status") == PENDING);
            }
            names.push(name);
        }
        names.sort_by(|a, b| natural(a, b));
        if limited && mishap != Some(Mishap::NoOrder) {
            let order: Vec<String> = names
                .iter()
                .map(|name| format!("{namespace}/{name}"))
                .collect();
            let annotations = json!({EXECUTION_ORDER: order.join(",")});
            for name in &names {
                self.try_merge(
                    namespace,
                    name,
                    json!({"metadata": {"annotations": annotations}}),
                );
            }
        }
        Ok(names)
    }

    /// Cancels a run as the comment `/cancel` and the end of a pull request do: gracefully, whether
    /// it runs or waits. Returns false for a run that is done or cancelled already.
    ///
    /// # Errors
    /// 404 when there is no such run.
    pub fn cancel(&self, namespace: &str, name: &str) -> Result<bool, Failure> {
        let run = self.objects.get("pipelineruns", namespace, name)?;
        if is_done(&run) || !matches!(text(&run, "/spec/status"), "" | PENDING) {
            return Ok(false);
        }
        let patch = json!({"spec": {"status": "CancelledRunFinally"}});
        self.objects.merge("pipelineruns", namespace, name, patch)?;
        Ok(true)
    }

    fn mark(&self, namespace: &str, name: &str, pending: bool) {
        let state = if pending { "queued" } else { "started" };
        let mut annotations = json!({pac::STATE: state});
        if !pending {
            object::as_map(&mut annotations).insert(pac::REPORTED.to_owned(), json!("true"));
        }
        let metadata = json!({"labels": {pac::STATE: state}, "annotations": annotations});
        self.try_merge(namespace, name, json!({"metadata": metadata}));
    }

    /// A patch that fails is logged by the real one, and forgotten.
    fn try_merge(&self, namespace: &str, name: &str, patch: Value) {
        let _ = self.objects.merge("pipelineruns", namespace, name, patch);
    }
}

/// The state label says `started` from the beginning, the state annotation is yet to come.
fn new_run(namespace: &str, repository: &str, template: &Template, limited: bool) -> Value {
    let mut run = json!({
        "metadata": {
            "namespace": namespace,
            "labels": {
                MANAGED_BY: PAC,
                REPOSITORY: repository,
                pac::STATE: "started",
                "pipelinesascode.tekton.dev/original-prname": template.name,
            },
            "annotations": {
                REPOSITORY: repository,
                pac::SECRET_CREATED: "false",
                "pipelinesascode.tekton.dev/original-prname": template.name,
            },
        },
        "spec": template.spec,
    });
    let (field, name) = if template.exact_name {
        ("name", template.name.clone())
    } else {
        ("generateName", format!("{}-", template.name))
    };
    object::fields(&mut run, "metadata").insert(field.to_owned(), json!(name));
    for (section, entries) in [
        ("labels", &template.labels),
        ("annotations", &template.annotations),
    ] {
        let fields = object::metadata_fields(&mut run, section);
        fields.extend(
            entries
                .iter()
                .map(|(key, value)| (key.clone(), json!(value))),
        );
    }
    if limited {
        object::fields(&mut run, "spec").insert("status".to_owned(), json!(PENDING));
    }
    run
}

/// Compares names with the numbers in them by value: `pr2` is before `pr10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let (digits_a, digits_b) = (leading_digits(a), leading_digits(b));
        if !digits_a.is_empty() && !digits_b.is_empty() {
            let value = |digits: &str| digits.parse::<u128>().unwrap_or(u128::MAX);
            let by_value = value(digits_a).cmp(&value(digits_b));
            if by_value != Ordering::Equal {
                return by_value;
            }
            a = a.strip_prefix(digits_a).unwrap_or_default();
            b = b.strip_prefix(digits_b).unwrap_or_default();
            continue;
        }
        let (mut rest_a, mut rest_b) = (a.chars(), b.chars());
        match (rest_a.next(), rest_b.next()) {
            (Some(first_a), Some(first_b)) if first_a == first_b => {
                a = rest_a.as_str();
                b = rest_b.as_str();
            }
            (first_a, first_b) => return first_a.cmp(&first_b),
        }
    }
}

fn leading_digits(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_ascii_digit());
    text.get(..end.unwrap_or(text.len())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_names_count_by_value() {
        let mut names = ["pr10", "pr2", "pr", "a", "pr2-b", "pr02-a"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["a", "pr", "pr2", "pr02-a", "pr2-b", "pr10"]);
    }
}
