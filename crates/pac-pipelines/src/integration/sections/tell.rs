//! Telling runs, and people, what has become of their requests.

use std::time::Duration;

use pac_core::RepositoryKey;
use pac_core::manager::{Admission, Lease, RepositorySummary};
use tokio::time::Instant;

use super::plan::Asking;
use crate::cluster::ClusterEvent;
use crate::error::ClusterError;
use crate::integration::engine::Engine;
use crate::integration::notices::What;
use crate::integration::work::Dirty;
use crate::model::RunView;
use crate::sections::{SectionAnswer, SectionName, request_of};

/// How long until a section is looked at again after a lease was lost before its run was told.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Engine {
    /// What asking for a section has come to: the slot, if this controller is to tell the run of it.
    pub(super) fn slot_of(
        &self,
        section: &RepositoryKey,
        asking: &Asking,
        admission: Admission,
    ) -> Option<Lease> {
        let waiter = match admission {
            // Another live controller has it, and tells it.
            Admission::Started(lease) if lease.session() != self.manager.session() => return None,
            Admission::Started(lease) => return Some(lease),
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
    pub(super) fn tell_lost(
        &self,
        section: &RepositoryKey,
        asking: &Asking,
        admission: &Admission,
    ) {
        if let (Some(before), Admission::Started(lease)) = (asking.told, admission) {
            let (run, token) = (&asking.view.key, lease.token());
            tracing::warn!(%run, %section, %before, %token, "its slot was lost, and is counted again");
            let what = What::SectionLost { before, token };
            self.tell_of(section, &asking.view, what);
        }
    }

    /// Tells a run that it is in a section.
    pub(super) async fn tell_entered(
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
    pub(super) async fn refuse_in_section(
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
}
