//! Each rule of the two layouts, as a test.

use super::super::legacy::{LegacyRun, RunFacts};
use super::*;
use crate::value::Limit;

fn keys(of: &[(&str, &str)]) -> Vec<LegacyKey> {
    let numbered = of.iter().enumerate();
    numbered
        .map(|(at, (key, value))| LegacyKey {
            key: (*key).to_owned(),
            value: (*value).to_owned(),
            created: i64::try_from(at).unwrap(),
        })
        .collect()
}

fn names(runs: &[LegacyRun]) -> Vec<&str> {
    runs.iter().map(|run| run.run.as_str()).collect()
}

/// The running and the waiting runs of `ci/web`.
fn web(state: &LegacyState) -> (Vec<&str>, Vec<&str>) {
    let web = &state.repositories[&"ci/web".parse().unwrap()];
    (names(&web.running), names(&web.queued))
}

fn open(state: &LegacyState) -> Vec<&str> {
    let open = state.left_out.iter().filter(|left| left.is_open);
    open.map(|left| left.what.as_str()).collect()
}

fn facts(runs: &[&str]) -> ClusterFacts {
    let mut facts = ClusterFacts::default();
    for run in runs {
        let known = RunFacts {
            uid: format!("uid-{}", run.len()).parse().unwrap(),
            repository: Some("ci/web".parse().unwrap()),
            is_over: false,
        };
        facts.runs.insert(run.parse().unwrap(), known);
    }
    facts
        .limits
        .insert("ci/web".parse().unwrap(), Limit::new(2));
    facts
}

#[test]
fn the_info_keys_of_leases_are_no_runs_but_a_run_may_be_called_info() {
    let keys = keys(&[
        ("/pac/leases/ci/web/ci/b", "ci/b"),
        ("/pac/leases/ci/web/ci/b/info", "694d7"),
        ("/pac/leases/ci/web/ci/info", "ci/info"),
        ("/pac/leases/ci/web/ci/info/info", "694d8"),
        ("/pac/leases/ci/web/ci/a", "ci/a"),
    ]);
    for read in [etcd_v1, etcd_v2] {
        let state = read(&keys, &ClusterFacts::default());
        assert_eq!(web(&state).0, ["ci/b", "ci/info", "ci/a"]);
        assert_eq!(state.left_out, []);
    }
}

#[test]
fn v1_a_run_waits_when_its_state_says_so_and_it_has_no_lease() {
    let keys = keys(&[
        ("/pac/concurrency/pr/ci/z/state", "queued"),
        ("/pac/concurrency/pr/ci/a/state", "queued"),
        ("/pac/concurrency/pr/ci/held/state", "queued"),
        ("/pac/concurrency/pr/ci/old/state", "completed"),
        (
            "/pac/concurrency/pr/web/state",
            "a Repository in the namespace pr",
        ),
        ("/pac/leases/ci/web/ci/held", "ci/held"),
    ]);
    let state = etcd_v1(&keys, &facts(&["ci/z", "ci/a"]));
    assert_eq!(web(&state), (vec!["ci/held"], vec!["ci/z", "ci/a"]));
    assert_eq!(open(&state), [""; 0]);
    let web = &state.repositories[&"ci/web".parse().unwrap()];
    assert_eq!(web.limit, Some(Limit::new(2)));
    assert_eq!(web.queued[0].uid, Some("uid-4".parse().unwrap()));
    assert_eq!(web.running[0].uid, None);
}

#[test]
fn v1_a_waiting_run_whose_repository_nothing_says_is_left_and_keeps_the_old_state() {
    let keys = keys(&[("/pac/concurrency/pr/ci/z/state", "queued")]);
    let state = etcd_v1(&keys, &ClusterFacts::default());
    assert!(state.repositories.is_empty());
    assert_eq!(open(&state), ["ci/z"]);
}

#[test]
fn v1_a_started_run_without_a_lease_may_still_run() {
    let keys = keys(&[("/pac/concurrency/pr/ci/z/state", "started")]);
    let state = etcd_v1(&keys, &facts(&["ci/z"]));
    assert_eq!(web(&state), (vec!["ci/z"], vec![]));
    let web = &state.repositories[&"ci/web".parse().unwrap()];
    assert!(web.running[0].remark.unwrap().contains("may still run"));
}

#[test]
fn v2_queue_keys_of_leased_and_ended_runs_do_not_wait() {
    let keys = keys(&[
        ("/pac/concurrency/ci/web/queue/ci/done", "ci/done"),
        ("/pac/concurrency/ci/web/queue/ci/runs", "ci/runs"),
        ("/pac/concurrency/ci/web/queue/ci/b", "ci/b"),
        ("/pac/concurrency/ci/web/queue/ci/a", "ci/a"),
        ("/pac/concurrency/ci/web/queue/ci/late", "ci/late"),
        ("/pac/concurrency/ci/done/state", "cancelled"),
        ("/pac/concurrency/ci/a/state", "queued"),
        ("/pac/concurrency/ci/late/state", "running"),
        ("/pac/leases/ci/web/ci/runs", "ci/runs"),
    ]);
    let state = etcd_v2(&keys, &ClusterFacts::default());
    assert_eq!(
        web(&state),
        (vec!["ci/runs", "ci/late"], vec!["ci/b", "ci/a"])
    );
    assert_eq!(open(&state), [""; 0]);
}

#[test]
fn v2_a_state_that_a_repository_shares_says_nothing_about_the_run() {
    let keys = keys(&[
        ("/pac/concurrency/ci/web/queue/ci/web", "ci/web"),
        ("/pac/concurrency/ci/web/state", "completed"),
    ]);
    let state = etcd_v2(&keys, &ClusterFacts::default());
    assert_eq!(web(&state), (vec![], vec!["ci/web"]));
    let web = &state.repositories[&"ci/web".parse().unwrap()];
    assert!(web.queued[0].remark.unwrap().contains("has its name"));
}

#[test]
fn a_final_state_ends_a_run_whose_lease_is_still_there() {
    let keys = keys(&[
        ("/pac/leases/ci/web/ci/a", "ci/a"),
        ("/pac/concurrency/ci/a/state", "failed"),
    ]);
    let state = etcd_v2(&keys, &ClusterFacts::default());
    assert!(state.repositories.is_empty());
    assert_eq!((state.left_out.len(), open(&state).len()), (1, 0));
}

#[test]
fn keys_of_the_other_generation_and_names_that_are_none_are_left_and_not_removed() {
    let queue = "/pac/concurrency/ci/web/queue/ci/a";
    let pr = "/pac/concurrency/pr/ci/a/state";
    for (read, source, foreign) in [
        (etcd_v1 as fn(&[_], &_) -> _, LegacySource::EtcdV1, queue),
        (etcd_v2, LegacySource::EtcdV2, pr),
    ] {
        let state = read(
            &keys(&[
                (foreign, "x"),
                ("/pac/leases/CI/web/ci/a", "x"),
                ("/pac/leases/a", "x"),
            ]),
            &ClusterFacts::default(),
        );
        assert_eq!(open(&state).len(), 3);
        assert!(!is_of_layout(source, foreign));
        assert!(is_of_layout(source, "/pac/leases/ci/web/ci/a/info"));
        assert!(!is_of_layout(source, "/pac/v1/heads/ci/web"));
    }
}

#[test]
fn the_generation_is_told_by_the_keys_that_only_it_writes() {
    let of = |keys: &[&str]| etcd_generations(keys.iter().copied());
    let lease = "/pac/leases/ci/web/ci/a";
    let repository = "/pac/concurrency/ci/web/state";
    assert_eq!(of(&[]), []);
    assert_eq!(of(&["/pac/v1/heads/ci/web", "/pac/leases/x"]), []);
    assert_eq!(of(&[lease, repository]), [LegacySource::EtcdV2]);
    let info = "/pac/leases/ci/web/ci/a/info";
    assert_eq!(of(&[lease, info, repository]), [LegacySource::EtcdV1]);
    let state = "/pac/concurrency/pr/ci/a/state";
    assert_eq!(of(&[repository, state]), [LegacySource::EtcdV1]);
    let queue = "/pac/concurrency/ci/web/queue/ci/a";
    assert_eq!(of(&[queue]), [LegacySource::EtcdV2]);
    assert_eq!(
        of(&[queue, state]),
        [LegacySource::EtcdV1, LegacySource::EtcdV2]
    );
}
