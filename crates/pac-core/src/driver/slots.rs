//! The limit, judged by what a commit says of itself.

use crate::protocol::Changes;
use crate::state::{Entry, Moment};

/// Checks that what a commit grants is within the limit of its head: the slots that would be taken, but
/// for those of [`Changes::adopted`], are no more than there are. A commit that grants none passes,
/// whatever was taken before. For drivers whose store counts nothing itself; the counts of the head are
/// another matter ([`RepositoryState::check`](crate::state::RepositoryState::check)).
///
/// # Errors
/// A sentence with the limit and the slots.
pub fn check_slots(changes: &Changes) -> Result<(), String> {
    let (limit, taken) = (changes.head.limit, changes.head.slots());
    // Nearly always so, and it costs nothing to see.
    if limit.admits_all(0, taken) {
        return Ok(());
    }
    let is_adopted = |entry: &Entry| changes.adopted.contains(&entry.run);
    let started = || changes.entries.iter().filter(|entry| entry.is_started());
    let is_granted =
        started().any(|entry| entry.started == Moment::AT_COMMIT && !is_adopted(entry));
    let adopted = started().filter(|entry| is_adopted(entry));
    let adopted = adopted.map(|entry| u32::from(entry.weight().get()));
    let granted = taken.saturating_sub(adopted.fold(0, u32::saturating_add));
    if !is_granted || limit.admits_all(0, granted) {
        return Ok(());
    }
    Err(format!(
        "{granted} slots would be taken, and the limit is {limit}: no run may be started"
    ))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::state::testing::queued;
    use crate::state::{EntryState, Head, Terms, Weight};
    use crate::value::{FencingToken, Limit, SessionId, Timestamp};

    fn started(ticket: u64, weight: u16, at: Moment) -> Arc<Entry> {
        let terms = Terms {
            weight: Weight::new(weight).unwrap(),
            ..Terms::NONE
        };
        let entry = Entry {
            state: EntryState::Started {
                token: FencingToken::new(ticket),
                session: SessionId::new(1),
                orphaned: false,
            },
            started: at,
            ..queued(ticket, 0)
        };
        Arc::new(entry.with_terms(terms))
    }

    /// With these beside one slot that was taken before.
    fn changes(limit: u32, entries: &[Arc<Entry>], adopted: &[Arc<Entry>]) -> Changes {
        let mut head = Head {
            limit: Limit::new(limit),
            started: 1,
            ..Head::absent(0)
        };
        for entry in entries.iter().chain(adopted) {
            head.count(entry);
        }
        Changes {
            expected: head.version(),
            policy_before: head.policy.clone(),
            head,
            entries: entries.iter().chain(adopted).cloned().collect(),
            alive: Vec::new(),
            adopted: adopted.iter().map(|entry| entry.run.clone()).collect(),
            remove: false,
        }
    }

    #[test]
    fn what_is_granted_fits_by_its_weight_and_what_is_adopted_need_not() {
        let heavy = || started(1, 2, Moment::AT_COMMIT);
        check_slots(&changes(0, &[heavy()], &[])).unwrap();
        check_slots(&changes(3, &[heavy()], &[])).unwrap();
        let refused = check_slots(&changes(2, &[heavy()], &[])).unwrap_err();
        assert!(refused.starts_with("3 slots"), "{refused}");
        // Beside what is granted, or alone,
        let light = || started(2, 1, Moment::AT_COMMIT);
        check_slots(&changes(2, &[light()], &[heavy()])).unwrap();
        check_slots(&changes(1, &[], &[heavy()])).unwrap();
        check_slots(&changes(1, &[light()], &[heavy()])).unwrap_err();
        // and what goes on is there already.
        let goes_on = started(1, 2, Moment::of(Timestamp::from_unix_millis(7)));
        check_slots(&changes(1, &[goes_on], &[])).unwrap();
    }
}
