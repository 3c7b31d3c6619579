//! What the rows leave open: each method again, across controllers, and by uid.

use pac_conformance::Fixture;
use pac_core::protocol::Claim;
use pac_core::state::{RulesChange, RunOutcome};
use pac_pipelines::queue_manager::RunName;
use tokio::time::timeout;

use super::bench::{Bench, limited, run, website};

pub(crate) async fn every_method_may_be_called_again(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    let one = limited(1, 100);
    for _ in 0..2 {
        bench.pend(&one, &["a", "b", "c"]).await;
        bench.assert(&[], &["a", "b", "c"]).await;
    }
    assert_eq!(bench.add(&one, &[]).await, ["a"]);
    for _ in 0..2 {
        assert!(bench.remove("b").await);
        bench.assert(&["a"], &["c"]).await;
    }
    assert_eq!(bench.take(&one, "a").await, "c");
    assert_eq!(bench.take(&one, "a").await, "");
    bench.assert(&["c"], &[]).await;
    for _ in 0..2 {
        bench.queues.remove_repository(&website()).await.unwrap();
        bench.assert(&[], &[]).await;
        assert!(!bench.remove("c").await);
    }
}

/// As upstream's, it starts none: a wake names the run that got the slot, and the next call hands it out.
pub(crate) async fn a_slot_that_is_freed_wakes_its_run(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    let mut wakes = bench.queues.wakes().unwrap();
    assert!(bench.queues.wakes().is_none());
    let one = limited(1, 100);
    assert_eq!(bench.add(&one, &["a", "b"]).await, ["a"]);
    assert!(bench.remove("a").await);
    bench.assert(&[], &["b"]).await;
    let woken = fixture.soon("a wake", wakes.next()).await;
    assert_eq!(woken, Some((website(), run("b"))));
    assert_eq!(bench.add(&one, &[]).await, ["b"]);
    let quiet = timeout(fixture.quiet(), wakes.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

/// A slot is kept while nobody reads the wakes, and named to a reader that comes later, unless
/// the run was handed out meanwhile.
pub(crate) async fn a_wake_that_nobody_read_is_kept(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    let one = limited(1, 100);
    assert_eq!(bench.add(&one, &["a", "b", "c"]).await, ["a"]);
    drop(bench.queues.wakes().unwrap());
    assert!(bench.remove("a").await);
    assert_eq!(bench.add(&one, &[]).await, ["b"]);
    assert!(bench.remove("b").await);
    bench.assert(&[], &["c"]).await;
    let mut wakes = bench.queues.wakes().unwrap();
    let woken = fixture.soon("a wake", wakes.next()).await;
    assert_eq!(woken, Some((website(), run("c"))));
    let quiet = timeout(fixture.quiet(), wakes.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

/// Each run is handed out by one of them, and the limit holds for both.
pub(crate) async fn two_controllers_share_a_queue(fixture: &Fixture) {
    let first = Bench::new(fixture, 2).await;
    let second = Bench::new(fixture, 2).await;
    let two = limited(2, 100);
    assert_eq!(first.add(&two, &["a", "b", "c"]).await, ["a", "b"]);
    assert_eq!(second.add(&two, &["a", "b", "c", "d"]).await, [""; 0]);
    second.assert(&["a", "b"], &["c", "d"]).await;
    // The end is seen by the other one; the grant goes to the one that queued the run.
    assert_eq!(second.take(&two, "a").await, "");
    assert_eq!(first.add(&two, &[]).await, ["c"]);
    assert_eq!(first.take(&two, "b").await, "");
    assert_eq!(second.add(&two, &[]).await, ["d"]);
    for bench in [&first, &second] {
        bench.assert(&["c", "d"], &[]).await;
    }
}

pub(crate) async fn a_run_that_is_handed_back_keeps_its_place(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    let one = limited(1, 100);
    assert_eq!(bench.add(&one, &["a", "b"]).await, ["a"]);
    assert!(bench.hand_back("a").await);
    bench.assert(&[], &["a", "b"]).await;
    // It is not the caller's any more.
    assert!(!bench.hand_back("a").await);
    assert!(!bench.hand_back("b").await);
    assert_eq!(bench.add(&one, &[]).await, ["a"]);
}

/// A new run that bears the name of an old one, and an old one that has ended.
pub(crate) async fn a_uid_tells_runs_of_one_name_apart(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    let one = limited(1, 100);
    let named = |uid: &str| {
        let mut name = RunName::from(run("a"));
        name.uid = Some(uid.parse().unwrap());
        vec![name]
    };
    let queues = &bench.queues;
    let add = async |uid: &str| {
        let acquired = queues.add_list_to_running_queue(&one, &named(uid)).await;
        acquired.unwrap().len()
    };
    assert_eq!(add("uid-of-a").await, 1);
    assert_eq!(add("uid-of-a").await, 0);
    assert_eq!(bench.take(&one, "a").await, "");
    // It has run to its end.
    assert_eq!(add("uid-of-a").await, 0);
    assert_eq!(add("another").await, 1);
    // The end of the old one does not touch the new one.
    assert_eq!(bench.take(&one, "a").await, "");
    bench.assert(&["a"], &[]).await;
    let view = fixture.view(&website()).await;
    assert_eq!(view.outcome("a"), None::<RunOutcome>);
}

/// Where as many wait as may, a run is not added; it comes in when it is named again.
pub(crate) async fn a_full_queue_fails_no_call(fixture: &Fixture) {
    let bench = Bench::new(fixture, 1).await;
    let one = limited(1, 100);
    assert_eq!(bench.add(&one, &["a", "b"]).await, ["a"]);
    let bound = RulesChange::default().with_max_queued(Some(1));
    let manager = bench.queues.manager();
    let pinned = manager.set_rules(&website(), bound, Claim::Pin).await;
    assert!(pinned.unwrap().accepted);
    assert_eq!(bench.add(&one, &["c", "b"]).await, [""; 0]);
    bench.assert(&["a"], &["b"]).await;
    assert_eq!(bench.take(&one, "a").await, "b");
    assert_eq!(bench.add(&one, &["c"]).await, [""; 0]);
    bench.assert(&["b"], &["c"]).await;
}
