//! From Pipelines-as-Code to the controller.

use std::time::{Duration, Instant};

use super::super::api::{ClusterAccess, NAMESPACE};
use super::super::apply::{LOOK_AGAIN, apply_all, policies_are_served};
use super::super::canary::policy_acts;
use super::super::check::namespaces;
use super::super::error::InstallError;
use super::super::manifest::Manifest;
use super::super::options::{Admission, Install, InstallMode};
use super::super::runs;
use super::super::webhook::WEBHOOK_BEGINS;
use super::{HandoverOptions, StepOutcome, Steps, To, move_order, told, unsafe_step, watcher};

/// How long a policy may take until it acts.
const POLICY_BEGINS: Duration = Duration::from_secs(30);

/// Installs the mode takeover in a cluster whose queues are not empty: makes sure that the watcher
/// is stopped, applies the policies and waits until they act, takes the orders over, and applies
/// the rest. It can be repeated, and goes on with what is left.
///
/// # Errors
/// - `Unsafe` while the watcher is up, which would start the runs in its memory beside the
///   controller, and for a policy that does not act.
/// - `Unsafe` for another mode: it has no queue to take over.
/// - Those of the API server, which name the object.
pub async fn onboard(
    access: &ClusterAccess,
    install: &Install,
    options: &HandoverOptions,
    steps: Steps<'_>,
) -> Result<(), InstallError> {
    if install.mode != InstallMode::Takeover {
        let message = format!(
            "the mode {} takes no queue over; use pac kubernetes install",
            install.mode.name()
        );
        return Err(unsafe_step("mode", message));
    }
    policies_are_served(access, install).await?;
    watcher::make_sure(access, options, steps).await?;
    if !options.apply {
        let live = runs::live(access, install, true).await?;
        let orders = live.iter().filter(|run| run.pac_order.is_some()).count();
        steps(
            "policies",
            StepOutcome::Would,
            "apply the policies, and wait until they act",
        );
        steps(
            "orders",
            StepOutcome::Would,
            &format!("take the order of {orders} runs over"),
        );
        steps("install", StepOutcome::Would, "apply everything else");
        return Ok(());
    }
    let (policies, others): (Vec<Manifest>, Vec<Manifest>) = {
        let first = [install.policies(), install.webhook()].concat();
        // The pods of the webhook are in the namespace.
        let needs = |one: &Manifest| one.kind() == NAMESPACE.name && !install.webhook().is_empty();
        install
            .manifests()
            .into_iter()
            .partition(|one| first.contains(one) || needs(one))
    };
    apply_all(access, install, &policies, &mut told("policies", steps)).await?;
    wait_for_the_policy(access, install, steps).await?;
    take_orders_over(access, install, steps).await?;
    apply_all(access, install, &others, &mut told("install", steps)).await?;
    let next = format!(
        "start the watcher: {}; then: pac kubernetes check",
        watcher::scale(options, 1)
    );
    steps(watcher::STEP, StepOutcome::Next, &next);
    Ok(())
}

async fn wait_for_the_policy(
    access: &ClusterAccess,
    install: &Install,
    steps: Steps<'_>,
) -> Result<(), InstallError> {
    let step = "policies";
    let Some(namespace) = namespaces(access, install).await?.into_iter().next() else {
        steps(
            step,
            StepOutcome::Holds,
            "no namespace has a Repository to try them with",
        );
        return Ok(());
    };
    let (patience, see) = match install.admission {
        Admission::Policy => (
            POLICY_BEGINS,
            "kubectl describe mutatingadmissionpolicies".to_owned(),
        ),
        Admission::Webhook => (
            WEBHOOK_BEGINS,
            format!(
                "kubectl logs deployment/{} --namespace={}",
                Install::WEBHOOK,
                install.namespace
            ),
        ),
    };
    let began = Instant::now();
    while !policy_acts(access, &namespace).await? {
        if began.elapsed() > patience {
            let message = format!(
                "the order of a new run in {namespace} is not moved after {} s; see {see}",
                patience.as_secs()
            );
            return Err(unsafe_step(step, message));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    steps(
        step,
        StepOutcome::Holds,
        &format!("they act, by a dry run in {namespace}"),
    );
    Ok(())
}

async fn take_orders_over(
    access: &ClusterAccess,
    install: &Install,
    steps: Steps<'_>,
) -> Result<(), InstallError> {
    let live = runs::live(access, install, true).await?;
    let mut moved = 0;
    for run in live.iter().filter(|run| run.pac_order.is_some()) {
        if !move_order(access, run, To::Us).await? {
            let message = format!("the order of {} did not move; run this again", run.key());
            return Err(unsafe_step("orders", message));
        }
        moved += 1;
    }
    steps("orders", StepOutcome::Done, &format!("{moved} taken over"));
    Ok(())
}
