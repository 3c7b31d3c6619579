//! The Repositories of a cluster with the limits that are in force.

use std::collections::{HashMap, HashSet};

use pac_core::{Limit, RepositoryKey};

use crate::cluster::{Listing, UnreadableObject};
use crate::integration::{EffectiveLimit, GlobalLimit};
use crate::model::{RepositoryView, ResourceVersion};

/// The Repositories of a cluster, from its list. A Repository without a limit of its own has that
/// of the global one.
#[derive(Debug, Clone, Default)]
pub struct Repositories {
    views: HashMap<RepositoryKey, RepositoryView>,
    unreadable: HashSet<RepositoryKey>,
    global: GlobalLimit,
    global_is_unreadable: bool,
}

/// What a list of Repositories says of one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// It is there. Its limit is the one in force, and its version that of the newest object that
    /// this limit depends on.
    Here(RepositoryView),
    /// It is there, and its limit is not known: it, or the global one, cannot be understood.
    Unreadable,
    /// There is none of this name.
    Missing,
}

impl Repositories {
    /// From a list. `global` names the Repository whose limit holds for those without one of
    /// their own; it need not be there.
    #[must_use]
    pub fn of(listing: Listing<RepositoryView>, global: Option<&RepositoryKey>) -> Self {
        let unreadable: HashSet<_> = listing
            .unreadable
            .into_iter()
            .filter_map(|unreadable| match unreadable.object {
                UnreadableObject::Repository(key) => Some(key),
                _ => None,
            })
            .collect();
        let views: HashMap<_, _> = listing
            .items
            .into_iter()
            .map(|view| (view.key.clone(), view))
            .collect();
        let found = global.and_then(|global| views.get(global));
        let global_limit = GlobalLimit {
            limit: found.and_then(|view| view.limit),
            version: found.map_or(listing.version, |view| view.version),
        };
        Self {
            global: global_limit,
            global_is_unreadable: global.is_some_and(|global| unreadable.contains(global)),
            views,
            unreadable,
        }
    }

    /// One of them, with the limit in force. A copy: what the list holds stays as it is.
    #[must_use]
    pub fn get(&self, key: &RepositoryKey) -> Found {
        if self.unreadable.contains(key) {
            return Found::Unreadable;
        }
        match self.views.get(key) {
            None => Found::Missing,
            Some(view) if view.limit.is_none() && self.global_is_unreadable => Found::Unreadable,
            Some(view) => Found::Here(self.in_force(view)),
        }
    }

    /// Their names.
    pub fn keys(&self) -> impl Iterator<Item = &RepositoryKey> {
        self.views.keys().chain(&self.unreadable)
    }

    fn in_force(&self, view: &RepositoryView) -> RepositoryView {
        let effective = EffectiveLimit::of(view, self.global);
        let mut view = view.clone();
        view.limit = Some(effective.limit).filter(|limit| *limit != Limit::UNLIMITED);
        let version = effective.version;
        view.version = version.map(|version| ResourceVersion::new(version.get()));
        view
    }
}
