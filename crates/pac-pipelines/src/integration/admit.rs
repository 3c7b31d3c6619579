//! Runs that are new to the store, and those that it refuses.

use std::sync::Arc;

use pac_core::manager::Admission;
use pac_core::protocol::RunRequest;
use pac_core::state::Weight;
use pac_core::{Error, ErrorKind, RepositoryKey};
use tokio::time::Instant;

use super::batch::batches;
use super::engine::Engine;
use super::limits::EffectiveLimit;
use super::notices::What;
use super::options::Mode;
use super::work::Dirty;
use crate::error::{ClusterError, ModelError, PipelinesError};
use crate::model::RunView;
use crate::vocabulary;

impl Engine {
    /// Admits new runs, each event's together; those that wait for their order come back.
    pub(super) async fn admit_new(
        self: &Arc<Self>,
        repository: &RepositoryKey,
        runs: &[Arc<RunView>],
        effective: EffectiveLimit,
    ) -> Result<usize, PipelinesError> {
        if runs.is_empty() {
            return Ok(0);
        }
        let runs = &self.without_superseded(repository, runs).await?;
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
            let mut refused = Vec::new();
            for (view, admission) in batch.iter().zip(admissions) {
                self.tell_invalid(repository, view);
                match admission {
                    Ok(admission) => {
                        self.tell_queued(repository, view, &admission, false);
                        self.admitted(admission);
                        admitted += 1;
                    }
                    Err(error) => refused.push((view, error)),
                }
            }
            failed?;
            for (view, error) in refused {
                self.refused(repository, view, effective, error).await?;
            }
        }
        Ok(admitted)
    }

    /// What a run asks the store with.
    pub(super) fn request(&self, repository: &RepositoryKey, view: &RunView) -> RunRequest {
        let request = RunRequest::durable(view.key.clone(), view.uid.clone());
        self.seen().policies(repository, view).put_into(request)
    }

    /// Has those runs ended whose places newer ones of their groups have taken already, and answers
    /// with the others: an older run that asks late must not wait beside the newer one, and not
    /// supersede it.
    async fn without_superseded(
        &self,
        repository: &RepositoryKey,
        runs: &[Arc<RunView>],
    ) -> Result<Vec<Arc<RunView>>, ClusterError> {
        let mut others = Vec::with_capacity(runs.len());
        let mut superseded = Vec::new();
        {
            let seen = self.seen();
            for view in runs {
                match seen.superseded_by_newer(repository, view, self.options.mode) {
                    Some(group) => superseded.push((view, group)),
                    None => others.push(Arc::clone(view)),
                }
            }
        }
        for (view, group) in superseded {
            if self.end_held(view).await? {
                let group = Some(group);
                self.tell_of(repository, view, What::Superseded { group });
            }
        }
        Ok(others)
    }

    /// Deals with a run that the store has refused; fails with what is no refusal. One that is too
    /// heavy stays held back, and asks again when it or its Repository changes. Beside a full queue
    /// there is no place to wait in: the run ends.
    pub(super) async fn refused(
        &self,
        repository: &RepositoryKey,
        view: &RunView,
        effective: EffectiveLimit,
        error: Error,
    ) -> Result<(), PipelinesError> {
        match error.kind() {
            ErrorKind::QueueFull => {
                if self.end_held(view).await? {
                    let max_queued = effective.max_queued;
                    self.tell_of(repository, view, What::QueueFull { max_queued });
                }
                Ok(())
            }
            ErrorKind::InvalidInput => {
                let message = self.too_heavy(repository, view, effective, &error);
                self.tell_stays_held(repository, view, message);
                Ok(())
            }
            _ => Err(error.into()),
        }
    }

    /// Why the store does not take a run: which annotation, and the cure.
    pub(super) fn too_heavy(
        &self,
        repository: &RepositoryKey,
        view: &RunView,
        effective: EffectiveLimit,
        error: &Error,
    ) -> String {
        let weight = self.seen().policies(repository, view).weight;
        let Some(limit) = effective.limit.get().filter(|_| weight != Weight::ONE) else {
            return error.to_string();
        };
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
