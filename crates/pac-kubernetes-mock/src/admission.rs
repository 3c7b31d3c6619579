//! What happens to an object between a request and the store.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::failure::Failure;
use crate::policies::{self, Policy};
use crate::resource::Resource;
use crate::store::State;

/// The write that an object is admitted for.
#[derive(Debug)]
#[non_exhaustive]
pub struct Review<'a> {
    /// Whether the object is made or changed.
    pub operation: Operation,
    /// Its kind.
    pub resource: &'a Resource,
    /// The object as it is; absent when it is made.
    pub old: Option<&'a Value>,
}

/// The operations that admission tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Operation {
    /// The object is made.
    Create,
    /// The object is changed by a put, a patch or an apply.
    Update,
}

/// A function that changes objects on their way in, or refuses them, as a webhook does.
///
/// It is called for the object itself and not for its status subresource, while the server is
/// locked: it must not call the server.
pub type Mutator = Arc<dyn Fn(&Review<'_>, &mut Value) -> Result<(), Failure> + Send + Sync>;

/// The installed mutators and the policies that the server recognises.
#[derive(Default)]
pub(crate) struct Admission {
    mutators: Vec<(String, Mutator)>,
    policies: Vec<Policy>,
}

impl Admission {
    /// Installs a mutator; one of the same name is replaced.
    pub(crate) fn install(&mut self, name: &str, mutator: Mutator) {
        self.remove(name);
        self.mutators.push((name.to_owned(), mutator));
    }

    pub(crate) fn remove(&mut self, name: &str) {
        self.mutators.retain(|(installed, _)| installed != name);
    }

    pub(crate) fn recognise(&mut self, policy: Policy) {
        self.policies.push(policy);
    }
}

/// Runs an object through the policies, and then through the mutators in the order in which they
/// were installed, as a real server runs its policies before its webhooks.
///
/// # Errors
/// The refusal of a mutator.
pub(crate) fn admit(state: &State, review: &Review<'_>, object: &mut Value) -> Result<(), Failure> {
    for policy in &state.admission.policies {
        policies::apply(policy, state, review, object);
    }
    for (_, mutator) in &state.admission.mutators {
        mutator(review, object)?;
    }
    Ok(())
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.mutators.iter().map(|(name, _)| name).collect();
        f.debug_struct("Admission")
            .field("mutators", &names)
            .field("policies", &self.policies)
            .finish()
    }
}
