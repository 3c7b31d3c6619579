//! What a Repository says about its queue, as far as the store has to be told.

use pac_core::manager::RepositoryStatus;
use pac_core::protocol::{Claim, PauseCondition};
use pac_core::state::{Owner, Rules};
use pac_core::{Error, RepositoryKey};

use super::engine::Engine;
use super::limits::EffectiveLimit;
use crate::policy::PauseStep;

/// What the store has to be told of a Repository.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Its limit and the rules beside it.
    limit: Option<EffectiveLimit>,
    pause: PauseStep,
    /// The pause that this was decided on: another one, of since then, is somebody else's.
    seen: PauseCondition,
}

impl Engine {
    /// Compares a Repository with what the store has of it.
    pub(super) fn news(
        &self,
        repository: &RepositoryKey,
        effective: Option<EffectiveLimit>,
        status: &RepositoryStatus,
    ) -> News {
        let pause = status.pause.as_ref().map(|pause| pause.reason.as_ref());
        let policies = self.seen().queue_policies(repository);
        News {
            limit: effective.filter(|effective| is_news(effective, status)),
            pause: policies.map_or(PauseStep::Nothing, |policies| policies.about_pause(pause)),
            seen: match pause {
                None => PauseCondition::NotPaused,
                Some(reason) => PauseCondition::PausedFor(reason.cloned()),
            },
        }
    }

    /// Tells the store.
    pub(super) async fn announce(
        &self,
        repository: &RepositoryKey,
        news: News,
    ) -> Result<(), Error> {
        // Before a limit that would let runs start.
        match news.pause {
            PauseStep::Nothing => {}
            PauseStep::Pause(reason) => {
                let pausing = self
                    .manager
                    .pause_if(repository, Some(reason.clone()), news.seen);
                if pausing.await?.accepted {
                    tracing::info!(%repository, %reason, "paused");
                }
            }
            PauseStep::Resume => {
                let resuming = self.manager.resume_if(repository, news.seen);
                if resuming.await?.accepted {
                    tracing::info!(%repository, "the annotation that paused it is gone: resumed");
                }
            }
        }
        let Some(limit) = news.limit else {
            return Ok(());
        };
        let change = self.set_rules(repository, &limit).await?;
        if change.owner == Some(Owner::Pinned) {
            tracing::debug!(%repository, limit = %change.limit, "an operator has pinned the limit");
        } else if change.limit != limit.limit {
            tracing::warn!(
                %repository, wanted = %limit.limit, in_force = %change.limit,
                "the store has a limit of a newer version than the cluster shows: another \
                 controller has announced it, or the cluster was restored from a backup; in \
                 that case set the limit once with `pac limit`"
            );
        }
        Ok(())
    }

    /// Announces the limit and the rules beside it; without a version they are set.
    pub(super) async fn set_rules(
        &self,
        repository: &RepositoryKey,
        effective: &EffectiveLimit,
    ) -> Result<pac_core::manager::LimitChange, Error> {
        let claim = effective.version.map_or(Claim::Set, Claim::Announce);
        let rules = effective.rules();
        self.manager.set_rules(repository, rules, claim).await
    }
}

/// Whether a limit, or a rule beside it, is another than what the store has, or will have once what
/// is pinned is not any more. Nothing is written for a Repository without rules of which the store
/// has nothing.
fn is_news(effective: &EffectiveLimit, status: &RepositoryStatus) -> bool {
    let nothing = Rules::default();
    let known = match (status.owner, &status.beneath) {
        (Some(Owner::Pinned), Some((beneath, _))) => beneath,
        (Some(Owner::Pinned), None) => &nothing,
        _ => &status.rules,
    };
    effective.is_news_to(known)
}
