//! Runs that are new to the store, and those that it refuses.

use std::collections::HashMap;
use std::sync::Arc;

use pac_core::manager::{Admission, QueuedRun, RunStatus};
use pac_core::protocol::RunRequest;
use pac_core::{Error, ErrorKind, Group, RepositoryKey};
use tokio::time::Instant;

use super::batch::batches;
use super::engine::Engine;
use super::limits::EffectiveLimit;
use super::notices::What;
use super::options::Mode;
use super::seen::{Seen, is_superseded};
use super::work::Dirty;
use crate::error::{ModelError, PipelinesError};
use crate::model::RunView;
use crate::policy::Policies;
use crate::vocabulary;

/// What has become of a run that has a slot or a place, and was asked for anew.
#[derive(Debug)]
pub(super) struct Asked {
    /// What it has; `None` where the store does not have it, and does not take it.
    pub(super) admission: Option<Admission>,
    /// Why it cannot have what its annotations ask for now.
    pub(super) refusal: Option<Error>,
}

/// Why a new run does not get in.
#[derive(Debug)]
pub(super) enum Refusal {
    /// A newer run of this group has its place.
    Superseded(Group),
    /// The store has refused it, or has failed.
    Store(Error),
}

impl Engine {
    /// Admits new runs, each event's together; those that wait for their order come back. Those that
    /// do not get in are left to [`refused`](Self::refused).
    pub(super) async fn admit_new(
        self: &Arc<Self>,
        repository: &RepositoryKey,
        runs: &[Arc<RunView>],
        effective: EffectiveLimit,
        refused: &mut Vec<(Arc<RunView>, Refusal)>,
    ) -> Result<usize, Error> {
        if runs.is_empty() {
            return Ok(0);
        }
        let runs = &self.without_superseded(repository, runs, refused);
        let batches = {
            let seen = self.seen();
            batches(runs, self.now(), self.options.order_wait, |run| {
                // Pipelines-as-Code writes no order where its own limit is not set, and nothing else
                // ever does. Without a limit it may be that the limit is yet to be heard of.
                let has_none = self.options.mode == Mode::Gate;
                match has_none && effective.limit.get().is_some() {
                    true => self.options.order_wait,
                    false => seen.seen_for(&run.key),
                }
            })
        };
        if let Some(left) = batches.next_due {
            let waiting = runs.iter().map(|run| run.key.clone());
            self.work
                .mark(repository, Dirty::runs(waiting), Instant::now() + left);
        }
        let mut admitted = 0;
        for batch in batches.due {
            let requests = batch
                .iter()
                .map(|view| self.request(repository, view))
                .collect();
            let (admissions, failed) = self.admit_all(repository, effective, requests).await;
            for (view, admission) in batch.iter().zip(admissions) {
                self.tell_invalid(repository, view);
                match admission {
                    Ok(admission) => {
                        self.tell_queued(repository, view, &admission, false);
                        self.admitted(admission);
                        admitted += 1;
                    }
                    Err(error) => refused.push((Arc::clone(view), Refusal::Store(error))),
                }
            }
            failed?;
        }
        Ok(admitted)
    }

    /// Asks for the slot or the place that a run has, as its annotations say now. Where it cannot wait
    /// so, or they are not known, it waits on as it did before: what is wrong with one run holds up
    /// no other one.
    pub(super) async fn ask_again(
        &self,
        repository: &RepositoryKey,
        view: &RunView,
    ) -> Result<Asked, Error> {
        let policies = self.seen().policies(repository, view);
        let mut refusal = None;
        if let Some(policies) = policies {
            let request = policies.put_into(durable(view));
            match self.manager.admit(repository, request).await {
                Err(error) if is_refusal(&error) => refusal = Some(error),
                asked => return asked.map(Asked::with),
            }
        }
        let status = self.manager.run_status(repository, &view.key).await?;
        let request = match status {
            RunStatus::Queued(run) if run.uid == view.uid => as_it_waits(&run),
            _ if refusal.is_none() => self.request(repository, view),
            _ => {
                let admission = None;
                return Ok(Asked { admission, refusal });
            }
        };
        match self.manager.admit(repository, request).await {
            Err(error) if is_refusal(&error) => Ok(Asked {
                admission: None,
                refusal: Some(error),
            }),
            asked => asked.map(|admission| Asked {
                refusal,
                ..Asked::with(admission)
            }),
        }
    }

    /// What a run asks the store with.
    pub(super) fn request(&self, repository: &RepositoryKey, view: &RunView) -> RunRequest {
        let policies = self.seen().policies(repository, view);
        // Else the store has what it was asked for before, if it has the run.
        let policies = policies.unwrap_or_else(|| Policies::of(view, None));
        policies.put_into(durable(view))
    }

    /// The runs but for those whose places newer ones of their groups have taken already: an older
    /// run that asks late must not wait beside the newer one, and not supersede it.
    fn without_superseded(
        &self,
        repository: &RepositoryKey,
        runs: &[Arc<RunView>],
        refused: &mut Vec<(Arc<RunView>, Refusal)>,
    ) -> Vec<Arc<RunView>> {
        let group = |seen: &Seen, view| seen.policies(repository, view)?.group;
        let (groups, superseding) = {
            let seen = self.seen();
            let groups: Vec<_> = runs.iter().map(|view| group(&seen, view)).collect();
            let superseding = match groups.iter().any(Option::is_some) {
                true => seen.superseding(repository, self.options.mode),
                false => HashMap::new(),
            };
            (groups, superseding)
        };
        let mut others = Vec::with_capacity(runs.len());
        for (view, group) in runs.iter().zip(groups) {
            let newest = group.as_ref().and_then(|group| superseding.get(group));
            match group.filter(|_| newest.is_some_and(|newest| is_superseded(view, newest))) {
                Some(group) => refused.push((Arc::clone(view), Refusal::Superseded(group))),
                None => others.push(Arc::clone(view)),
            }
        }
        others
    }

    /// Deals with a run that did not get in; fails with what is no refusal. One that is too heavy
    /// stays held back, and asks again when it or its Repository changes. Beside a full queue there is
    /// no place to wait in: the run ends.
    pub(super) async fn refused(
        &self,
        repository: &RepositoryKey,
        view: &RunView,
        effective: Option<EffectiveLimit>,
        refusal: Refusal,
    ) -> Result<(), PipelinesError> {
        let told = match refusal {
            Refusal::Superseded(group) => What::Superseded { group: Some(group) },
            Refusal::Store(error) => match error.kind() {
                ErrorKind::QueueFull => What::QueueFull {
                    max_queued: effective.and_then(|effective| effective.max_queued),
                },
                ErrorKind::InvalidInput => {
                    let message = self.too_heavy(repository, view, effective, &error);
                    self.tell_stays_held(repository, view, message);
                    return Ok(());
                }
                _ => return Err(error.into()),
            },
        };
        self.end_held(repository, view, told).await?;
        Ok(())
    }

    /// Why the store does not take a run: which annotation, and the cure.
    pub(super) fn too_heavy(
        &self,
        repository: &RepositoryKey,
        view: &RunView,
        effective: Option<EffectiveLimit>,
        error: &Error,
    ) -> String {
        let policies = self.seen().policies(repository, view);
        let limit = effective.and_then(|effective| effective.limit.get());
        let (Some(policies), Some(limit)) = (policies, limit) else {
            return error.to_string();
        };
        let weight = policies.weight;
        if u32::from(weight.get()) <= limit {
            // It is the store's: an operator has pinned a lower one.
            return error.to_string();
        }
        let object = format!("PipelineRun {}", view.key);
        let field = format!("metadata.annotations.{}", vocabulary::WEIGHT);
        let rule = format!(
            "must be at most {limit}, the limit of {repository}, not {weight}; lower it, there or on \
             the Repository, or raise the limit"
        );
        ModelError::new(object, field, rule).to_string()
    }

    /// Admits runs in their order, with the limit that is in force, in one commit if the store has
    /// room for all of them: what became of each, and of those that were not asked for. To be dealt
    /// with one and all, since a dropped place is given up.
    pub(super) async fn admit_all(
        &self,
        repository: &RepositoryKey,
        effective: EffectiveLimit,
        mut requests: Vec<RunRequest>,
    ) -> (Vec<Result<Admission, Error>>, Result<(), Error>) {
        let rules = effective
            .version
            .map(|version| (effective.rules(), version));
        let mut admitted = Vec::with_capacity(requests.len());
        if rules.is_none()
            && let Err(error) = self.set_rules(repository, &effective).await
        {
            return (admitted, Err(error));
        }
        let most = self.manager.most_at_once();
        while !requests.is_empty() {
            let rest = requests.split_off(requests.len().min(most));
            let asked = self.manager.admit_each(repository, rules.clone(), requests);
            match asked.await {
                Ok(admissions) => admitted.extend(admissions),
                Err(error) => return (admitted, Err(error)),
            }
            requests = rest;
        }
        (admitted, Ok(()))
    }
}

impl Asked {
    fn with(admission: Admission) -> Self {
        Self {
            admission: Some(admission),
            refusal: None,
        }
    }
}

/// Whether an error says that a run cannot be taken as it was asked for, and nothing of the store.
fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::QueueFull)
}

fn durable(view: &RunView) -> RunRequest {
    RunRequest::durable(view.key.clone(), view.uid.clone())
}

/// A request for what a run waits for, as it waits.
fn as_it_waits(run: &QueuedRun) -> RunRequest {
    let terms = run.terms();
    let mut request = RunRequest::durable(run.run.clone(), run.uid.clone())
        .with_priority(terms.admitted_as.unwrap_or(run.priority))
        .with_weight(terms.weight);
    if let Some(group) = &terms.group {
        request = request.in_group(group.clone());
    }
    if let Some(longest) = terms.max_wait {
        request = request.with_max_wait(longest);
    }
    if let Some(longest) = terms.max_hold {
        request = request.with_max_hold(longest);
    }
    request
}
