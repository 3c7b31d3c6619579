//! From the controller back to Pipelines-as-Code.

use std::time::{Duration, Instant};

use serde_json::json;

use super::super::api::{Change, ClusterAccess, DEPLOYMENT, Place};
use super::super::apply::{
    LOOK_AGAIN, labels_of, pod_names, pods_are_gone, remove_policies, replicas,
};
use super::super::error::InstallError;
use super::super::options::{Install, InstallMode};
use super::super::runs::{self, LiveRun};
use super::super::workload;
use super::{
    HandoverOptions, StepOutcome, Steps, To, move_order, operations, told, unsafe_step, watcher,
};

/// How long a policy may act on after it was removed.
const POLICY_ENDS: Duration = Duration::from_secs(30);

/// The state that Pipelines-as-Code gives a run which it knows to run.
const STARTED: &str = "started";

/// Gives the queues of a busy cluster back to Pipelines-as-Code: stops the controller, makes sure
/// that the watcher knows all started runs and is stopped, removes the policies, and gives the
/// orders back. It can be repeated, and goes on with what is left. Until it is complete held runs
/// wait, and nothing starts.
///
/// # Errors
/// - `Unsafe` for everything that would let more runs start than a limit allows: the watcher is up,
///   it does not know of a run that was started, runs are held by the mode gate, a policy acts on.
/// - Those of the API server, which name the object.
pub async fn offboard(
    access: &ClusterAccess,
    install: &Install,
    options: &HandoverOptions,
    steps: Steps<'_>,
) -> Result<(), InstallError> {
    no_run_of_the_gate(access, install, steps).await?;
    stop_the_controller(access, install, options, steps).await?;
    every_start_is_known(access, install, steps).await?;
    watcher::make_sure(access, options, steps).await?;
    if !options.apply {
        let live = runs::live(access, install, true).await?;
        let orders = live
            .iter()
            .filter(|run| !operations(run, To::Pac).is_empty())
            .count();
        steps(
            "policies",
            StepOutcome::Would,
            "remove the policies, or the configuration of the webhook",
        );
        steps(
            "orders",
            StepOutcome::Would,
            &format!("give the order of {orders} runs back"),
        );
        return Ok(());
    }
    remove_policies(access, install, &mut told("policies", steps)).await?;
    give_orders_back(access, install, steps).await?;
    // An operator may have started it meanwhile, and it has rebuilt its queues from half of them.
    watcher::is_stopped(access, options).await.map_err(|error| {
        let message = format!(
            "it was started before all orders were back, and may not count all that runs: {}, and \
             start it again ({})",
            watcher::scale(options, 0),
            error.message()
        );
        unsafe_step(watcher::STEP, message)
    })?;
    let next = format!(
        "start the watcher, which rebuilds its queues: {}; then: pac kubernetes uninstall --apply",
        watcher::scale(options, 1)
    );
    steps(watcher::STEP, StepOutcome::Next, &next);
    Ok(())
}

/// Pipelines-as-Code has no queue for what the mode gate holds: nothing would start it.
async fn no_run_of_the_gate(
    access: &ClusterAccess,
    install: &Install,
    steps: Steps<'_>,
) -> Result<(), InstallError> {
    let step = "gate";
    let live = runs::live(access, install, false).await?;
    let held: Vec<&LiveRun> = live
        .iter()
        .filter(|run| run.pending && run.held_by_gate)
        .collect();
    if held.is_empty() {
        steps(step, StepOutcome::Holds, "no run is held by the mode gate");
        return Ok(());
    }
    let message = format!(
        "{} runs are held by the mode gate, and Pipelines-as-Code would never start them: {}; let the \
         controller start them, or cancel them",
        held.len(),
        runs::some(held.iter().copied())
    );
    Err(unsafe_step(step, message))
}

async fn stop_the_controller(
    access: &ClusterAccess,
    install: &Install,
    options: &HandoverOptions,
    steps: Steps<'_>,
) -> Result<(), InstallError> {
    let step = "controller";
    let place = Place::new(DEPLOYMENT, install.namespace.as_str(), Install::NAME);
    let found = access.get(place).await?;
    let replicas = found.as_ref().map_or(0, replicas);
    if replicas == 0 {
        let selector = labels_of(&workload::selector());
        if pod_names(access, &install.namespace, &selector)
            .await?
            .is_empty()
        {
            steps(step, StepOutcome::Holds, "stopped, without a pod");
            return Ok(());
        }
    }
    if !options.apply {
        steps(
            step,
            StepOutcome::Would,
            "scale it to 0 and wait until its pods have ended",
        );
        return Ok(());
    }
    if replicas > 0 {
        let change = Change::Merge(json!({"spec": {"replicas": 0}}));
        access.change(place, change).await?;
    }
    pods_are_gone(access, install).await?;
    steps(
        step,
        StepOutcome::Done,
        "scaled to 0, and its pods have ended",
    );
    Ok(())
}

/// The watcher rebuilds its queues from the runs whose state is `started`: it writes that itself
/// when it sees one run, and has to be up for it.
async fn every_start_is_known(
    access: &ClusterAccess,
    install: &Install,
    steps: Steps<'_>,
) -> Result<(), InstallError> {
    let step = "started";
    let live = runs::live(access, install, true).await?;
    let started = live.iter().filter(|run| !run.pending && run.is_ours());
    let (known, unknown): (Vec<&LiveRun>, Vec<&LiveRun>) =
        started.partition(|run| run.state.as_deref() == Some(STARTED));
    if unknown.is_empty() {
        let detail = format!(
            "Pipelines-as-Code knows all {} runs that were started",
            known.len()
        );
        steps(step, StepOutcome::Holds, &detail);
        return Ok(());
    }
    let message = format!(
        "Pipelines-as-Code does not know yet that {} of them run, and would not count them: {}; leave \
         the watcher up until it has seen them (or start it again for that), and run this again",
        unknown.len(),
        runs::some(unknown.iter().copied())
    );
    Err(unsafe_step(step, message))
}

async fn give_orders_back(
    access: &ClusterAccess,
    install: &Install,
    steps: Steps<'_>,
) -> Result<(), InstallError> {
    let step = "orders";
    let began = Instant::now();
    let mut moved = 0;
    loop {
        let live = runs::live(access, install, true).await?;
        let mut left = live
            .iter()
            .filter(|run| !operations(run, To::Pac).is_empty())
            .peekable();
        if left.peek().is_none() {
            break;
        }
        for run in left {
            if move_order(access, run, To::Pac).await? {
                moved += 1;
                continue;
            }
            if began.elapsed() > POLICY_ENDS {
                let message = format!(
                    "the order of {} is moved away again: a policy of the mode {} still acts; see \
                     kubectl get mutatingadmissionpolicies,mutatingwebhookconfigurations, and run \
                     this again",
                    run.key(),
                    InstallMode::Takeover.name()
                );
                return Err(unsafe_step(step, message));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
    steps(
        step,
        StepOutcome::Done,
        &format!("{moved} given back to Pipelines-as-Code"),
    );
    Ok(())
}
