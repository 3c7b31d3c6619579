//! The objects, their one revision counter, and the history that watches read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::admission::Admission;
use crate::definitions;
use crate::failure::Failure;
use crate::object;
use crate::pages::Pages;
use crate::patch::Applied;
use crate::resource::{self, Resource};
use crate::selector::Selector;

/// Everything that the server keeps.
pub(crate) struct State {
    resources: Vec<Arc<Resource>>,
    /// The rows among them that are not of a new server.
    added: Vec<Arc<Resource>>,
    /// By qualified plural, then by namespace and name.
    objects: BTreeMap<String, BTreeMap<(String, String), Arc<Value>>>,
    revision: u64,
    history: VecDeque<Change>,
    history_limit: usize,
    /// The history begins after this revision.
    compacted: u64,
    pub(crate) pages: Pages,
    pub(crate) applied: Applied,
    pub(crate) admission: Admission,
}

/// One write.
#[derive(Debug)]
struct Change {
    revision: u64,
    resource: String,
    old: Option<Arc<Value>>,
    new: Arc<Value>,
    deleted: bool,
}

/// The kind of an event: the object has left the selection, or is gone.
pub(crate) const DELETED: &str = "DELETED";

/// An event of a watch.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub(crate) kind: &'static str,
    pub(crate) object: Arc<Value>,
}

impl State {
    /// A server with no objects but the namespaces that every cluster has.
    pub(crate) fn new(history_limit: usize) -> Self {
        let mut state = Self {
            resources: resource::table().into_iter().map(Arc::new).collect(),
            added: Vec::new(),
            objects: BTreeMap::new(),
            revision: 100,
            history: VecDeque::new(),
            history_limit,
            compacted: 100,
            pages: Pages::default(),
            applied: Applied::default(),
            admission: Admission::default(),
        };
        if let Ok(namespaces) = state.resource_named("namespaces") {
            for name in ["default", "kube-system", "kube-public"] {
                let object = json!({
                    "apiVersion": "v1",
                    "kind": "Namespace",
                    "metadata": {
                        "name": name,
                        "uid": object::new_uid(),
                        "creationTimestamp": object::now(),
                    },
                    "status": {"phase": "Active"},
                });
                state.commit(&namespaces, None, object);
            }
        }
        state
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// The resource of a path.
    pub(crate) fn resource(
        &self,
        group: &str,
        version: &str,
        plural: &str,
    ) -> Option<Arc<Resource>> {
        let mut resources = self.resources.iter();
        resources
            .find(|row| row.group == group && row.version == version && row.plural == plural)
            .cloned()
    }

    /// The resource with this plural, or qualified plural.
    ///
    /// # Errors
    /// 404 when there is none.
    pub(crate) fn resource_named(&self, plural: &str) -> Result<Arc<Resource>, Failure> {
        let mut resources = self.resources.iter();
        resources
            .find(|row| row.plural == plural || row.qualified_plural() == plural)
            .cloned()
            .ok_or_else(Failure::no_such_path)
    }

    /// Adds a row to the table, unless the table has that resource.
    pub(crate) fn add_resource(&mut self, row: Resource) {
        if self
            .resource(&row.group, &row.version, &row.plural)
            .is_none()
        {
            let row = Arc::new(row);
            self.added.push(Arc::clone(&row));
            self.resources.push(row);
        }
    }

    /// Takes the rows out of the table that definitions declare.
    pub(crate) fn remove_custom_resources(&mut self) {
        self.resources.retain(|row| !row.custom);
    }

    /// Takes a row out of the table, and its objects with it, if it was added to the table.
    pub(crate) fn remove_resource(&mut self, row: &Resource) {
        if self.added.iter().any(|added| **added == *row) {
            self.added.retain(|added| **added != *row);
            self.resources.retain(|kept| **kept != *row);
            self.objects.remove(&row.qualified_plural());
        }
    }

    pub(crate) fn find(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<Value>> {
        let key = (namespace.to_owned(), name.to_owned());
        let objects = self.objects.get(&resource.qualified_plural())?;
        objects.get(&key).cloned()
    }

    /// The object.
    ///
    /// # Errors
    /// 404 when there is none.
    pub(crate) fn get(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
    ) -> Result<Arc<Value>, Failure> {
        self.find(resource, namespace, name)
            .ok_or_else(|| Failure::not_found(resource, name))
    }

    /// The selected objects, by namespace and name; an empty namespace stands for all.
    pub(crate) fn select(
        &self,
        resource: &Resource,
        namespace: &str,
        selector: &Selector,
    ) -> Vec<Arc<Value>> {
        let objects = self.objects.get(&resource.qualified_plural());
        let objects = objects.into_iter().flatten();
        objects
            .filter(|((found, _), _)| namespace.is_empty() || found == namespace)
            .filter(|(_, object)| selector.matches(object))
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// Keeps `new` under the next revision.
    pub(crate) fn commit(
        &mut self,
        resource: &Resource,
        old: Option<Arc<Value>>,
        new: Value,
    ) -> Arc<Value> {
        let new = self.at_next_revision(new);
        let key = key_of(&new);
        let objects = self.objects.entry(resource.qualified_plural()).or_default();
        objects.insert(key, Arc::clone(&new));
        self.record(resource, old, &new, false);
        if definitions::declares(resource) {
            definitions::declared(self, &new);
        }
        new
    }

    /// Removes the object; returns it as it was, with the revision of its end.
    pub(crate) fn remove(
        &mut self,
        resource: &Resource,
        old: &Arc<Value>,
        last: Value,
    ) -> Arc<Value> {
        let last = self.at_next_revision(last);
        let key = key_of(&last);
        self.applied.forget(resource, &key.0, &key.1);
        if let Some(objects) = self.objects.get_mut(&resource.qualified_plural()) {
            objects.remove(&key);
        }
        self.record(resource, Some(Arc::clone(old)), &last, true);
        if definitions::declares(resource) {
            definitions::withdrawn(self, &last);
        }
        last
    }

    /// Forgets the history: a watch from an older revision is answered with 410.
    pub(crate) fn compact(&mut self) {
        self.history.clear();
        self.compacted = self.revision;
        self.pages = Pages::default();
    }

    /// The events after a revision, as a watch with this selector sees them.
    ///
    /// # Errors
    /// 410 when the history does not reach back that far, 504 when the revision is yet to come.
    pub(crate) fn events(
        &self,
        resource: &Resource,
        namespace: &str,
        selector: &Selector,
        after: u64,
    ) -> Result<Vec<Event>, Failure> {
        if after < self.compacted {
            return Err(Failure::too_old(after, self.compacted));
        }
        if after > self.revision {
            return Err(Failure::too_large(after, self.revision));
        }
        let plural = resource.qualified_plural();
        let first = self
            .history
            .partition_point(|change| change.revision <= after);
        let changes = self.history.range(first..);
        Ok(changes
            .filter(|change| change.resource == plural)
            .filter(|change| namespace.is_empty() || object::namespace(&change.new) == namespace)
            .filter_map(|change| change.seen_through(selector))
            .collect())
    }

    fn at_next_revision(&mut self, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        let revision = json!(self.revision.to_string());
        object::fields(&mut object, "metadata").insert("resourceVersion".to_owned(), revision);
        Arc::new(object)
    }

    fn record(
        &mut self,
        resource: &Resource,
        old: Option<Arc<Value>>,
        new: &Arc<Value>,
        deleted: bool,
    ) {
        self.history.push_back(Change {
            revision: self.revision,
            resource: resource.qualified_plural(),
            old,
            new: Arc::clone(new),
            deleted,
        });
        while self.history.len() > self.history_limit {
            if let Some(dropped) = self.history.pop_front() {
                self.compacted = dropped.revision;
            }
        }
    }
}

impl Change {
    /// An object that a change brings into a selection was added to it, and one that leaves it
    /// was deleted from it.
    fn seen_through(&self, selector: &Selector) -> Option<Event> {
        let before = self.old.as_ref().is_some_and(|old| selector.matches(old));
        let after = !self.deleted && selector.matches(&self.new);
        let kind = match (before, after) {
            (false, false) => return None,
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => DELETED,
        };
        let object = Arc::clone(&self.new);
        Some(Event { kind, object })
    }
}

fn key_of(object: &Value) -> (String, String) {
    (
        object::namespace(object).to_owned(),
        object::name(object).to_owned(),
    )
}
