//! What a plan asks for is done, in its order.

use std::sync::Arc;

use futures_util::future::join_all;
use pac_core::RepositoryKey;
use pac_core::manager::Admission;

use super::admit::Refusal;
use super::engine::Engine;
use super::limits::EffectiveLimit;
use super::notices::What;
use super::pass::Report;
use super::plan::Plan;
use super::rules::News;
use crate::error::PipelinesError;

impl Engine {
    /// Carries a plan out: what runs is counted first, then the limit is announced, then what has
    /// ended frees its slot, and last come those that want one.
    pub(super) async fn carry_out(
        self: &Arc<Self>,
        repository: &RepositoryKey,
        plan: Plan,
        news: News,
        effective: Option<EffectiveLimit>,
    ) -> Result<Report, PipelinesError> {
        let mut report = Report::default();
        let mut over = Vec::new();
        let adoptions = plan.adopt.iter().map(|view| {
            let request = self.request(repository, view);
            (view, self.manager.adopt(repository, request))
        });
        deal_with_all(adoptions, |view, admission| match admission {
            Admission::Finished(_) => over.push(view),
            _ => report.adopted += 1,
        })
        .await?;
        self.announce(repository, news).await?;
        for (view, outcome) in &plan.adopt_and_release {
            let request = self.request(repository, view);
            if let Admission::Started(lease) = self.manager.adopt(repository, request).await? {
                self.manager.release(lease, *outcome).await?;
            }
            report.ended += 1;
        }
        let mut ends = plan.end;
        let asked = self
            .end_at_once(repository, plan.end_at_once, &mut ends)
            .await;
        let read = self.make_sure(repository, plan.gone, &mut ends).await;
        report.ended += ends.len();
        let ends = ends
            .iter()
            .map(|(run, known, outcome)| self.end(repository, run, known, *outcome));
        first_error(join_all(ends).await)?;
        let stopped = self
            .end_before_start(repository, &plan.end_before_start)
            .await;
        for view in &plan.give_up {
            self.give_up(repository, view).await?;
            report.ended += 1;
        }
        for (view, known) in &plan.moved {
            self.leave(repository, view, known).await?;
        }
        for view in &plan.readmit {
            // Counted for a moment, so that its old place is known; then queued there.
            let request = self.request(repository, view);
            if let Admission::Started(lease) = self.manager.adopt(repository, request).await?
                && let Some(admission) = self.manager.requeue(lease).await?
            {
                self.tell_of(repository, view, What::Requeued);
                self.tell_queued(repository, view, &admission, true);
                self.admitted(admission);
            }
            report.admitted += 1;
        }
        let mut refused = Vec::new();
        let admissions = plan.admit.iter();
        let admissions = admissions.map(|view| (view, self.ask_again(repository, view)));
        deal_with_all(admissions, |view, asked| {
            match asked.admission {
                Some(Admission::Finished(_)) => over.push(view),
                Some(admission) => {
                    if asked.refusal.is_none() {
                        self.tell_queued(repository, view, &admission, true);
                    }
                    self.admitted(admission);
                    report.admitted += 1;
                }
                None => {}
            }
            let refusal = asked.refusal.map(Refusal::Store);
            refused.extend(refusal.map(|refusal| (Arc::clone(view), refusal)));
        })
        .await?;
        if let Some(effective) = effective {
            let new = &plan.admit_new;
            let admitted = self.admit_new(repository, new, effective, &mut refused);
            report.admitted += admitted.await?;
        }
        // Last, so that a cluster that is away holds nothing else up; it is asked again.
        let over = over.into_iter();
        let over = over.map(|view| self.end_in_cluster(repository, view));
        for is_asked in join_all(over).await {
            report.ended += usize::from(is_asked?);
        }
        let ends = plan.ask_to_end.iter();
        let ends = ends.map(|view| {
            let why = |runs| What::AskedToEnd { runs };
            self.request_end(repository, view, why)
        });
        first_error(join_all(ends).await)?;
        let refused = refused.into_iter();
        let refused = refused.map(|(view, refusal)| async move {
            self.refused(repository, &view, effective, refusal).await
        });
        first_error(join_all(refused).await)?;
        report.ended += stopped?;
        asked?;
        read?;
        Ok(report)
    }
}

/// Awaits all that was asked for, and deals with every answer before it fails with the first error: an
/// adoption that is dropped is taken back, and so is a place in the queue.
pub(super) async fn deal_with_all<T, A, E>(
    asked: impl Iterator<Item = (T, impl Future<Output = Result<A, E>>)>,
    mut deal: impl FnMut(T, A),
) -> Result<(), E> {
    let (about, asked): (Vec<T>, Vec<_>) = asked.unzip();
    let mut failed = Ok(());
    for (about, answer) in about.into_iter().zip(join_all(asked).await) {
        match answer {
            Ok(answer) => deal(about, answer),
            Err(error) => failed = failed.and(Err(error)),
        }
    }
    failed
}

/// The first failure of several calls that have all ended.
pub(super) fn first_error<T, E>(results: Vec<Result<T, E>>) -> Result<(), E> {
    results.into_iter().try_for_each(|result| result.map(drop))
}
