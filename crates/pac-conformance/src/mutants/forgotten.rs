//! Parts of a commit that a broken store does not write.

use std::sync::Arc;

use pac_core::protocol::Changes;
use pac_core::state::{Entry, Moment, Terms};

pub(super) fn pause(changes: &mut Changes) {
    if let Some(policy) = &mut changes.head.policy {
        Arc::make_mut(policy).pause = None;
    }
}

pub(super) fn owner(changes: &mut Changes) {
    if let Some(policy) = &mut changes.head.policy {
        let policy = Arc::make_mut(policy);
        (policy.owner, policy.beneath) = (None, None);
    }
}

pub(super) fn request_to_end(changes: &mut Changes) {
    without(changes, |terms| terms.asked = Moment::NEVER);
}

pub(super) fn group(changes: &mut Changes) {
    without(changes, |terms| terms.group = None);
}

fn without(changes: &mut Changes, forget: impl Fn(&mut Terms)) {
    for entry in &mut changes.entries {
        if entry.terms.is_some() {
            let mut terms = entry.terms().clone();
            forget(&mut terms);
            *entry = Arc::new(Entry::clone(entry).with_terms(terms));
        }
    }
}
