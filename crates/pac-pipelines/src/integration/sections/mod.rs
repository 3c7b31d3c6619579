//! Looking at one section: the same as looking at a Repository, for runs that are told of their
//! slots by an annotation and go on by themselves.

mod carry_out;
mod plan;
mod tell;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use pac_core::manager::RepositoryStatus;
use pac_core::{PipelineRunKey, RepositoryKey};
use tokio::time::Instant;

use super::decide::Known;
use super::engine::{Engine, READS_AT_ONCE};
use super::pass::{Report, live_of_pipelines};
use super::work::Dirty;
use crate::cluster::ClusterEvent;
use crate::error::{ClusterError, PipelinesError};
use crate::model::RunView;
use crate::sections::{SectionName, Wish, section_of};
use plan::{Item, Plan};

impl Engine {
    /// Has sections looked at.
    pub(super) fn look_at_sections(&self, sections: impl IntoIterator<Item = RepositoryKey>) {
        for section in sections {
            self.work.mark(&section, Dirty::all(), Instant::now());
        }
    }

    /// Looks at a section. `listed` says that the cluster's lists have just been read.
    pub(super) async fn section_pass(
        self: &Arc<Self>,
        section: &RepositoryKey,
        listed: bool,
    ) -> Result<Report, PipelinesError> {
        let (name, is_repository) = (section_of(section), self.seen().exists(section));
        if is_repository || name.is_none() {
            self.tell_held(
                section,
                "a name that begins with \"section.\" is that of a section; give the Repository \
                 another one",
            );
        }
        let Some(name) = name else {
            return Ok(Report::default());
        };
        let status = self.manager.status(section).await?;
        let items = self.section_items(section, &status);
        if items.is_empty() && !is_repository {
            return self.forget_section(section, &status, listed).await;
        }
        let mut plan = Plan::default();
        for item in items {
            plan.add(item, &name, false);
        }
        let read = self.verify_in_section(&mut plan, &name).await;
        let report = self
            .carry_out_section(section, &name, plan, &status)
            .await?;
        read?;
        Ok(report)
    }

    /// The runs that ask for a section, and those of which the store knows something there.
    fn section_items(&self, section: &RepositoryKey, status: &RepositoryStatus) -> Vec<Item> {
        let mut known = Known::all(status, self.manager.session());
        let seen = self.seen();
        let mut runs: BTreeSet<PipelineRunKey> = seen.runs_in_section(section);
        runs.extend(live_of_pipelines(status).cloned());
        let items = runs.into_iter().map(|run| Item {
            view: seen.run(&run).cloned(),
            known: known.remove(&run).unwrap_or(Known::Unknown),
            in_store: status
                .running
                .iter()
                .find(|running| running.run == run)
                .map(|running| running.token),
            run,
        });
        items.collect()
    }

    /// Reads the runs past all caches for which what was seen is not enough, and decides about them
    /// once and for all. The others are decided about whatever one read comes to.
    async fn verify_in_section(
        &self,
        plan: &mut Plan,
        name: &SectionName,
    ) -> Result<(), ClusterError> {
        let reads = std::mem::take(&mut plan.verify);
        let reads = reads.into_iter().map(|item| async move {
            // The semaphore is never closed.
            let _permit = self.reads.acquire().await.ok();
            let now = self.cluster.read(&item.run).await;
            (item, now)
        });
        let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
        let (mut failed, mut is_unsure) = (Ok(()), false);
        while let Some((mut item, now)) = reads.next().await {
            match now {
                Ok(Some(now)) => {
                    let touched = self.seen().is_back(now.clone());
                    self.touched(touched);
                    item.view = Some(Arc::new(now));
                    plan.add(item, name, true);
                }
                Ok(None) => {
                    if let Some(view) = item.view.take() {
                        self.observe(ClusterEvent::RunDeleted(RunView::clone(&view)));
                    }
                    plan.add(item, name, true);
                }
                Err(error) => {
                    let view = item.view.as_deref();
                    if view.is_some_and(|view| matches!(Wish::of(view, name), Wish::Holds { .. })) {
                        // It may be inside and not be counted: until that is known, no other run is
                        // told of a slot.
                        is_unsure = true;
                    }
                    failed = Err(error);
                }
            }
        }
        if is_unsure {
            plan.tell.clear();
        }
        failed
    }

    /// Forgets a section of a namespace that has no Repository any more. One that may be used again
    /// is kept: a run may be asking for it at this moment.
    async fn forget_section(
        &self,
        section: &RepositoryKey,
        status: &RepositoryStatus,
        listed: bool,
    ) -> Result<Report, PipelinesError> {
        if self.seen().has_repositories_in(section.namespace()) {
            self.retain_missing(|other| other != section);
            return Ok(Report::default());
        }
        if listed && status.exists && self.is_missing_for_good(section) {
            return self.remove(section).await;
        }
        Ok(Report::default())
    }
}
