//! Rows S1 to S5: the semaphore. Its priorities are times of creation: here they are those of
//! runs without an execution order.

use std::time::Duration;

use pac_conformance::Fixture;
use pac_core::Limit;
use pac_pipelines::testing::NewRun;
use tokio::time::sleep;

use super::bench::{Bench, limited, run, website};

/// Creates runs at these seconds, and queues them.
async fn create(bench: &Bench, runs: &mut [(&str, u64)]) {
    runs.sort_by_key(|(_, second)| *second);
    let mut now = 0;
    for (name, second) in runs.iter() {
        sleep(Duration::from_secs(second - now)).await;
        now = *second;
        let held = NewRun::held(run(name), &website());
        bench.cluster.create(held).unwrap();
    }
    bench.queues.init_queues(&bench.cluster).await.unwrap();
}

/// The end of a run, in the cluster too.
async fn release(bench: &Bench, name: &str) -> String {
    let gone = bench.cluster.delete(&run(name)).unwrap();
    let website = bench.website().await;
    bench.take_view(&website, &gone).await
}

/// A runs, B and C wait.
async fn row_1(fixture: &Fixture) -> Bench {
    let bench = Bench::without_orders(fixture, 1).await;
    create(&bench, &mut [("c", 2), ("a", 0), ("b", 1)]).await;
    assert_eq!(bench.acquire().await, ["a"]);
    assert_eq!(bench.acquire().await, [""; 0]);
    assert_eq!(bench.add(&bench.website().await, &["a"]).await, [""; 0]);
    bench.assert(&["a"], &["b", "c"]).await;
    bench
}

/// C and E run, F and D wait; the limit is 2.
async fn row_3(fixture: &Fixture) -> Bench {
    let bench = row_1(fixture).await;
    assert_eq!(release(&bench, "a").await, "b");
    assert_eq!(release(&bench, "b").await, "c");
    bench.cluster.apply_repository(&website(), Limit::new(2));
    create(&bench, &mut [("d", 3), ("e", 1), ("f", 2)]).await;
    assert_eq!(bench.acquire().await, ["e"]);
    assert_eq!(bench.acquire().await, [""; 0]);
    bench.assert(&["c", "e"], &["f", "d"]).await;
    bench
}

pub(crate) async fn s1_the_oldest_is_first_and_is_acquired_once(fixture: &Fixture) {
    row_1(fixture).await;
}

pub(crate) async fn s2_a_release_lets_the_next_oldest_in(fixture: &Fixture) {
    let bench = row_1(fixture).await;
    assert_eq!(release(&bench, "a").await, "b");
    bench.assert(&["b"], &["c"]).await;
}

pub(crate) async fn s3_a_raised_limit_lets_as_many_in_as_may_run(fixture: &Fixture) {
    row_3(fixture).await;
}

pub(crate) async fn s4_a_lowered_limit_evicts_no_run_and_lets_none_in(fixture: &Fixture) {
    let bench = row_3(fixture).await;
    bench.cluster.apply_repository(&website(), Limit::new(1));
    assert_eq!(bench.acquire().await, [""; 0]);
    bench.assert(&["c", "e"], &["f", "d"]).await;
    assert_eq!(release(&bench, "c").await, "");
    for name in ["f", "d"] {
        assert!(bench.remove(name).await);
    }
    assert_eq!(release(&bench, "e").await, "");
    bench.assert(&[], &[]).await;
}

pub(crate) async fn s5_runs_of_one_second_go_by_their_names(fixture: &Fixture) {
    let bench = Bench::without_orders(fixture, 1).await;
    create(&bench, &mut [("c", 0), ("a", 0), ("b", 0)]).await;
    assert_eq!(bench.acquire().await, ["a"]);
    assert_eq!(release(&bench, "a").await, "b");
    assert_eq!(release(&bench, "b").await, "c");
    assert_eq!(release(&bench, "c").await, "");
    assert_eq!(bench.add(&limited(1, 1), &[]).await, [""; 0]);
}
