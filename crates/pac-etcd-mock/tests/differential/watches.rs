//! The watches of a sequence, all on one stream. Their events are kept by watch, since the order
//! between watches, and how many events a message holds, is a matter of time on a real server.

use etcd_client::proto::{PbEvent, PbWatchRequest, PbWatchResponse};
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::answer::{Normal, refusal};
use super::operation::Watch;
use super::request::{View, cancel, progress};
use super::wire::{Wire, next};

/// A watch that the server accepted.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) id: i64,
    pub(crate) watch: Watch,
    /// The first revision that it reports.
    pub(crate) start: i64,
    events: Vec<PbEvent>,
    /// The last revision of an event.
    last: i64,
    /// The message with which it ended.
    end: Option<String>,
}

impl Watcher {
    pub(crate) fn is_live(&self) -> bool {
        self.end.is_none()
    }
}

#[derive(Debug)]
pub(crate) struct Watches {
    requests: mpsc::UnboundedSender<PbWatchRequest>,
    answers: Streaming<PbWatchResponse>,
    pub(crate) watchers: Vec<Watcher>,
    /// What belongs to no watch, or broke a rule.
    strays: Vec<String>,
    /// How the stream ended.
    end: Option<String>,
}

impl Watches {
    /// Opens the stream with a first request, whose answer is still to come.
    pub(crate) async fn open(
        wire: &Wire,
        token: Option<&str>,
        first: PbWatchRequest,
    ) -> Result<Self, Status> {
        let (requests, answers) = wire.watch(token, first).await?;
        Ok(Self {
            requests,
            answers,
            watchers: Vec::new(),
            strays: Vec::new(),
            end: None,
        })
    }

    /// Sends a request, unless the stream has ended.
    pub(crate) fn send(&mut self, request: PbWatchRequest) {
        // A stream that has ended is reported where its messages are read.
        let _ = self.requests.send(request);
    }

    /// The answer to the creation of a watch, which has been sent.
    pub(crate) async fn created(&mut self, view: &mut View, watch: &Watch, start: i64) -> String {
        let answer = self.read_until(view, |answer| answer.created).await;
        let Ok(mut answer) = answer else {
            return self.ended();
        };
        if !answer.canceled {
            let now = answer.header.map_or(0, |header| header.revision);
            self.watchers.push(Watcher {
                id: answer.watch_id,
                watch: watch.clone(),
                start: if start == 0 { now + 1 } else { start },
                events: Vec::new(),
                last: 0,
                end: None,
            });
        }
        answer.normalise(view);
        let is_refused = answer.cancel_reason.starts_with("rpc error");
        if is_refused && view.quirks.refused_watch {
            answer.watch_id = -1;
            answer.cancel_reason = "rpc error".to_owned();
        }
        format!("{answer:?}")
    }

    /// Cancels the n-th watch, whose events have all arrived.
    pub(crate) async fn cancel(&mut self, view: &mut View, n: usize) -> String {
        match self.watchers.get(n) {
            Some(watcher) if watcher.is_live() => {
                let id = watcher.id;
                self.send(cancel(id));
                self.settle(view, n, i64::MAX).await;
                let watcher = self.watchers.get(n);
                watcher.and_then(|one| one.end.clone()).unwrap_or_default()
            }
            other => {
                let id = other.map_or(90 + n as i64, |ended| ended.id);
                self.send(cancel(id));
                self.progress(view).await
            }
        }
    }

    /// Asks for progress: the server's answers come in the order of the requests, so that those to
    /// all requests before have arrived with it.
    pub(crate) async fn progress(&mut self, view: &mut View) -> String {
        self.send(progress());
        let is_progress = |answer: &PbWatchResponse| {
            answer.events.is_empty() && !answer.created && !answer.canceled
        };
        match self.read_until(view, is_progress).await {
            Ok(mut answer) => {
                answer.normalise(view);
                format!("{answer:?} {:?}", std::mem::take(&mut self.strays))
            }
            Err(()) => self.ended(),
        }
    }

    /// Reads until the n-th watch has reported an event of a revision, or has ended.
    pub(crate) async fn settle(&mut self, view: &mut View, n: usize, revision: i64) {
        let wanted = |watchers: &[Watcher]| {
            let watcher = watchers.get(n);
            watcher.is_some_and(|one| one.is_live() && one.last < revision)
        };
        while self.end.is_none() && wanted(&self.watchers) {
            if let Some(stray) = self.read(view).await {
                self.stray(view, stray);
            }
        }
    }

    /// All that the watches have reported.
    pub(crate) fn report(&mut self, view: &mut View) -> Vec<String> {
        let mut lines = Vec::new();
        for watcher in &mut self.watchers {
            watcher.events.normalise(view);
            for event in &watcher.events {
                lines.push(format!("watch {}: {event:?}", watcher.id));
            }
            lines.push(format!("watch {} ended: {:?}", watcher.id, watcher.end));
        }
        lines.push(format!("strays {:?}, stream {:?}", self.strays, self.end));
        lines
    }

    async fn read_until(
        &mut self,
        view: &mut View,
        wanted: impl Fn(&PbWatchResponse) -> bool,
    ) -> Result<PbWatchResponse, ()> {
        while self.end.is_none() {
            match self.read(view).await {
                Some(answer) if wanted(&answer) => return Ok(answer),
                Some(stray) => self.stray(view, stray),
                None => {}
            }
        }
        Err(())
    }

    fn stray(&mut self, view: &mut View, mut stray: PbWatchResponse) {
        stray.normalise(view);
        self.strays.push(format!("{stray:?}"));
    }

    /// Reads one message; gives it to its watch, or returns it.
    async fn read(&mut self, view: &mut View) -> Option<PbWatchResponse> {
        let mut answer = match next(&mut self.answers).await {
            Ok(answer) => answer,
            Err(status) => {
                self.end = Some(refusal(&status));
                return None;
            }
        };
        let mut live = self.watchers.iter_mut().filter(|one| one.is_live());
        let watcher = live.find(|one| one.id == answer.watch_id);
        match watcher {
            Some(watcher) if !answer.created && answer.canceled => {
                answer.normalise(view);
                watcher.end = Some(format!("{answer:?}"));
                None
            }
            Some(watcher) if !answer.events.is_empty() => {
                let now = answer.header.map_or(0, |header| header.revision);
                for event in answer.events {
                    let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
                    if revision < watcher.last || revision > now {
                        self.strays
                            .push(format!("out of order: {event:?} at {now}"));
                    }
                    watcher.last = revision;
                    watcher.events.push(event);
                }
                None
            }
            _ => Some(answer),
        }
    }

    fn ended(&self) -> String {
        format!("the stream has ended: {:?}", self.end)
    }
}
