use super::*;
use crate::state::testing::queued;
use crate::state::{Moment, RunOutcome};
use crate::value::{FencingToken, Revision, SessionId, Stamp, Ticket};

fn head(revision: u64, queued: u32, started: u32) -> Head {
    Head {
        revision: Revision::new(revision),
        last_ticket: Ticket::new(100),
        last_token: FencingToken::new(100),
        queued,
        started,
        ..Head::absent(0)
    }
}

fn snapshot(since: Option<u64>, head: Head, entries: Vec<Entry>) -> Snapshot {
    Snapshot {
        since: since.map(|since| Version::new(Revision::new(since), Stamp::default())),
        exists: true,
        head,
        entries: entries.into_iter().map(Arc::new).collect(),
    }
}

fn started(ticket: u64) -> Entry {
    Entry {
        state: EntryState::Started {
            token: FencingToken::new(ticket),
            session: SessionId::new(1),
            orphaned: false,
        },
        ..queued(ticket, 0)
    }
}

fn finished(ticket: u64, at: i64) -> Entry {
    Entry {
        state: EntryState::Finished {
            outcome: RunOutcome::Completed,
            token: None,
            abandoned: false,
        },
        finished: Moment::of(Timestamp::from_unix_millis(at)),
        ..queued(ticket, 0)
    }
}

#[test]
fn deltas_bring_the_state_forward_and_report_each_change() {
    let all = snapshot(None, head(3, 2, 0), vec![queued(2, 0), queued(1, 0)]);
    let mut state = RepositoryState::from_snapshot(&all).unwrap();
    let waiting: Vec<_> = state.queue().map(|entry| entry.ticket.get()).collect();
    assert_eq!(waiting, [1, 2]);
    let delta = snapshot(Some(3), head(4, 1, 1), vec![started(1)]);
    let mut seen = Vec::new();
    let absorbed = state.absorb(&delta, |before, after| {
        seen.push((before.unwrap().is_queued(), after.unwrap().is_started()));
    });
    assert_eq!(absorbed, Ok(Absorb::Applied));
    assert_eq!(seen, [(true, true)]);
    assert_eq!(state.position(&queued(2, 0).run), Some(0));
    assert_eq!(state.position(&queued(1, 0).run), None);
    assert_eq!(
        state.absorb(&delta, |_, _| panic!("seen before")),
        Ok(Absorb::Stale)
    );
}

#[test]
fn a_gap_or_a_missed_end_asks_for_everything() {
    let all = snapshot(None, head(3, 2, 0), vec![queued(1, 0), queued(2, 0)]);
    let mut state = RepositoryState::from_snapshot(&all).unwrap();
    let later = snapshot(Some(5), head(6, 2, 0), vec![]);
    assert_eq!(state.absorb(&later, |_, _| ()), Ok(Absorb::Incomplete));
    // Run 1 ended and its record was deleted: only the head's count shows it.
    let purged = snapshot(Some(3), head(6, 1, 0), vec![]);
    assert_eq!(state.absorb(&purged, |_, _| ()), Ok(Absorb::Incomplete));
    let all = snapshot(None, head(6, 1, 0), vec![queued(2, 0)]);
    let mut gone = Vec::new();
    let absorbed = state.absorb(&all, |before, after| {
        if after.is_none() {
            gone.push(before.unwrap().ticket.get());
        }
    });
    assert_eq!((absorbed, gone), (Ok(Absorb::Applied), vec![1]));
}

#[test]
fn what_no_driver_could_have_stored_is_corrupt() {
    for (what, broken) in [
        (
            "the head counts",
            snapshot(None, head(1, 2, 0), vec![queued(1, 0)]),
        ),
        (
            "not given out",
            snapshot(None, head(1, 1, 0), vec![queued(101, 0)]),
        ),
        (
            "twice",
            snapshot(None, head(1, 2, 0), vec![queued(1, 0), queued(1, 0)]),
        ),
        ("wait in the place", {
            let mut other = queued(1, 0);
            other.run = "ns/other".parse().unwrap();
            snapshot(None, head(1, 2, 0), vec![queued(1, 0), other])
        }),
    ] {
        let error = RepositoryState::from_snapshot(&broken).unwrap_err();
        assert!(error.contains(what), "{error}");
    }
}

#[test]
fn finished_entries_are_forgotten_by_age_and_by_number() {
    let entries = (1..=5).map(|n| finished(n, n as i64 * 10)).collect();
    let mut state =
        RepositoryState::from_snapshot(&snapshot(None, head(1, 0, 0), entries)).unwrap();
    let mut dropped = Vec::new();
    state.forget_finished(Timestamp::from_unix_millis(20), 3, |entry| {
        dropped.push(entry.ticket.get());
    });
    assert_eq!(dropped, [1, 2]);
    state.forget_finished(Timestamp::from_unix_millis(1_000), 3, |_| ());
    assert_eq!(state.entries().count(), 0);
}

/// Also when a delta tells again what is known (it may start at an earlier revision than the
/// state's), and when a run of the same name has ended before.
#[test]
fn a_finished_run_counts_once_and_keeps_its_age() {
    let ended = |n: u64| Entry {
        revision: Revision::new(n + 1),
        ..finished(n, n as i64 * 10)
    };
    let again = |revision, entry| Entry {
        ticket: Ticket::new(4),
        revision: Revision::new(revision),
        ..entry
    };
    let [one, two, three] = [1, 2, 3].map(|n| Arc::new(ended(n)));
    let (copy, waits) = (Arc::new(ended(1)), Arc::new(again(4, queued(2, 0))));
    let second = Arc::new(again(5, finished(2, 40)));
    // What is dropped at last when three, two and no finished runs are kept.
    let dropped = [
        vec![vec![&one], vec![&one, &two], vec![&three]],
        vec![vec![&one], vec![&two, &copy], vec![&three]],
        vec![vec![&one], vec![&two], vec![&waits], vec![&second]],
    ]
    .map(|deltas| {
        let all = snapshot(None, head(1, 0, 0), vec![]);
        let mut state = RepositoryState::from_snapshot(&all).unwrap();
        for (revision, entries) in (2..).zip(deltas) {
            let waiting = entries.iter().filter(|entry| entry.is_queued()).count();
            let delta = Snapshot {
                entries: entries.into_iter().cloned().collect(),
                ..snapshot(Some(1), head(revision, waiting as u32, 0), vec![])
            };
            assert_eq!(state.absorb(&delta, |_, _| ()), Ok(Absorb::Applied));
        }
        [3, 2, 0].map(|keep| {
            let mut dropped = Vec::new();
            state.forget_finished(Timestamp::from_unix_millis(0), keep, |entry| {
                dropped.push(entry.ticket.get());
            });
            dropped
        })
    });
    let (told_twice, ended_twice) = ([vec![], vec![1], vec![2, 3]], [vec![], vec![], vec![1, 4]]);
    assert_eq!(dropped, [told_twice.clone(), told_twice, ended_twice]);
}

/// The run with this ticket's name, waiting in the place of another one.
fn in_place_of(taken: u64, own: u64) -> Entry {
    Entry {
        ticket: Ticket::new(taken),
        ..queued(own, 0)
    }
}

#[test]
fn a_place_that_was_given_up_goes_to_its_new_owner_in_whatever_order_they_come() {
    let all = snapshot(None, head(3, 2, 0), vec![queued(1, 0), queued(2, 0)]);
    // Run 1 has ended, run 3 has its place, and run 1 has come again: as one commit, and as two that
    // were merged into one hint.
    let back = in_place_of(50, 1);
    for entries in [
        vec![in_place_of(1, 3), back.clone()],
        vec![back.clone(), in_place_of(1, 3)],
    ] {
        let mut state = RepositoryState::from_snapshot(&all).unwrap();
        let delta = snapshot(Some(3), head(5, 3, 0), entries);
        assert_eq!(state.absorb(&delta, |_, _| ()), Ok(Absorb::Applied));
        let order: Vec<_> = state
            .queue()
            .map(|entry| entry.run.name().to_owned())
            .collect();
        assert_eq!(order, ["run-3", "run-2", "run-1"]);
    }
    // What became of run 1 is not there any more: everything has to be read.
    let mut state = RepositoryState::from_snapshot(&all).unwrap();
    let delta = snapshot(Some(3), head(5, 2, 0), vec![in_place_of(1, 3)]);
    assert_eq!(state.absorb(&delta, |_, _| ()), Ok(Absorb::Incomplete));
}
