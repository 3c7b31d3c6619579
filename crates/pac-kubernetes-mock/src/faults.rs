//! What a test can make the server do wrong.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use tokio::sync::watch;

use crate::call::{Call, Verb};
use crate::failure::Failure;
use crate::requests::Requests;

/// A way in which a request goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The request is done, and its sender does not learn it. Watches are not concerned: they are
    /// cut, see [`ApiServer::cut_watches`](crate::ApiServer::cut_watches).
    Lost(Lost),
    /// The request is not done, and this is the answer.
    Refused(Failure),
    /// A watch or a list learns that its revision is no longer in the history.
    Gone(Gone),
}

/// What the sender of a request sees in the place of its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lost {
    /// An answer that leaves it open whether the request was done.
    Answered(Failure),
    /// The end of the connection.
    Dropped,
}

/// How a server says 410.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Gone {
    /// As an event of type `ERROR` in a stream that ends with it: what a watch gets.
    Event,
    /// As the response: what a list with an old `continue` gets, and some watches.
    Response,
}

impl Fault {
    /// Done, and answered with 500: the store behind the server timed out.
    #[must_use]
    pub fn done_then_500() -> Self {
        let failure = Failure::new(500, "", "etcdserver: request timed out");
        Self::Lost(Lost::Answered(failure))
    }

    /// Done, and answered with 504: the server waited for too long.
    #[must_use]
    pub fn done_then_504() -> Self {
        let message = "Timeout: request did not complete within requested timeout - context \
                       deadline exceeded";
        let failure = Failure::new(504, "Timeout", message).with_details(json!({}));
        Self::Lost(Lost::Answered(failure))
    }

    /// Done, and answered with the other 504 that a server has, of its outer filter.
    #[must_use]
    pub fn done_then_504_allotted() -> Self {
        let message = "Timeout: request did not complete within the allotted timeout";
        let failure = Failure::new(504, "Timeout", message).with_details(json!({}));
        Self::Lost(Lost::Answered(failure))
    }

    /// Done, and the connection ends without an answer.
    #[must_use]
    pub fn done_then_dropped() -> Self {
        Self::Lost(Lost::Dropped)
    }

    /// Not done: 429 with `Retry-After`, in plain text as flow control answers.
    #[must_use]
    pub fn too_many_requests(retry_after_seconds: u32) -> Self {
        let message = "Too many requests, please try again later.\n";
        let mut failure = Failure::new(429, "TooManyRequests", message);
        failure.plain = true;
        failure.retry_after = Some(retry_after_seconds);
        Self::Refused(failure)
    }

    /// Not done: 503 with `Retry-After`.
    #[must_use]
    pub fn unavailable(retry_after_seconds: u32) -> Self {
        let message = "the server is currently unable to handle the request";
        let mut failure = Failure::new(503, "ServiceUnavailable", message)
            .with_details(json!({"retryAfterSeconds": retry_after_seconds}));
        failure.retry_after = Some(retry_after_seconds);
        Self::Refused(failure)
    }

    /// Not done: 403, as for a missing role.
    #[must_use]
    pub fn forbidden(message: &str) -> Self {
        Self::Refused(Failure::new(403, "Forbidden", message).with_details(json!({})))
    }

    /// Whether it can befall a request of this verb.
    fn befalls(&self, verb: Verb) -> bool {
        match self {
            Self::Lost(_) => verb != Verb::Watch,
            Self::Gone(_) => matches!(verb, Verb::Watch | Verb::List),
            Self::Refused(_) => true,
        }
    }
}

/// The faults of one server. They concern requests over HTTP, and not those of
/// [`Handle`](crate::Handle)s.
#[derive(Debug, Default)]
pub struct Faults {
    injected: Mutex<Vec<Arc<Injection>>>,
    holds: Mutex<Vec<Arc<Held>>>,
}

impl Faults {
    /// Lets the next `times` of these requests go wrong. Of several faults that concern a request,
    /// the one injected first is used up first.
    pub fn inject(&self, requests: Requests, times: usize, fault: Fault) -> Injected {
        let injection = Arc::new(Injection {
            requests,
            fault,
            left: AtomicUsize::new(times),
            hits: AtomicUsize::new(0),
        });
        let mut injected = self.injected.lock().unwrap_or_else(PoisonError::into_inner);
        injected.push(Arc::clone(&injection));
        Injected(injection)
    }

    /// Lets no more requests go wrong. Held ones stay held.
    pub fn clear(&self) {
        let mut injected = self.injected.lock().unwrap_or_else(PoisonError::into_inner);
        injected.clear();
    }

    /// Holds these requests at this point until the answer is released or dropped.
    pub fn hold_at(&self, point: HoldPoint, requests: Requests) -> Hold {
        let held = Arc::new(Held {
            requests,
            point,
            released: watch::Sender::new(false),
            reached: watch::Sender::new(0),
        });
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.retain(|hold| !*hold.released.borrow());
        holds.push(Arc::clone(&held));
        Hold(held)
    }

    /// Waits while the request is held at this point.
    pub(crate) async fn hold(&self, point: HoldPoint, call: &Call) {
        let holds: Vec<Arc<Held>> = {
            let holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
            let concerning =
                |hold: &&Arc<Held>| hold.point == point && hold.requests.match_call(call);
            holds.iter().filter(concerning).cloned().collect()
        };
        for hold in holds {
            let mut released = hold.released.subscribe();
            if !*released.borrow() {
                hold.reached.send_modify(|reached| *reached += 1);
            }
            // The sender lives in `hold`, which lives until the end of this round.
            let _ = released.wait_for(|released| *released).await;
        }
    }

    /// The fault of this request, which it uses up.
    pub(crate) fn take(&self, call: &Call) -> Option<Fault> {
        let injected = self.injected.lock().unwrap_or_else(PoisonError::into_inner);
        let injection = injected.iter().find(|injection| {
            injection.left.load(Ordering::SeqCst) > 0
                && injection.fault.befalls(call.verb)
                && injection.requests.match_call(call)
        })?;
        injection.left.fetch_sub(1, Ordering::SeqCst);
        injection.hits.fetch_add(1, Ordering::SeqCst);
        Some(injection.fault.clone())
    }
}

/// A fault that was injected, to be counted.
#[derive(Debug, Clone)]
pub struct Injected(Arc<Injection>);

impl Injected {
    /// How many requests it made go wrong.
    #[must_use]
    pub fn hits(&self) -> usize {
        self.0.hits.load(Ordering::SeqCst)
    }

    /// Lets no more requests go wrong.
    pub fn stop(&self) {
        self.0.left.store(0, Ordering::SeqCst);
    }
}

struct Injection {
    requests: Requests,
    fault: Fault,
    left: AtomicUsize,
    hits: AtomicUsize,
}

impl fmt::Debug for Injection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Injection")
            .field("requests", &self.requests)
            .field("fault", &self.fault)
            .field("hits", &self.hits)
            .finish_non_exhaustive()
    }
}

/// Where a request is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HoldPoint {
    /// Before it is done.
    Before,
    /// After it was done, before it is answered. A watch is never held here.
    After,
}

/// Requests that are held; dropping it releases them.
#[derive(Debug)]
pub struct Hold(Arc<Held>);

impl Hold {
    /// How many requests have been held so far.
    #[must_use]
    pub fn reached(&self) -> usize {
        *self.0.reached.borrow()
    }

    /// Waits until this many requests have been held; cancelling the wait changes nothing.
    pub async fn until_reached(&self, requests: usize) {
        let mut reached = self.0.reached.subscribe();
        // The sender lives as long as this.
        let _ = reached.wait_for(|reached| *reached >= requests).await;
    }

    /// Lets them go on, and holds no further ones.
    pub fn release(&self) {
        self.0.released.send_replace(true);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.release();
    }
}

#[derive(Debug)]
struct Held {
    requests: Requests,
    point: HoldPoint,
    released: watch::Sender<bool>,
    reached: watch::Sender<usize>,
}
