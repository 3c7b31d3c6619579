//! Looking at one section: the same as looking at a Repository, for runs that are told of their
//! slots by an annotation and go on by themselves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use pac_core::manager::{Admission, Lease, RepositoryStatus, RepositorySummary};
use pac_core::protocol::RunRequest;
use pac_core::state::RunOutcome;
use pac_core::{FencingToken, PipelineRunKey, RepositoryKey, Timestamp, Uid};
use tokio::time::Instant;

use super::decide::Known;
use super::engine::{Engine, READS_AT_ONCE};
use super::notices::What;
use super::pass::{Report, first_error};
use super::work::Dirty;
use crate::cluster::ClusterEvent;
use crate::error::{ClusterError, PipelinesError};
use crate::model::RunView;
use crate::sections::{SectionAnswer, SectionName, Step, Wish, decide, request_of, section_of};

/// How long until a section is looked at again after a lease was lost before its run was told.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// One run that asks for a section, or of which the store knows something there.
#[derive(Debug, Clone)]
struct Item {
    run: PipelineRunKey,
    /// `None` when the cluster does not have it.
    view: Option<Arc<RunView>>,
    known: Known,
    /// The token of its slot in the store.
    in_store: Option<FencingToken>,
}

/// A run that asks for a slot, as it was seen.
#[derive(Debug, Clone)]
struct Asking {
    view: Arc<RunView>,
    uid: Uid,
    asked: Timestamp,
    /// The token that it was told before.
    told: Option<FencingToken>,
}

/// What is to be done, in this order.
#[derive(Debug, Default)]
struct Plan {
    /// With whether the slot had been lost.
    adopt: Vec<(Asking, bool)>,
    release: Vec<(PipelineRunKey, Known, RunOutcome)>,
    readmit: Vec<Asking>,
    admit: Vec<Asking>,
    admit_new: Vec<Asking>,
    refuse: Vec<Arc<RunView>>,
    /// To be read past all caches, and decided again.
    verify: Vec<Item>,
}

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
        let Some(name) = section_of(section) else {
            tracing::warn!(%section, "the names that begin with \"section.\" are those of sections; \
                 rename the Repository to have its runs managed");
            return Ok(Report::default());
        };
        let status = self.manager.status(section).await?;
        let items = self.section_items(section, &status);
        if items.is_empty() {
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
        let live = known.iter().filter(|(_, known)| known.is_live());
        runs.extend(live.map(|(run, _)| run.clone()));
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
            let now = self.cluster.read(&item.run).await;
            (item, now)
        });
        let mut reads = stream::iter(reads).buffered(READS_AT_ONCE);
        let mut failed = Ok(());
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
                Err(error) => failed = Err(error),
            }
        }
        failed
    }

    async fn carry_out_section(
        self: &Arc<Self>,
        section: &RepositoryKey,
        name: &SectionName,
        plan: Plan,
        status: &RepositoryStatus,
    ) -> Result<Report, PipelinesError> {
        let mut report = Report::default();
        let mut entered: Vec<(Asking, Lease)> = Vec::new();
        let limit = self.seen().section_limit(section, name);
        // All are awaited, whatever one comes to: an adoption that is dropped is taken back.
        let adoptions = plan.adopt.iter();
        let adoptions = adoptions.map(|(asking, _)| self.manager.adopt(section, asking.request()));
        let mut failed = Ok(());
        for ((asking, lost), admission) in plan.adopt.iter().zip(join_all(adoptions).await) {
            match admission {
                Ok(admission) => {
                    report.adopted += 1;
                    if *lost {
                        self.tell_lost(section, asking, &admission);
                    }
                    entered.extend(self.in_section(section, asking, admission));
                }
                Err(error) => failed = Err(error),
            }
        }
        failed?;
        if status.limit != limit.limit && (status.exists || report.adopted > 0) {
            let (limit, version) = (limit.limit, limit.version);
            self.manager.set_limit(section, limit, version).await?;
        }
        report.ended = plan.release.len();
        let releases = plan.release.iter();
        let releases =
            releases.map(|(run, known, outcome)| self.end(section, run, known, *outcome));
        first_error(join_all(releases).await)?;
        for asking in &plan.readmit {
            // Counted for a moment, so that its old place is known; then queued there.
            let adopted = self.manager.adopt(section, asking.request()).await?;
            if let Admission::Started(lease) = adopted
                && let Some(admission) = self.manager.requeue(lease).await?
            {
                entered.extend(self.in_section(section, asking, admission));
            }
        }
        let admissions = plan.admit.iter();
        let admissions = admissions.map(|asking| self.manager.admit(section, asking.request()));
        let mut failed = Ok(());
        for (asking, admission) in plan.admit.iter().zip(join_all(admissions).await) {
            match admission {
                Ok(admission) => entered.extend(self.in_section(section, asking, admission)),
                Err(error) => failed = Err(error),
            }
        }
        failed?;
        let mut new = plan.admit_new;
        new.sort_by(|a, b| (a.asked, &a.view.key).cmp(&(b.asked, &b.view.key)));
        if !new.is_empty() {
            let requests = new.iter().map(Asking::request).collect();
            let (admissions, failed) = self.admit_all(section, limit, requests).await;
            for (asking, admission) in new.iter().zip(admissions) {
                report.admitted += 1;
                entered.extend(self.in_section(section, asking, admission));
            }
            failed?;
        }
        let refusals = plan.refuse.iter();
        let refusals = refusals.map(|view| self.refuse_in_section(section, name, view));
        let refused = join_all(refusals).await;
        let told = entered.iter();
        let told = told.map(|(asking, lease)| self.tell_entered(name, asking, lease));
        let told = join_all(told).await;
        first_error(refused)?;
        first_error(told)?;
        Ok(report)
    }

    /// Deals with what asking for a section has come to: the slot that a run is to be told of.
    fn in_section(
        &self,
        section: &RepositoryKey,
        asking: &Asking,
        admission: Admission,
    ) -> Option<(Asking, Lease)> {
        let waiter = match admission {
            // Another live controller has it, and tells it.
            Admission::Started(lease) if lease.session() != self.manager.session() => return None,
            Admission::Started(lease) => return Some((asking.clone(), lease)),
            Admission::Finished(_) => return None,
            Admission::Queued(waiter) => waiter,
        };
        self.tell(section, &asking.view.key, &asking.view.uid, || {
            let RepositorySummary {
                limit,
                running,
                queued: of,
                ..
            } = waiter.queue()?;
            Some(What::SectionQueued {
                position: waiter.position()?,
                of,
                running,
                limit,
            })
        });
        // Its lease comes out of the stream of grants.
        waiter.detach();
        None
    }

    /// Tells that the slot of a run was free for others, and is counted again.
    fn tell_lost(&self, section: &RepositoryKey, asking: &Asking, admission: &Admission) {
        if let (Some(before), Admission::Started(lease)) = (asking.told, admission) {
            let (run, token) = (&asking.view.key, lease.token());
            tracing::warn!(%run, %section, %before, %token, "its slot was lost, and is counted again");
            let what = What::SectionLost { before, token };
            self.tell_of(section, &asking.view, what);
        }
    }

    /// Tells a run that it is in a section.
    async fn tell_entered(
        &self,
        name: &SectionName,
        asking: &Asking,
        lease: &Lease,
    ) -> Result<(), ClusterError> {
        let (view, section, token) = (&asking.view, lease.repository(), lease.token());
        if asking.told == Some(token) {
            return Ok(());
        }
        let Some(request) = request_of(view, name) else {
            return Ok(());
        };
        if !self.manager.holds(lease) {
            // Lost in this instant. If the store still has it, it is to be told after all.
            let later = Instant::now() + LOOK_AGAIN;
            self.work.mark(section, Dirty::all(), later);
            return Ok(());
        }
        let answer = SectionAnswer::granted(&request, token);
        if self.answer_in_section(name, view, &answer).await? && asking.told.is_none() {
            let run = &view.key;
            tracing::info!(%run, section = %name, %token, "in the section");
            self.tell_of(section, view, What::SectionEntered { token });
        }
        Ok(())
    }

    /// Tells a run that its request was cancelled in the store.
    async fn refuse_in_section(
        &self,
        section: &RepositoryKey,
        name: &SectionName,
        view: &RunView,
    ) -> Result<(), ClusterError> {
        let Some(request) = request_of(view, name) else {
            return Ok(());
        };
        let answer = SectionAnswer::cancelled(&request);
        if self.answer_in_section(name, view, &answer).await? {
            self.tell_of(section, view, What::SectionRefused);
        }
        Ok(())
    }

    /// Writes an answer on a run. False when the run is gone.
    async fn answer_in_section(
        &self,
        name: &SectionName,
        view: &RunView,
        answer: &SectionAnswer,
    ) -> Result<bool, ClusterError> {
        let (annotation, text) = (name.answer_annotation(), answer.to_string());
        let annotations = [(annotation.as_str(), Some(text.as_str()))];
        let written = self.cluster.annotate(&view.key, &view.uid, &annotations);
        Ok(match written.await? {
            Some(now) => {
                self.observe(ClusterEvent::RunApplied(now));
                true
            }
            None => {
                self.observe(ClusterEvent::RunDeleted(view.clone()));
                false
            }
        })
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

impl Plan {
    /// Adds what is to be done about one run. `certain` says that it was read past all caches.
    fn add(&mut self, mut item: Item, name: &SectionName, certain: bool) {
        let wish = match &item.view {
            Some(view) => Wish::of(view, name),
            None => Wish::Nothing(RunOutcome::Cancelled),
        };
        let mut step = decide(&wish, &item.known, item.in_store, certain);
        if step == Step::Replace {
            let known = std::mem::replace(&mut item.known, Known::Unknown);
            let replaced = (item.run.clone(), known, RunOutcome::Completed);
            self.release.push(replaced);
            step = decide(&wish, &item.known, None, certain);
        }
        let (Some(view), Some(asking)) = (&item.view, item.asking(&wish)) else {
            match step {
                Step::Verify => self.verify.push(item),
                Step::Release(outcome) => self.release.push((item.run, item.known, outcome)),
                _ => {}
            }
            return;
        };
        match step {
            Step::Nothing | Step::Replace => {}
            Step::Verify => self.verify.push(item),
            Step::AdmitNew => self.admit_new.push(asking),
            Step::Admit => self.admit.push(asking),
            Step::Readmit => self.readmit.push(asking),
            Step::Adopt { lost } => self.adopt.push((asking, lost)),
            Step::Refuse => self.refuse.push(Arc::clone(view)),
            Step::Release(outcome) => self.release.push((item.run, item.known, outcome)),
        }
    }
}

impl Item {
    /// The run as one that asks; `None` when it does not.
    fn asking(&self, wish: &Wish) -> Option<Asking> {
        let (asked, told) = match wish {
            Wish::Asks { asked, .. } => (*asked, None),
            Wish::Holds { told, .. } => (Timestamp::from_unix_millis(0), Some(*told)),
            Wish::Nothing(_) => return None,
        };
        Some(Asking {
            view: Arc::clone(self.view.as_ref()?),
            uid: wish.uid()?.clone(),
            asked,
            told,
        })
    }
}

impl Asking {
    /// What it asks the store with.
    fn request(&self) -> RunRequest {
        RunRequest::durable(self.view.key.clone(), self.uid.clone())
    }
}
