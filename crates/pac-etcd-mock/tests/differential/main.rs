//! Random sequences of operations, on the mock and on real servers: answers, refusals, revisions
//! and events must agree.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod answer;
mod etcdctl;
mod generate;
mod lanes;
mod operation;
mod quirks;
mod request;
mod servers;
mod services;
mod side;
mod users;
mod watches;
mod wire;

use lanes::Plan;
use servers::{Kind, NEWEST, OLDEST};

/// The number that a variable gives, or the usual one.
fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |value| value.parse().unwrap())
}

/// How many sequences there are for a server.
fn sequences() -> u64 {
    number("PAC_TEST_SEQUENCES", 2_000)
}

/// How many of them have users: they are three times as long.
fn sequences_with_users() -> u64 {
    (sequences() / 6).max(1)
}

/// Sequences on the mock and on a server.
fn data(name: &'static str, server: Kind) -> Plan {
    Plan {
        name,
        left: server,
        right: Kind::Mock,
        with_users: false,
        sequences: generate::data,
        count: sequences() - sequences_with_users(),
        seed: number("PAC_TEST_SEED", 1),
    }
}

/// The same with users.
fn users(name: &'static str, server: Kind) -> Plan {
    let plan = data(name, server);
    Plan {
        with_users: true,
        sequences: generate::auth,
        count: sequences_with_users(),
        ..plan
    }
}

fn agree(plan: Plan) {
    if let Err(difference) = plan.run() {
        panic!("{difference}");
    }
}

#[test]
fn the_mock_and_etcd_agree() {
    agree(data("etcd", OLDEST));
}

#[test]
fn the_mock_and_newest_etcd_agree() {
    agree(data("newest etcd", NEWEST));
}

#[test]
fn the_mock_and_etcd_agree_on_users() {
    agree(users("users of etcd", OLDEST));
}

#[test]
fn the_mock_and_newest_etcd_agree_on_users() {
    agree(users("users of newest etcd", NEWEST));
}

#[test]
fn a_server_that_differs_is_found_out() {
    let forgetful = Plan {
        count: 400,
        ..data("forgetful", Kind::Forgetful)
    };
    let found = forgetful.run().unwrap_err();
    assert!(found.contains("differ: "), "{found}");
    // It was shortened: three operations are enough to show it.
    assert!(!found.contains("\n  6. "), "{found}");
}

#[test]
fn etcdctl_prints_the_same() {
    etcdctl::compare("PAC_TEST_ETCDCTL", OLDEST);
}

#[test]
fn etcdctl_of_newest_etcd_prints_the_same() {
    etcdctl::compare("PAC_TEST_ETCDCTL_NEWEST", NEWEST);
}

#[test]
fn locks_elections_and_expiry_agree_with_etcd() {
    services::compare(OLDEST);
}

#[test]
fn locks_elections_and_expiry_agree_with_newest_etcd() {
    services::compare(NEWEST);
}
