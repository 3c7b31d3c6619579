//! The clock that transitions are stamped with.

use std::sync::Arc;
use std::time::SystemTime;

use pac_core::Timestamp;
use pac_core::state::Entry;

/// The time of a commit that changes these entries. etcd tells its clients no time, so it is that
/// of this process, but never before a time that one of the entries already has: the times of one
/// run are in order even if the clocks of the controllers differ. Nothing is decided by it.
pub(crate) fn now(entries: &[Arc<Entry>]) -> Timestamp {
    not_before(entries, SystemTime::now().into())
}

fn not_before(entries: &[Arc<Entry>], now: Timestamp) -> Timestamp {
    let moments = entries.iter().flat_map(|entry| {
        [
            entry.queued,
            entry.started,
            entry.terms().asked,
            entry.finished,
        ]
    });
    moments
        .filter_map(pac_core::state::Moment::at)
        .fold(now, Timestamp::max)
}

#[cfg(test)]
mod tests {
    use pac_core::protocol::RunRequest;
    use pac_core::state::{EntryState, Moment};
    use pac_core::{Revision, Ticket};

    use super::*;

    #[test]
    fn a_clock_that_is_behind_puts_nothing_before_what_was() {
        let at = Timestamp::from_unix_millis;
        let request = RunRequest::durable("ns/run".parse().unwrap(), "uid".parse().unwrap());
        let entry = Arc::new(Entry {
            run: request.run,
            uid: request.uid,
            kind: request.kind,
            priority: request.priority,
            ticket: Ticket::new(1),
            state: EntryState::Queued { owner: None },
            queued: Moment::of(at(50)),
            started: Moment::AT_COMMIT,
            finished: Moment::NEVER,
            terms: None,
            revision: Revision::new(1),
        });
        assert_eq!(not_before(&[Arc::clone(&entry)], at(40)), at(50));
        assert_eq!(not_before(&[entry], at(60)), at(60));
        assert_eq!(not_before(&[], at(40)), at(40));
    }
}
