//! The limit in force, and its changes.

use pac_conformance::Fixture;
use pac_core::Limit;

use super::support::{Setting, global, repository, run, website};

/// (19) Exactly as many, in order, without any other event.
pub(crate) async fn a_raised_limit_starts_waiters_at_once(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let _controller = setting.controller().await;
    setting.event(&["a", "b", "c", "d", "e"]);
    setting.comes_to(&["a"], &["b", "c", "d", "e"]).await;
    setting.cluster.apply_repository(&website(), Limit::new(3));
    setting.comes_to(&["a", "b", "c"], &["d", "e"]).await;
    setting.audit();
}

/// (20) Nothing starts until fewer run.
pub(crate) async fn a_lowered_limit_evicts_nobody(fixture: &Fixture) {
    let setting = Setting::new(fixture, 3);
    let _controller = setting.controller().await;
    setting.event(&["a", "b", "c", "d"]);
    setting.comes_to(&["a", "b", "c"], &["d"]).await;
    setting.cluster.apply_repository(&website(), Limit::new(1));
    setting.quiet().await;
    for name in ["a", "b"] {
        assert!(setting.cluster.finish(&run(name), true));
        setting.quiet().await;
    }
    setting.comes_to(&["c"], &["d"]).await;
    assert!(setting.cluster.finish(&run("c"), true));
    setting.comes_to(&["d"], &[]).await;
    setting.audit();
}

/// (21) In order; and one that is set later counts what runs.
pub(crate) async fn a_limit_that_is_removed_starts_every_waiter(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let _controller = setting.controller().await;
    setting.event(&["a", "b", "c"]);
    setting.comes_to(&["a"], &["b", "c"]).await;
    setting
        .cluster
        .apply_repository(&website(), Limit::UNLIMITED);
    setting.comes_to(&["a", "b", "c"], &[]).await;
    setting.cluster.apply_repository(&website(), Limit::new(2));
    setting.quiet().await;
    setting.event(&["d"]);
    setting.comes_to(&["a", "b", "c"], &["d"]).await;
    setting.audit();
}

/// The local one beats it, and its changes reach all that inherit at once.
pub(crate) async fn the_global_limit_holds_for_all_without_one_of_their_own(fixture: &Fixture) {
    let setting = Setting::new(fixture, 2);
    let heir = repository("heir");
    setting.cluster.apply_repository(&global(), Limit::new(1));
    setting.cluster.apply_repository(&heir, Limit::UNLIMITED);
    let controller = setting.controller().await;
    setting.event(&["w1", "w2", "w3"]);
    setting.event_in(&heir, &["h1", "h2", "h3", "h4"]);
    setting.comes_to(&["w1", "w2"], &["w3"]).await;
    setting
        .comes_to_in(heir.clone(), &["h1"], &["h2", "h3", "h4"])
        .await;
    setting.cluster.apply_repository(&global(), Limit::new(2));
    setting
        .comes_to_in(heir.clone(), &["h1", "h2"], &["h3", "h4"])
        .await;
    // (23) It survives a restart.
    controller.close().await;
    let _next = setting.controller().await;
    setting
        .comes_to_in(heir.clone(), &["h1", "h2"], &["h3", "h4"])
        .await;
    setting.cluster.apply_repository(&heir, Limit::new(3));
    setting
        .comes_to_in(heir.clone(), &["h1", "h2", "h3"], &["h4"])
        .await;
    setting.cluster.apply_repository(&heir, Limit::UNLIMITED);
    setting.quiet().await;
    assert!(setting.cluster.finish(&run("h1"), true));
    setting.quiet().await;
    setting
        .comes_to_in(heir.clone(), &["h2", "h3"], &["h4"])
        .await;
    setting.cluster.delete_repository(&global());
    setting.comes_to_in(heir, &["h2", "h3", "h4"], &[]).await;
    setting.comes_to(&["w1", "w2"], &["w3"]).await;
    setting.audit();
}

/// What waits, waits on by the limit that was known; what comes waits for a limit.
pub(crate) async fn a_limit_that_cannot_be_understood_admits_nobody(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let _controller = setting.controller().await;
    setting.event(&["a", "b"]);
    setting.comes_to(&["a"], &["b"]).await;
    setting.cluster.break_repository(&website());
    setting.quiet().await;
    setting.event(&["c"]);
    setting.quiet().await;
    setting.comes_to(&["a"], &["b"]).await;
    assert!(setting.cluster.finish(&run("a"), true));
    setting.comes_to(&["b"], &[]).await;
    setting.cluster.apply_repository(&website(), Limit::new(2));
    setting.comes_to(&["b", "c"], &[]).await;
    setting.audit();
}
