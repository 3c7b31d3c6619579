//! The limit in force for a Repository, and which announcement of it is the newest.

use pac_core::{Limit, LimitVersion};

use crate::model::{RepositoryView, ResourceVersion};

/// The limit in force, as it is announced to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct EffectiveLimit {
    /// The limit.
    pub limit: Limit,
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
        match repository.limit {
            Some(limit) => Self {
                limit,
                version: own.map(LimitVersion::from),
            },
            None => Self {
                limit: global.limit.unwrap_or(Limit::UNLIMITED),
                // Without a global Repository's version there has never been anything to inherit.
                version: own.map(|own| own.max(global.version.unwrap_or(own)).into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn versions_that_cannot_be_compared_are_none() {
        let mut view = repository(2, 1);
        view.version = None;
        assert_eq!(EffectiveLimit::of(&view, global(5, 2)).version, None);
    }
}
