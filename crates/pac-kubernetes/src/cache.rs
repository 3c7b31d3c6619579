//! What an open watch has seen: the answers to lists. Pure.

use std::collections::HashMap;

use pac_pipelines::model::{NamespaceView, RepositoryView, ResourceVersion, RunView};
use pac_pipelines::{Listing, Unreadable};
use tokio::time::Instant;

/// What is known of an object.
pub(crate) type Found<V> = Result<V, Unreadable>;

/// All that one watch has seen.
#[derive(Debug, Default)]
pub(crate) struct Caches {
    pub(crate) runs: Cache<RunView>,
    pub(crate) repositories: Cache<RepositoryView>,
    pub(crate) namespaces: Cache<NamespaceView>,
    /// Runs that the selection does not have any more, and of which it is not known that they have
    /// ended or are gone.
    pub(crate) strays: HashMap<String, Stray>,
}

/// A run that has left the selection.
#[derive(Debug)]
pub(crate) struct Stray {
    /// As it was seen last.
    pub(crate) view: RunView,
    /// When it is to be read again; `None` while that is being done.
    pub(crate) due: Option<Instant>,
}

impl Caches {
    /// The runs, those that left the selection and may still run among them; `None` when the
    /// cache is not complete and current.
    pub(crate) fn list_runs(&self) -> Option<Listing<RunView>> {
        let mut listing = self.runs.listing()?;
        self.add_strays(&mut listing);
        Some(listing)
    }

    /// The Repositories; `None` when the cache is not complete and current.
    pub(crate) fn list_repositories(&self) -> Option<Listing<RepositoryView>> {
        self.repositories.listing()
    }

    /// The Namespaces; `None` when the cache is not complete and current.
    pub(crate) fn list_namespaces(&self) -> Option<Listing<NamespaceView>> {
        self.namespaces.listing()
    }

    /// Adds the runs that left the selection to a list of the selection.
    pub(crate) fn add_strays(&self, listing: &mut Listing<RunView>) {
        let strays = self.strays.values().map(|stray| &stray.view);
        let missing: Vec<RunView> = strays
            .filter(|view| listing.items.iter().all(|run| run.uid != view.uid))
            .cloned()
            .collect();
        listing.items.extend(missing);
    }

    /// A run has left the selection. `Some` when it had ended by then: nothing more will come of
    /// it. Otherwise it is to be read at `now`, since it may run, or may be gone.
    pub(crate) fn stray(&mut self, name: String, view: RunView, now: Instant) -> Option<RunView> {
        if view.is_done() {
            return Some(view);
        }
        let due = Some(now);
        self.strays.insert(name, Stray { view, due });
        None
    }

    /// When the next run is to be read that has left the selection.
    pub(crate) fn next_stray(&self) -> Option<Instant> {
        self.strays.values().filter_map(|stray| stray.due).min()
    }

    /// Takes a run that is to be read by now.
    pub(crate) fn take_stray(&mut self, now: Instant) -> Option<(String, RunView)> {
        let mut strays = self.strays.iter_mut();
        let (name, stray) = strays.find(|(_, stray)| stray.due.is_some_and(|due| due <= now))?;
        stray.due = None;
        Some((name.clone(), stray.view.clone()))
    }
}

/// The objects of one kind, as a watch shows them.
#[derive(Debug)]
pub(crate) struct Cache<V> {
    objects: HashMap<String, Found<V>>,
    /// The objects of a list that is being taken.
    coming: Option<HashMap<String, Found<V>>>,
    /// The highest version that was seen. A list is never older, since it is read from a quorum;
    /// so the cache has everything up to this version.
    newest: u64,
    /// That one, when the list that is being taken was begun.
    before_list: u64,
    is_complete: bool,
    is_current: bool,
}

impl<V> Default for Cache<V> {
    fn default() -> Self {
        Self {
            objects: HashMap::new(),
            coming: None,
            newest: 0,
            before_list: 0,
            is_complete: false,
            is_current: false,
        }
    }
}

impl<V: Clone> Cache<V> {
    /// Whether a list has been taken, and no other one is being taken.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// A list is being taken.
    pub(crate) fn begin(&mut self) {
        self.is_complete = false;
        self.before_list = self.newest;
        self.coming = Some(HashMap::new());
    }

    /// An object of the list that is being taken.
    pub(crate) fn listed(&mut self, name: String, version: u64, found: Found<V>) {
        self.newest = self.newest.max(version);
        self.coming.get_or_insert_default().insert(name, found);
    }

    /// The list is complete. Returns what was there before and is not in it.
    pub(crate) fn complete(&mut self) -> Vec<(String, Found<V>)> {
        let listed = self.coming.take().unwrap_or_default();
        let mut before = std::mem::replace(&mut self.objects, listed);
        before.retain(|name, _| !self.objects.contains_key(name));
        if !before.is_empty() {
            // They went after everything that was seen before, and the list is of after that.
            self.newest = self.newest.max(self.before_list.saturating_add(1));
        }
        (self.is_complete, self.is_current) = (true, true);
        before.into_iter().collect()
    }

    /// An object is there, as it is now.
    pub(crate) fn applied(&mut self, name: String, version: u64, found: Found<V>) {
        self.heard(version);
        self.objects.insert(name, found);
    }

    /// An object is not there any more.
    pub(crate) fn left(&mut self, name: &str, version: u64) {
        self.heard(version);
        self.objects.remove(name);
    }

    /// The watch is interrupted: what it has shown may be out of date.
    pub(crate) fn interrupted(&mut self) {
        self.is_current = false;
    }

    /// All objects; `None` when they are not complete and current.
    pub(crate) fn listing(&self) -> Option<Listing<V>> {
        if !self.is_complete || !self.is_current {
            return None;
        }
        let mut listing = Listing::new(Vec::new(), Some(ResourceVersion::new(self.newest)));
        listing.items.reserve(self.objects.len());
        for found in self.objects.values() {
            match found {
                Ok(view) => listing.items.push(view.clone()),
                Err(unreadable) => listing.unreadable.push(unreadable.clone()),
            }
        }
        Some(listing)
    }

    /// An event has come: the watch goes on.
    fn heard(&mut self, version: u64) {
        self.is_current = true;
        self.newest = self.newest.max(version);
    }
}

#[cfg(test)]
mod tests {
    use pac_pipelines::model::{Condition, ConditionStatus};

    use super::*;

    fn run(name: &str) -> RunView {
        let key = format!("ci/{name}").parse().unwrap();
        RunView::new(key, format!("uid-{name}").parse().unwrap())
    }

    fn names(listing: &Listing<RunView>) -> Vec<String> {
        let mut names: Vec<_> = listing
            .items
            .iter()
            .map(|run| run.key.to_string())
            .collect();
        names.sort();
        names
    }

    fn filled(names: &[&str]) -> Caches {
        let mut caches = Caches::default();
        caches.runs.begin();
        for (at, name) in names.iter().enumerate() {
            let version = u64::try_from(at).unwrap() + 1;
            caches
                .runs
                .listed((*name).to_owned(), version, Ok(run(name)));
        }
        assert!(caches.runs.complete().is_empty());
        caches
    }

    #[test]
    fn only_what_is_complete_and_current_answers() {
        let mut caches = Caches::default();
        assert_eq!(caches.list_runs(), None);
        caches.runs.begin();
        caches.runs.listed("a".to_owned(), 3, Ok(run("a")));
        assert_eq!(caches.list_runs(), None);
        caches.runs.complete();
        assert_eq!(
            caches.list_runs().unwrap().version,
            Some(ResourceVersion::new(3))
        );
        caches.runs.interrupted();
        assert_eq!(caches.list_runs(), None);
        caches.runs.applied("b".to_owned(), 9, Ok(run("b")));
        let listing = caches.list_runs().unwrap();
        assert_eq!(listing.version, Some(ResourceVersion::new(9)));
        assert_eq!(names(&listing), ["ci/a", "ci/b"]);
        caches.runs.left("a", 12);
        assert_eq!(names(&caches.list_runs().unwrap()), ["ci/b"]);
    }

    #[test]
    fn a_list_that_is_taken_again_tells_what_is_missing() {
        let mut caches = filled(&["a", "b"]);
        caches.runs.begin();
        assert_eq!(caches.list_runs(), None);
        caches.runs.listed("b".to_owned(), 1, Ok(run("b")));
        let gone = caches.runs.complete();
        assert_eq!(gone.len(), 1);
        assert_eq!(gone[0].0, "a");
        // The list is newer than what was seen before, though none of its objects is.
        assert_eq!(
            caches.list_runs().unwrap().version,
            Some(ResourceVersion::new(3))
        );
    }

    #[test]
    fn a_run_that_left_the_selection_is_listed_until_it_is_known_to_have_ended() {
        let mut caches = filled(&["a"]);
        let now = Instant::now();
        caches.runs.left("a", 5);
        assert_eq!(caches.stray("a".to_owned(), run("a"), now), None);
        assert_eq!(names(&caches.list_runs().unwrap()), ["ci/a"]);
        assert_eq!(caches.next_stray(), Some(now));
        assert_eq!(caches.take_stray(now).unwrap().0, "a");
        assert_eq!((caches.take_stray(now), caches.next_stray()), (None, None));
        let mut done = run("b");
        done.succeeded = Some(Condition::new(ConditionStatus::True, "Completed"));
        assert!(caches.stray("b".to_owned(), done, now).is_some());
        assert_eq!(caches.strays.len(), 1);
    }
}
