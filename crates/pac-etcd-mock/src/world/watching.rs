//! The requests on a stream of watches.

use etcd_client::proto::PbWatchResponse;

use super::watch::{StreamId, WatchCreate};
use super::{Call, World};

/// What a client that lacks the permission reads: the error as Go words a status.
const DENIED: &str = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";

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
        let permitted = self.may_watch(call, &asked.span);
        let Some(watches) = self.watchers.stream(stream) else {
            return;
        };
        let mut answer = PbWatchResponse {
            created: true,
            ..PbWatchResponse::default()
        };
        let created = if permitted {
            watches.create(asked, current)
        } else {
            Err(DENIED)
        };
        match created {
            Ok(watch) => {
                answer.watch_id = watch;
                self.watchers.add(stream, asked, watch);
            }
            Err(reason) => {
                answer.watch_id = if permitted { NO_WATCH } else { asked.id };
                answer.canceled = true;
                answer.cancel_reason = reason.to_owned();
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
