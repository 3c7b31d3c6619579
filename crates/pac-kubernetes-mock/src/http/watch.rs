//! Watches: streams of events, one JSON object a line.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::call::Call;
use crate::failure::Failure;
use crate::http::answer::as_partial;
use crate::http::connection::Switch;
use crate::selector::Selector;
use crate::server::Shared;

/// The body of a watch.
///
/// # Errors
/// 400 for a malformed parameter. A revision that the history does not reach back to is an event
/// in the stream, as on a real server.
pub(crate) fn body(
    shared: &Arc<Shared>,
    call: &Call,
    partial: bool,
    switch: Arc<Switch>,
) -> Result<Body, Failure> {
    let timeout = match call.parameter("timeoutSeconds") {
        "" | "0" => shared.options.watch_timeout,
        text => Duration::from_secs(text.parse().map_err(|_| {
            Failure::bad_request(format!("timeoutSeconds must be a number: {text:?}"))
        })?),
    };
    let selector = call.selector()?;
    let from = call.revision()?;
    let now = Instant::now();
    let mut watching = Watching {
        shared: Arc::clone(shared),
        revisions: shared.revisions(),
        call: call.clone(),
        selector,
        partial,
        after: 0,
        deadline: now + timeout,
        bookmark: call
            .flag("allowWatchBookmarks")
            .then(|| now + shared.options.bookmark_interval),
        lines: String::new(),
        ended: false,
        switch,
    };
    watching.switch.set_watching(true);
    watching.begin(from);
    Ok(Body::from_stream(stream::unfold(
        watching,
        |mut watching| async move {
            let lines = watching.next().await?;
            Some((Ok::<_, std::convert::Infallible>(lines), watching))
        },
    )))
}

/// The body of a watch that says at once that its revision is gone.
pub(crate) fn gone(failure: &Failure) -> Body {
    Body::from(event_line("ERROR", &failure.status()))
}

struct Watching {
    shared: Arc<Shared>,
    revisions: watch::Receiver<u64>,
    call: Call,
    selector: Selector,
    partial: bool,
    /// Events up to this revision were sent.
    after: u64,
    deadline: Instant,
    /// When the next bookmark is due; `None` when the client takes none.
    bookmark: Option<Instant>,
    /// What is to be sent next.
    lines: String,
    ended: bool,
    switch: Arc<Switch>,
}

impl Watching {
    /// A watch from no revision, or one that asks for it, begins with what there is.
    fn begin(&mut self, from: Option<u64>) {
        let initial = self.call.flag("sendInitialEvents");
        if let Some(from) = from
            && !initial
        {
            self.after = from;
            return;
        }
        let state = self.shared.lock();
        let objects = state.select(&self.call.resource, &self.call.namespace, &self.selector);
        self.after = state.revision();
        drop(state);
        for object in objects {
            self.event("ADDED", &object);
        }
        if initial {
            self.bookmark_line(&json!({"k8s.io/initial-events-end": "true"}));
        }
    }

    /// The next lines; `None` at the end of the watch.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.collect();
            if !self.lines.is_empty() {
                return Some(Bytes::from(std::mem::take(&mut self.lines)));
            }
            if self.ended {
                return None;
            }
            let bookmark = self.bookmark.unwrap_or(self.deadline);
            tokio::select! {
                changed = self.revisions.changed() => self.ended |= changed.is_err(),
                () = sleep_until(self.deadline) => self.ended = true,
                () = sleep_until(bookmark) => {
                    self.bookmark = Some(Instant::now() + self.shared.options.bookmark_interval);
                    self.bookmark_line(&Value::Null);
                }
            }
        }
    }

    /// Takes the events since the last time.
    fn collect(&mut self) {
        if self.ended {
            return;
        }
        self.revisions.mark_unchanged();
        let state = self.shared.lock();
        let events = state.events(
            &self.call.resource,
            &self.call.namespace,
            &self.selector,
            self.after,
        );
        let revision = state.revision();
        drop(state);
        match events {
            Ok(events) => {
                self.after = revision;
                for event in events {
                    self.event(event.kind, &event.object);
                }
            }
            Err(failure) => {
                self.lines += &event_line("ERROR", &failure.status());
                self.ended = true;
            }
        }
    }

    fn event(&mut self, kind: &str, object: &Value) {
        let line = if self.partial {
            event_line(kind, &as_partial(object))
        } else {
            event_line(kind, object)
        };
        self.lines += &line;
    }

    fn bookmark_line(&mut self, annotations: &Value) {
        let mut metadata = json!({"resourceVersion": self.after.to_string()});
        if !annotations.is_null() {
            crate::object::as_map(&mut metadata)
                .insert("annotations".to_owned(), annotations.clone());
        }
        let object = json!({
            "kind": self.call.resource.kind,
            "apiVersion": self.call.resource.api_version(),
            "metadata": metadata,
        });
        self.event("BOOKMARK", &object);
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.switch.set_watching(false);
    }
}

/// The event as one line, written without a copy of its object.
fn event_line(kind: &str, object: &Value) -> String {
    format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
}
