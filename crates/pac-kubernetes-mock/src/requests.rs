//! The log of requests, and a filter for them.

use std::sync::{Mutex, PoisonError};

use crate::call::{Call, Verb};

/// A request that came over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestRecord {
    /// What it does.
    pub verb: Verb,
    /// The plural of its resource.
    pub resource: String,
    /// Empty: no namespace, or all of them.
    pub namespace: String,
    /// Empty: a collection.
    pub name: String,
    /// Whether it is about the status subresource.
    pub status: bool,
    /// Whether nothing was kept of it.
    pub dry_run: bool,
}

/// A filter for requests. A criterion that is not set accepts every request.
///
/// ```
/// use pac_kubernetes_mock::{Requests, Verb};
///
/// let starts = Requests::any().verb(Verb::Patch).resource("pipelineruns").namespace("ci");
/// # let _ = starts;
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests {
    verb: Option<Verb>,
    writes: bool,
    resource: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

impl Requests {
    /// All requests.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// Those that change something.
    #[must_use]
    pub fn writes() -> Self {
        Self {
            writes: true,
            ..Self::default()
        }
    }

    /// Only those of this verb.
    #[must_use]
    pub fn verb(mut self, verb: Verb) -> Self {
        self.verb = Some(verb);
        self
    }

    /// Only those about the resource with this plural, such as `pipelineruns`.
    #[must_use]
    pub fn resource(mut self, plural: &str) -> Self {
        self.resource = Some(plural.to_owned());
        self
    }

    /// Only those in this namespace.
    #[must_use]
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// Only those about the object of this name.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Whether the filter accepts the request.
    #[must_use]
    pub fn matches(&self, request: &RequestRecord) -> bool {
        let fits = |wanted: &Option<String>, found: &str| {
            wanted.as_deref().is_none_or(|wanted| wanted == found)
        };
        self.verb.is_none_or(|verb| verb == request.verb)
            && (!self.writes || request.verb.writes())
            && fits(&self.resource, &request.resource)
            && fits(&self.namespace, &request.namespace)
            && fits(&self.name, &request.name)
    }

    pub(crate) fn match_call(&self, call: &Call) -> bool {
        self.matches(&RequestRecord::of(call))
    }
}

impl RequestRecord {
    fn of(call: &Call) -> Self {
        Self {
            verb: call.verb,
            resource: call.resource.plural.clone(),
            namespace: call.namespace.clone(),
            name: call.name.clone(),
            status: call.status,
            dry_run: call.dry_run(),
        }
    }
}

/// The requests in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Log(Mutex<Vec<RequestRecord>>);

impl Log {
    pub(crate) fn record(&self, call: &Call) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.push(RequestRecord::of(call));
    }

    pub(crate) fn matching(&self, requests: &Requests) -> Vec<RequestRecord> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let records = records.iter().filter(|record| requests.matches(record));
        records.cloned().collect()
    }

    pub(crate) fn clear(&self) {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.clear();
    }
}
