//! Watches: cursors over the revisions, and what each stream of them is owed.
//!
//! Source: `server/storage/mvcc/watchable_store.go`, `watcher.go` and
//! `server/etcdserver/api/v3rpc/watch.go` of etcd 3.5.

mod index;
mod stream;

use std::collections::HashMap;

use self::index::Index;
use self::stream::Stream;
pub(crate) use self::stream::WatchCreate;
use super::store::{Change, Store};

/// One open stream of watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamId(u64);

/// A watch on a stream: its id is unique on that stream alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct WatchKey {
    stream: StreamId,
    watch: i64,
}

/// All watches of one world.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    streams: HashMap<StreamId, Stream>,
    index: Index,
    next_stream: u64,
    /// The streams that have become owed something since this was last taken.
    owed: Vec<StreamId>,
}

impl Watchers {
    pub(crate) fn open(&mut self) -> StreamId {
        let id = StreamId(self.next_stream);
        self.next_stream += 1;
        self.streams.insert(id, Stream::default());
        id
    }

    pub(crate) fn close(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.remove(&id) {
            for (watch, span) in stream.spans() {
                self.index.remove(span, WatchKey { stream: id, watch });
            }
        }
    }

    /// How many watches there are.
    pub(crate) fn count(&self) -> usize {
        self.streams.values().map(Stream::count).sum()
    }

    pub(super) fn stream(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(&id)
    }

    /// Adds a watch that was created on its stream.
    pub(super) fn add(&mut self, id: StreamId, asked: &WatchCreate, watch: i64) {
        self.index.add(&asked.span, WatchKey { stream: id, watch });
    }

    /// Removes a watch from its stream. Whether it was there.
    pub(super) fn cancel(&mut self, id: StreamId, watch: i64) -> bool {
        let removed = self.streams.get_mut(&id).and_then(|s| s.remove(watch));
        if let Some(span) = &removed {
            self.index.remove(span, WatchKey { stream: id, watch });
        }
        removed.is_some()
    }

    /// Notes what is written at a revision.
    pub(super) fn notice(&mut self, revision: i64, changes: &[Change]) {
        if self.index.is_empty() {
            return;
        }
        let (streams, owed) = (&mut self.streams, &mut self.owed);
        for change in changes {
            self.index.each(change.key(), |watch| {
                if let Some(stream) = streams.get_mut(&watch.stream)
                    && stream.notice(watch.watch, revision)
                {
                    owed.push(watch.stream);
                }
            });
        }
    }

    /// Writes down what watches are owed that a compaction would take from them.
    pub(super) fn before_compaction(&mut self, store: &Store, fragment_bytes: usize) {
        for stream in self.streams.values_mut() {
            stream.write_down(store, fragment_bytes);
        }
    }

    pub(crate) fn take_owed(&mut self) -> Vec<StreamId> {
        std::mem::take(&mut self.owed)
    }
}
