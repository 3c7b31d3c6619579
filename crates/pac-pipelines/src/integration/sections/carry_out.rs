//! Carrying a plan out for one section.

use std::sync::Arc;

use futures_util::future::join_all;
use pac_core::manager::{Admission, Lease, RepositoryStatus};
use pac_core::{Error, RepositoryKey};

use super::plan::{Asking, Plan};
use crate::error::PipelinesError;
use crate::integration::carry_out::{deal_with_all, first_error};
use crate::integration::engine::Engine;
use crate::integration::limits::EffectiveLimit;
use crate::integration::pass::Report;
use crate::sections::SectionName;

impl Engine {
    /// Carries a plan out: what is in the section is counted first, then the limit is announced, then
    /// what asks no longer frees its slot, and last come the runs that want one.
    pub(super) async fn carry_out_section(
        self: &Arc<Self>,
        section: &RepositoryKey,
        name: &SectionName,
        plan: Plan,
        status: &RepositoryStatus,
    ) -> Result<Report, PipelinesError> {
        let mut report = Report::default();
        let mut entered: Vec<(Asking, Lease)> = Vec::new();
        let announced = status.exists.then_some(status.limit);
        let limit = self.seen().section_limit(section, name, announced);
        let mut any_lost = false;
        let adoptions = plan.adopt.iter().map(|(asking, lost)| {
            let adoption = self.manager.adopt(section, asking.request());
            ((asking, *lost), adoption)
        });
        deal_with_all(adoptions, |(asking, lost), admission| {
            report.adopted += 1;
            let is_the_same = matches!(&admission, Admission::Started(lease)
                if Some(lease.token()) == asking.told);
            if lost && !is_the_same {
                any_lost = true;
                self.tell_lost(section, asking, &admission);
            }
            let slot = self.slot_of(section, asking, admission);
            entered.extend(slot.map(|lease| (asking.clone(), lease)));
        })
        .await?;
        if status.limit != limit.limit && (status.exists || report.adopted > 0) {
            let (limit, version) = (limit.limit, limit.version);
            self.manager.set_limit(section, limit, version).await?;
        }
        report.ended = plan.release.len();
        let releases = plan.release.iter();
        let releases =
            releases.map(|(run, known, outcome)| self.end(section, run, known, *outcome));
        first_error(join_all(releases).await)?;
        let admissions = self.admissions(section, &plan.tell);
        deal_with_all(admissions, |asking, admission| {
            let slot = self.slot_of(section, asking, admission);
            entered.extend(slot.map(|lease| (asking.clone(), lease)));
        })
        .await?;
        if any_lost {
            // The slot may be one that was not free: the store grants it again when it is.
            let (told, untold) = entered.into_iter().partition(|(one, _)| one.told.is_some());
            entered = told;
            self.requeue_in_section(section, untold).await?;
        }
        report.admitted += self.admit_in_section(section, &plan, limit).await?;
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

    /// Queues the runs that ask for the section. Those that have a slot by that are told of it by the
    /// next look, which knows whether it was free.
    async fn admit_in_section(
        self: &Arc<Self>,
        section: &RepositoryKey,
        plan: &Plan,
        limit: EffectiveLimit,
    ) -> Result<usize, PipelinesError> {
        let mut admitted = 0;
        for asking in &plan.readmit {
            // Counted for a moment, so that its old place is known; then queued there.
            let adopted = self.manager.adopt(section, asking.request()).await?;
            if let Admission::Started(lease) = adopted
                && let Some(admission) = self.manager.requeue(lease).await?
            {
                self.admitted_in_section(section, asking, admission);
                admitted += 1;
            }
        }
        let admissions = self.admissions(section, &plan.admit);
        deal_with_all(admissions, |asking, admission| {
            self.admitted_in_section(section, asking, admission);
            admitted += 1;
        })
        .await?;
        let mut new: Vec<_> = plan.admit_new.iter().collect();
        if new.is_empty() {
            return Ok(admitted);
        }
        new.sort_by(|a, b| (a.asked, &a.view.key).cmp(&(b.asked, &b.view.key)));
        let requests = new.iter().map(|asking| asking.request()).collect();
        let (admissions, mut failed) = self.admit_all(section, limit, requests).await;
        for (asking, admission) in new.into_iter().zip(admissions) {
            match admission {
                Ok(admission) => {
                    self.admitted_in_section(section, asking, admission);
                    admitted += 1;
                }
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed?;
        Ok(admitted)
    }

    /// What asks the store for the slots or places that runs have.
    fn admissions<'a>(
        &self,
        section: &RepositoryKey,
        asking: &'a [Asking],
    ) -> impl Iterator<Item = (&'a Asking, impl Future<Output = Result<Admission, Error>>)> {
        asking
            .iter()
            .map(|asking| (asking, self.manager.admit(section, asking.request())))
    }

    /// Gives slots back of which no run was told; the runs are queued in their old places.
    async fn requeue_in_section(
        self: &Arc<Self>,
        section: &RepositoryKey,
        slots: Vec<(Asking, Lease)>,
    ) -> Result<(), PipelinesError> {
        for (asking, lease) in slots {
            if let Some(admission) = self.manager.requeue(lease).await? {
                self.admitted_in_section(section, &asking, admission);
            }
        }
        Ok(())
    }

    /// Has a run told of its slot, if it has one by that, with the next look.
    fn admitted_in_section(&self, section: &RepositoryKey, asking: &Asking, admission: Admission) {
        if self.slot_of(section, asking, admission).is_some() {
            self.look_at_sections([section.clone()]);
        }
    }
}
