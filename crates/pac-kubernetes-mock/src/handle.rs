//! The API without a connection, for tests and for stand-ins.

use std::sync::{Arc, MutexGuard};

use serde_json::Value;
use tokio::sync::watch;

use crate::call::{Call, Content, JSON_PATCH, MERGE_PATCH, Verb};
use crate::failure::Failure;
use crate::object;
use crate::remote::{Remote, There};
use crate::selector::Selector;
use crate::server::Shared;
use crate::store::{DELETED, State};

/// A way to the objects of a server that does what requests over HTTP do, with the same answers,
/// but that no fault concerns and the log does not show: what a test counts and breaks are the
/// requests of the program under test. Only while the server is away it fails too, with 503.
///
/// It is also the way to a [server elsewhere](Handle::remote), by requests over HTTP.
///
/// Resources are named by their plural, qualified if need be: `pipelineruns`, or
/// `pipelineruns.tekton.dev`.
#[derive(Clone)]
pub struct Handle {
    way: Way,
}

#[derive(Clone)]
enum Way {
    /// The server is in this process.
    Here(Arc<Shared>),
    There(Arc<There>),
}

/// One write of an object.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Written {
    /// As it was afterwards; one that was deleted, as it was last.
    pub object: Arc<Value>,
    /// Whether it was deleted.
    pub deleted: bool,
}

impl Handle {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let way = Way::Here(shared);
        Self { way }
    }

    /// A way to a server elsewhere, such as that of a real cluster. Where it is asked for all
    /// namespaces, it answers with what is in this one, and its [history](Self::history) is that of
    /// the PipelineRuns and Repositories in it, by revisions of its own; an empty one stands for all,
    /// without a history. While a call waits for its answer, so does the thread.
    ///
    /// # Panics
    /// Outside a Tokio runtime; and so does each call, outside one with several threads.
    #[must_use]
    pub fn remote(remote: Arc<dyn Remote>, namespace: &str) -> Self {
        let way = Way::There(Arc::new(There::new(remote, namespace)));
        Self { way }
    }

    /// Makes an object in the namespace that it names; returns it as it is kept.
    ///
    /// # Errors
    /// As over HTTP.
    pub fn create(&self, resource: &str, object: Value) -> Result<Value, Failure> {
        let namespace = object::namespace(&object).to_owned();
        let mut call = self.call_of(Verb::Create, resource, &namespace, "")?;
        call.body = object;
        self.answer(&call)
    }

    /// Makes a namespace, unless it is there.
    ///
    /// # Errors
    /// As over HTTP.
    pub fn create_namespace(&self, name: &str) -> Result<(), Failure> {
        let namespace = serde_json::json!({"metadata": {"name": name}});
        match self.create("namespaces", namespace) {
            Err(failure) if failure.reason == "AlreadyExists" => Ok(()),
            Err(failure) => Err(failure),
            Ok(_) => Ok(()),
        }
    }

    /// Reads an object; the namespace is empty for one that has none.
    ///
    /// # Errors
    /// As over HTTP.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Result<Value, Failure> {
        self.answer(&self.call_of(Verb::Get, resource, namespace, name)?)
    }

    /// Reads the objects that a label selector selects, by namespace and name; an empty namespace
    /// stands for all.
    ///
    /// # Errors
    /// As over HTTP.
    pub fn list(
        &self,
        resource: &str,
        namespace: &str,
        label_selector: &str,
    ) -> Result<Vec<Value>, Failure> {
        let call = self.call_of(Verb::List, resource, namespace, "")?;
        if let Way::There(there) = &self.way {
            return there.list(call, label_selector);
        }
        let selector = Selector::parse(label_selector, "")?;
        let state = self.seen();
        let objects = state.select(&call.resource, namespace, &selector);
        Ok(objects.iter().map(|object| Value::clone(object)).collect())
    }

    /// Changes an object by a merge patch; returns it as it is kept.
    ///
    /// # Errors
    /// As over HTTP.
    pub fn merge(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        patch: Value,
    ) -> Result<Value, Failure> {
        let call = self.call_of(Verb::Patch, resource, namespace, name)?;
        self.change(call, MERGE_PATCH, patch)
    }

    /// Changes an object by a JSON patch; returns it as it is kept.
    ///
    /// # Errors
    /// As over HTTP.
    pub fn patch(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        patch: Value,
    ) -> Result<Value, Failure> {
        let call = self.call_of(Verb::Patch, resource, namespace, name)?;
        self.change(call, JSON_PATCH, patch)
    }

    /// Changes the status of an object by a merge patch of the whole object.
    ///
    /// # Errors
    /// As over HTTP.
    pub fn merge_status(
        &self,
        resource: &str,
        namespace: &str,
        name: &str,
        patch: Value,
    ) -> Result<Value, Failure> {
        let mut call = self.call_of(Verb::Patch, resource, namespace, name)?;
        call.status = true;
        self.change(call, MERGE_PATCH, patch)
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// As over HTTP.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) -> Result<(), Failure> {
        self.answer(&self.call_of(Verb::Delete, resource, namespace, name)?)?;
        Ok(())
    }

    /// The revision of the last write; of a server elsewhere, of the last one that was seen.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.seen().revision()
    }

    /// Every write of a resource after a revision, in order: the state of its objects at any revision
    /// since can be told from them.
    ///
    /// # Errors
    /// 410 when the history does not reach back that far.
    pub fn history(&self, resource: &str, after: u64) -> Result<Vec<Written>, Failure> {
        let call = self.call_of(Verb::Watch, resource, "", "")?;
        let state = self.seen();
        let events = state.events(&call.resource, "", &Selector::default(), after)?;
        let written = events.into_iter().map(|event| Written {
            deleted: event.kind == DELETED,
            object: event.object,
        });
        Ok(written.collect())
    }

    /// Tells of each new revision.
    pub(crate) fn revisions(&self) -> watch::Receiver<u64> {
        match &self.way {
            Way::Here(shared) => shared.revisions(),
            Way::There(there) => there.revisions(),
        }
    }

    /// The objects of a resource that were written after a revision, and the revision up to which
    /// that is so. An object that was written twice comes twice.
    ///
    /// # Errors
    /// 410 when the history does not reach back that far.
    pub(crate) fn written_after(
        &self,
        resource: &str,
        after: u64,
    ) -> Result<(Vec<Arc<Value>>, u64), Failure> {
        // Taken first: what is written in between is told twice rather than never.
        let revision = self.revision();
        let written = self.history(resource, after)?;
        let objects = written.into_iter().map(|written| written.object).collect();
        Ok((objects, revision))
    }

    fn call_of(
        &self,
        verb: Verb,
        resource: &str,
        namespace: &str,
        name: &str,
    ) -> Result<Call, Failure> {
        if let Way::Here(shared) = &self.way
            && shared.connections.away()
        {
            return Err(Failure::new(
                503,
                "ServiceUnavailable",
                "the server is away",
            ));
        }
        let resource = self.seen().resource_named(resource)?;
        Ok(Call::new(verb, resource, namespace, name))
    }

    fn change(&self, mut call: Call, content_type: &str, patch: Value) -> Result<Value, Failure> {
        call.content_type = content_type.to_owned();
        call.body = patch;
        self.answer(&call)
    }

    /// What the server keeps; of one elsewhere, what was seen of it.
    fn seen(&self) -> MutexGuard<'_, State> {
        match &self.way {
            Way::Here(shared) => shared.lock(),
            Way::There(there) => there.seen(),
        }
    }

    fn answer(&self, call: &Call) -> Result<Value, Failure> {
        let answer = match &self.way {
            Way::Here(shared) => shared.call(call)?,
            Way::There(there) => return there.answer(call),
        };
        match answer.content {
            Content::Object(object) => Ok(Arc::unwrap_or_clone(object)),
            // No method of a handle answers with a list.
            Content::List { metadata, .. } => Ok(metadata),
        }
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}
