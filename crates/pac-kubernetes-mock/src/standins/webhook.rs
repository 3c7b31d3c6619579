//! A stand-in for Tekton's validating webhook.

use std::sync::Arc;

use serde_json::Value;

use super::is_done;
use crate::admission::{Mutator, Operation, Review};
use crate::failure::Failure;
use crate::object::text;
use crate::policies::PENDING;

/// The rules of Tekton's validating webhook for PipelineRuns, to be installed with
/// [`ApiServer::install_mutator`](crate::ApiServer::install_mutator). It changes nothing.
///
/// - `spec.status` is one of the four values that Tekton knows, or empty.
/// - A run that has started does not become pending again.
/// - Of a run that is made, only `spec.status` changes; of one that is done, not even that.
#[must_use]
pub fn tekton_rules() -> Mutator {
    Arc::new(|review, object| {
        if review.resource.plural != "pipelineruns" {
            return Ok(());
        }
        check(review, object).map_err(|rule| {
            let message = format!(
                "admission webhook \"validation.webhook.pipeline.tekton.dev\" denied the request: \
                 validation failed: {rule}"
            );
            Failure::bad_request(message)
        })
    })
}

fn check(review: &Review<'_>, new: &Value) -> Result<(), String> {
    let status = text(new, "/spec/status");
    if !matches!(
        status,
        "" | PENDING | "Cancelled" | "CancelledRunFinally" | "StoppedRunFinally"
    ) {
        return Err(format!(
            "invalid value: {status} should be one of the known ones: spec.status"
        ));
    }
    let (Operation::Update, Some(old)) = (review.operation, review.old) else {
        return Ok(());
    };
    let started = old.pointer("/status/startTime").is_some();
    if status == PENDING && started && text(old, "/spec/status") != PENDING {
        return Err(
            "invalid value: PipelineRun cannot be Pending after it is started: spec.status"
                .to_owned(),
        );
    }
    let (mut before, mut after) = (spec(old), spec(new));
    if is_done(old) && before != after {
        return Err("Once the PipelineRun is complete, no updates are allowed: ".to_owned());
    }
    for spec in [&mut before, &mut after] {
        if let Some(fields) = spec.as_object_mut() {
            fields.remove("status");
        }
    }
    if before != after {
        return Err(
            "Once the PipelineRun has started, only status updates are allowed: ".to_owned(),
        );
    }
    Ok(())
}

fn spec(run: &Value) -> Value {
    run.get("spec").cloned().unwrap_or_default()
}
