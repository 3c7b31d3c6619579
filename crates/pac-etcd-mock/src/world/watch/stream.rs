//! The watches of one stream, and the responses that it is owed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use etcd_client::proto::{PbEvent, PbKeyValue as KeyValue, PbResponseHeader, PbWatchResponse};
use prost::Message;

use crate::world::kv::header_at;
use crate::world::span::Span;
use crate::world::store::{Change, Store};

/// Revisions in one response to a watch that catches up (`watchBatchMaxRevs`).
const MOST_REVISIONS: usize = 1000;

/// A watch that is this many revisions behind gets several of them in one response: as many as
/// wait on a channel of etcd's (`chanBufLen`).
const MOST_LAG: i64 = 128;

/// Responses that wait for a client which does not read, before a compaction ends its watches instead
/// of having more written down for it.
const MOST_WRITTEN: usize = 1024;

/// The id of a watch that was not created, and of progress that concerns all.
pub(super) const NO_WATCH: i64 = -1;

/// What a watch is created with.
#[derive(Debug, Clone)]
pub(crate) struct WatchCreate {
    pub(crate) span: Span,
    /// 0: from the next change on.
    pub(crate) from: i64,
    /// 0: the server chooses.
    pub(crate) id: i64,
    pub(crate) progress: bool,
    pub(crate) previous: bool,
    pub(crate) fragment: bool,
    pub(crate) no_put: bool,
    pub(crate) no_delete: bool,
}

impl WatchCreate {
    /// A watch of everything that happens to some keys, from a revision on.
    pub(crate) fn plain(span: Span, from: i64) -> Self {
        Self {
            span,
            from,
            id: 0,
            progress: false,
            previous: false,
            fragment: false,
            no_put: false,
            no_delete: false,
        }
    }
}

#[derive(Debug)]
struct Watch {
    asked: WatchCreate,
    /// The next revision that it is to see.
    from: i64,
    /// The last revision that concerns it: it is owed something while that is not before `from`.
    owed_to: i64,
    /// It gets each revision as it comes.
    is_synced: bool,
    /// Nothing was sent to it since progress was last told.
    is_quiet: bool,
}

impl Watch {
    fn is_owed(&self) -> bool {
        self.from <= self.owed_to
    }

    fn takes(&self, change: &Change) -> bool {
        let filtered = match change {
            Change::Put(_) => self.asked.no_put,
            Change::Delete { .. } => self.asked.no_delete,
        };
        !filtered && self.asked.span.contains(change.key())
    }
}

/// The watches of one stream.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    watches: BTreeMap<i64, Watch>,
    /// Watches that ended because of a compaction: their ids stay taken.
    compacted: BTreeMap<i64, Span>,
    next_id: i64,
    /// Watches that are owed something, each after the revision that it is to see next.
    behind: BTreeSet<(i64, i64)>,
    /// Responses that are complete.
    ready: VecDeque<PbWatchResponse>,
    /// Requests for progress that are answered once no watch is behind.
    progress: usize,
}

impl Stream {
    pub(super) fn count(&self) -> usize {
        self.watches.len()
    }

    pub(super) fn spans(&self) -> impl Iterator<Item = (i64, &Span)> {
        let live = self.watches.iter().map(|(id, w)| (*id, &w.asked.span));
        live.chain(self.compacted.iter().map(|(id, span)| (*id, span)))
    }

    /// Creates a watch. Returns its id, or why it cannot be.
    pub(in crate::world) fn create(
        &mut self,
        asked: &WatchCreate,
        current: i64,
    ) -> Result<i64, &'static str> {
        if asked.span.is_empty() {
            return Err("mvcc: watcher range is empty");
        }
        let is_taken = |id| self.watches.contains_key(&id) || self.compacted.contains_key(&id);
        let mut id = asked.id;
        if id == 0 {
            while is_taken(self.next_id) {
                self.next_id += 1;
            }
            id = self.next_id;
            self.next_id += 1;
        } else if is_taken(id) {
            return Err("mvcc: duplicate watch ID provided on the WatchStream");
        }
        let is_synced = asked.from == 0 || asked.from > current;
        let watch = Watch {
            asked: asked.clone(),
            from: if asked.from == 0 {
                current + 1
            } else {
                asked.from
            },
            owed_to: current,
            is_synced,
            is_quiet: true,
        };
        if watch.is_owed() {
            self.behind.insert((watch.from, id));
        }
        self.watches.insert(id, watch);
        Ok(id)
    }

    /// Removes a watch. Returns what it watched.
    pub(super) fn remove(&mut self, id: i64) -> Option<Span> {
        let Some(watch) = self.watches.remove(&id) else {
            return self.compacted.remove(&id);
        };
        self.behind.remove(&(watch.from, id));
        Some(watch.asked.span)
    }

    /// Something that a watch may concern was written at a revision. Whether it is owed that now.
    pub(super) fn notice(&mut self, id: i64, revision: i64) -> bool {
        let Some(watch) = self.watches.get_mut(&id) else {
            return false;
        };
        if revision < watch.from {
            return false;
        }
        if !watch.is_owed() {
            // Nothing before this concerned it.
            watch.from = revision;
            self.behind.insert((revision, id));
        }
        watch.owed_to = revision;
        true
    }

    pub(in crate::world) fn queue(&mut self, response: PbWatchResponse) {
        self.ready.push_back(response);
    }

    pub(in crate::world) fn ask_progress(&mut self) {
        self.progress += 1;
    }

    /// Tells progress to the watches that want it and got nothing since the last time.
    pub(in crate::world) fn tell_progress(&mut self, header: &PbResponseHeader) {
        for (id, watch) in &mut self.watches {
            if watch.asked.progress {
                if watch.is_quiet && !watch.is_owed() {
                    let told = PbWatchResponse {
                        header: Some(*header),
                        watch_id: *id,
                        ..PbWatchResponse::default()
                    };
                    self.ready.push_back(told);
                }
                watch.is_quiet = true;
            }
        }
    }

    /// The next response. Its header has a revision alone.
    pub(in crate::world) fn next(
        &mut self,
        store: &Store,
        fragment_bytes: usize,
    ) -> Option<PbWatchResponse> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                return Some(response);
            }
            let Some((_, id)) = self.behind.pop_first() else {
                break;
            };
            self.advance(id, store, fragment_bytes);
        }
        self.progress = self.progress.checked_sub(1)?;
        Some(PbWatchResponse {
            header: Some(header_at(store.revision())),
            watch_id: NO_WATCH,
            ..PbWatchResponse::default()
        })
    }

    /// Completes the responses to synced watches, but no more than a client should have let lie.
    pub(super) fn write_down(&mut self, store: &Store, fragment_bytes: usize) {
        for (from, id) in std::mem::take(&mut self.behind) {
            let is_synced = self.watches.get(&id).is_some_and(|watch| watch.is_synced);
            if !is_synced || self.ready.len() >= MOST_WRITTEN {
                self.behind.insert((from, id));
                continue;
            }
            while let Some(watch) = self.watches.get(&id).filter(|watch| watch.is_owed()) {
                // It is there again after each step that is not the last.
                self.behind.remove(&(watch.from, id));
                self.advance(id, store, fragment_bytes);
            }
        }
    }

    /// Makes the next response to a watch that was taken from those behind, if anything is left of
    /// what it is owed.
    fn advance(&mut self, id: i64, store: &Store, fragment_bytes: usize) {
        let current = store.revision();
        let Some(watch) = self.watches.get_mut(&id) else {
            return;
        };
        if watch.from < store.compacted() {
            if let Some(watch) = self.watches.remove(&id) {
                self.compacted.insert(id, watch.asked.span);
            }
            self.ready.push_back(PbWatchResponse {
                header: Some(PbResponseHeader::default()),
                watch_id: id,
                canceled: true,
                compact_revision: store.compacted(),
                ..PbWatchResponse::default()
            });
            return;
        }
        if watch.owed_to - watch.from >= MOST_LAG {
            watch.is_synced = false;
        }
        let most = if watch.is_synced { 1 } else { MOST_REVISIONS };
        let (mut events, mut revisions, mut last) = (Vec::new(), 0, watch.owed_to);
        for (revision, changes) in store.changes_from(watch.from) {
            if *revision > watch.owed_to {
                break;
            }
            let before = events.len();
            let taken = changes.iter().filter(|change| watch.takes(change));
            events.extend(taken.map(|change| event(change, watch.asked.previous, store)));
            revisions += usize::from(events.len() > before);
            if revisions == most {
                last = *revision;
                break;
            }
        }
        let told = if watch.is_synced { last } else { current };
        watch.from = last + 1;
        if watch.is_owed() {
            self.behind.insert((watch.from, id));
        } else {
            watch.is_synced = true;
        }
        if events.is_empty() {
            return;
        }
        watch.is_quiet = false;
        let response = PbWatchResponse {
            header: Some(header_at(told)),
            watch_id: id,
            events,
            ..PbWatchResponse::default()
        };
        if watch.asked.fragment {
            fragments(response, fragment_bytes, &mut self.ready);
        } else {
            self.ready.push_back(response);
        }
    }
}

fn event(change: &Change, previous: bool, store: &Store) -> PbEvent {
    const DELETE: i32 = 1;
    let mut event = PbEvent::default();
    let (revision, created) = match change {
        Change::Put(written) => {
            event.kv = Some((**written).clone());
            (written.mod_revision, written.version == 1)
        }
        Change::Delete { key, revision } => {
            event.r#type = DELETE;
            event.kv = Some(KeyValue {
                key: key.to_vec(),
                mod_revision: *revision,
                ..KeyValue::default()
            });
            (*revision, false)
        }
    };
    if previous && !created {
        let before = store.get(change.key(), revision - 1);
        event.prev_kv = before.map(|before| (**before).clone());
    }
    event
}

/// Splits a response that is too large for one message.
fn fragments(whole: PbWatchResponse, most: usize, into: &mut VecDeque<PbWatchResponse>) {
    if whole.encoded_len() < most || whole.events.len() < 2 {
        into.push_back(whole);
        return;
    }
    let events = whole.events.len();
    let empty = PbWatchResponse {
        events: Vec::new(),
        fragment: true,
        ..whole.clone()
    };
    // Of an event in a response: its tag and its length.
    const AROUND: usize = 8;
    let (mut part, mut size) = (empty.clone(), empty.encoded_len());
    for (n, event) in whole.events.into_iter().enumerate() {
        let more = event.encoded_len() + AROUND;
        if !part.events.is_empty() && size + more >= most {
            into.push_back(std::mem::replace(&mut part, empty.clone()));
            size = empty.encoded_len();
        }
        size += more;
        part.events.push(event);
        part.fragment = n + 1 < events;
    }
    part.fragment = false;
    into.push_back(part);
}
