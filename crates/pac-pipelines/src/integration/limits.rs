//! The limit in force for a Repository, and which announcement of it is the newest.

use std::num::NonZeroU32;

use pac_core::state::{Rules, RulesChange};
use pac_core::{Limit, LimitVersion};

use crate::model::{RepositoryView, ResourceVersion};
use crate::policy::QueuePolicies;

/// The limit in force, and the rules beside it, as they are announced to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EffectiveLimit {
    /// The limit.
    pub limit: Limit,
    /// How many runs may wait; any number where there is none.
    pub max_queued: Option<u32>,
    /// How many lighter runs may go before one that does not fit; none where the order is strict.
    pub backfill: Option<NonZeroU32>,
    /// The version of the newest object that it depends on; `None` where that cannot be
    /// compared, and the last announcement holds.
    pub version: Option<LimitVersion>,
}

/// The global Repository, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct GlobalLimit {
    /// Its limit, if it exists and has one.
    pub limit: Option<Limit>,
    /// Its version; where it does not exist, that of its deletion, or of the list in which it
    /// was missing.
    pub version: Option<ResourceVersion>,
}

impl EffectiveLimit {
    /// The limit in force for a Repository: its own, or else the global one, or else none.
    ///
    /// Versions of one cluster grow with every change of any object. A limit that is inherited
    /// depends on both objects, so the newer of the two is its version: whichever changes next
    /// has a higher one.
    #[must_use]
    pub fn of(repository: &RepositoryView, global: GlobalLimit) -> Self {
        let own = repository.version;
        let effective = match repository.limit {
            Some(limit) => Self::alone(limit, own.map(LimitVersion::from)),
            None => Self::alone(
                global.limit.unwrap_or(Limit::UNLIMITED),
                // Without a global Repository's version there has never been anything to inherit.
                own.map(|own| own.max(global.version.unwrap_or(own)).into()),
            ),
        };
        let policies = QueuePolicies::of(repository);
        Self {
            max_queued: policies.max_queued,
            backfill: policies.backfill,
            ..effective
        }
    }

    /// A limit without rules beside it.
    pub(crate) fn alone(limit: Limit, version: Option<LimitVersion>) -> Self {
        Self {
            limit,
            max_queued: None,
            backfill: None,
            version,
        }
    }

    /// Whether what is announced is something else than these rules.
    pub(crate) fn is_news_to(&self, known: &Rules) -> bool {
        self.rules().apply(known) != *known
    }

    /// What is announced.
    pub(crate) fn rules(&self) -> RulesChange {
        RulesChange::limit(self.limit)
            .with_max_queued(self.max_queued)
            .with_backfill(self.backfill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary;

    fn repository(limit: u32, version: u64) -> RepositoryView {
        let mut view = RepositoryView::new("ci/r".parse().unwrap()).with_limit(Limit::new(limit));
        view.version = Some(ResourceVersion::new(version));
        view
    }

    fn global(limit: u32, version: u64) -> GlobalLimit {
        GlobalLimit {
            limit: Some(Limit::new(limit)).filter(|limit| *limit != Limit::UNLIMITED),
            version: Some(ResourceVersion::new(version)),
        }
    }

    fn announced(repository: &RepositoryView, global: GlobalLimit) -> (u32, u64) {
        let effective = EffectiveLimit::of(repository, global);
        (
            effective.limit.get().unwrap_or(0),
            effective.version.unwrap().get(),
        )
    }

    #[test]
    fn the_local_limit_beats_the_global_one() {
        assert_eq!(announced(&repository(2, 10), global(5, 20)), (2, 10));
        assert_eq!(announced(&repository(0, 10), global(5, 20)), (5, 20));
        assert_eq!(
            announced(&repository(0, 10), GlobalLimit::default()),
            (0, 10)
        );
    }

    #[test]
    fn every_change_of_either_is_newer_than_what_was_announced_before() {
        let steps = [
            announced(&repository(0, 10), global(5, 20)),
            announced(&repository(2, 30), global(5, 20)),
            announced(&repository(0, 40), global(5, 20)),
            announced(&repository(0, 40), global(7, 50)),
            announced(&repository(0, 40), global(0, 60)),
        ];
        assert_eq!(steps.map(|(limit, _)| limit), [5, 2, 5, 7, 0]);
        assert!(steps.is_sorted_by(|a, b| a.1 < b.1), "{steps:?}");
    }

    #[test]
    fn the_rules_beside_the_limit_are_its_own_repositorys() {
        let mut view = repository(0, 10);
        for (name, value) in [
            (vocabulary::MAX_QUEUED, "3"),
            (vocabulary::ORDER, "backfill:2"),
        ] {
            view.annotations.insert(name.to_owned(), value.to_owned());
        }
        let rules = EffectiveLimit::of(&view, global(5, 20)).rules();
        let wanted = RulesChange::limit(Limit::new(5)).with_max_queued(Some(3));
        assert_eq!(rules, wanted.with_backfill(NonZeroU32::new(2)));
    }

    #[test]
    fn versions_that_cannot_be_compared_are_none() {
        let mut view = repository(2, 1);
        view.version = None;
        assert_eq!(EffectiveLimit::of(&view, global(5, 2)).version, None);
    }
}
