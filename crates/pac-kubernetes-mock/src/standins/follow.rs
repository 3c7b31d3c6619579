//! Following the changes of a resource.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::handle::Handle;
use crate::object;

/// Namespace and name.
pub(super) type Key = (String, String);

/// The keys of a resource whose objects changed.
pub(super) struct Follower {
    objects: Handle,
    resource: &'static str,
    /// Changes up to this revision were told; `None` before the first list.
    after: Option<u64>,
}

impl Follower {
    pub(super) fn new(objects: Handle, resource: &'static str) -> Self {
        Self {
            objects,
            resource,
            after: None,
        }
    }

    /// The keys that changed since the last time; at first, and after the history was lost, all.
    /// `None` while the server is away.
    pub(super) fn changed(&mut self) -> Option<BTreeSet<Key>> {
        if let Some(after) = self.after {
            match self.objects.written_after(self.resource, after) {
                Ok((objects, revision)) => {
                    self.after = Some(revision);
                    return Some(objects.iter().map(|object| key_of(object)).collect());
                }
                Err(failure) if failure.code == 410 => self.after = None,
                Err(_) => return None,
            }
        }
        // Taken first: what is written in between is told twice rather than never.
        let revision = self.objects.revision();
        let objects = self.objects.list(self.resource, "", "").ok()?;
        self.after = Some(revision);
        Some(objects.iter().map(key_of).collect())
    }
}

pub(super) fn key_of(object: &serde_json::Value) -> Key {
    (
        object::namespace(object).to_owned(),
        object::name(object).to_owned(),
    )
}

/// Wakes a stand-in, and tells the test up to where it has come.
pub(super) struct Pace {
    revisions: watch::Receiver<u64>,
    handled: watch::Sender<u64>,
}

impl Pace {
    /// A pace, and what tells of it.
    pub(super) fn new(objects: &Handle) -> (Self, watch::Receiver<u64>) {
        let (handled, receiver) = watch::channel(0);
        let revisions = objects.revisions();
        (Self { revisions, handled }, receiver)
    }

    /// Says that everything up to a revision was dealt with.
    pub(super) fn handled(&self, revision: u64) {
        self.handled.send_replace(revision);
    }

    /// Waits for the next write, or until then. Returns at once if a write came since the last
    /// wait.
    pub(super) async fn next(&mut self, until: Option<Instant>) {
        let sleeping = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.revisions.changed() => if changed.is_err() {
                // The server is gone; the stand-in is dropped soon.
                sleep(Duration::from_millis(100)).await;
            },
            () = sleeping => {}
        }
    }
}

/// Waits until a stand-in has dealt with all that was written when this was called.
pub(super) async fn settled(objects: &Handle, mut handled: watch::Receiver<u64>) {
    let revision = objects.revision();
    // An error says that the stand-in has ended: it deals with nothing any more.
    let _ = handled.wait_for(|handled| *handled >= revision).await;
}
