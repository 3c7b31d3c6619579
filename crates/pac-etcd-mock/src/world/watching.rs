//! The requests on a stream of watches.

use etcd_client::proto::PbWatchResponse;

use super::refusal::Refusal;
use super::watch::{StreamId, WatchCreate};
use super::{Call, World};

/// The id in the answer to a watch that was not created.
const NO_WATCH: i64 = -1;

impl World {
    pub(crate) fn open_watches(&mut self) -> StreamId {
        self.watchers.open()
    }

    pub(crate) fn close_watches(&mut self, stream: StreamId) {
        self.watchers.close(stream);
    }

    /// Creates a watch, or queues the reason why not.
    pub(crate) fn create_watch(&mut self, call: &Call, stream: StreamId, asked: &WatchCreate) {
        self.expire(call.now);
        let current = self.store.revision();
        let permitted = self.check_watch(call, &asked.span);
        let Some(watches) = self.watchers.stream(stream) else {
            return;
        };
        let mut answer = PbWatchResponse {
            created: true,
            ..PbWatchResponse::default()
        };
        // As Go words a status.
        let denied = |Refusal { code, text }| format!("rpc error: code = {code:?} desc = {text}");
        let created = match permitted {
            Ok(()) => watches.create(asked, current).map_err(str::to_owned),
            Err(refusal) => Err(denied(refusal)),
        };
        match created {
            Ok(watch) => {
                answer.watch_id = watch;
                self.watchers.add(stream, asked, watch);
            }
            Err(reason) => {
                answer.watch_id = NO_WATCH;
                answer.canceled = true;
                answer.cancel_reason = reason;
            }
        }
        self.queue(stream, answer);
    }

    /// Cancels a watch. There is no answer for one that is not there.
    pub(crate) fn cancel_watch(&mut self, stream: StreamId, watch: i64) {
        if self.watchers.cancel(stream, watch) {
            let answer = PbWatchResponse {
                watch_id: watch,
                canceled: true,
                ..PbWatchResponse::default()
            };
            self.queue(stream, answer);
        }
    }

    /// Answers with the progress of the whole stream, once no watch of it is behind.
    pub(crate) fn ask_progress(&mut self, stream: StreamId) {
        if let Some(watches) = self.watchers.stream(stream) {
            watches.ask_progress();
        }
    }

    /// Tells progress to those watches that want it unasked.
    pub(crate) fn tell_progress(&mut self, stream: StreamId) {
        let mut header = None;
        self.fill(&mut header);
        if let (Some(watches), Some(header)) = (self.watchers.stream(stream), header) {
            watches.tell_progress(&header);
        }
    }

    /// The next response on a stream, if one is due.
    pub(crate) fn next_response(&mut self, stream: StreamId) -> Option<PbWatchResponse> {
        let bytes = self.limits.fragment_bytes();
        let watches = self.watchers.stream(stream)?;
        let mut response = watches.next(&self.store, bytes)?;
        let revision = response.header.map_or(0, |header| header.revision);
        self.fill(&mut response.header);
        // A cancelled watch tells no revision.
        if response.compact_revision != 0
            && let Some(header) = &mut response.header
        {
            header.revision = revision;
        }
        Some(response)
    }

    fn queue(&mut self, stream: StreamId, mut answer: PbWatchResponse) {
        self.fill(&mut answer.header);
        if let Some(watches) = self.watchers.stream(stream) {
            watches.queue(answer);
        }
    }
}
