//! The system without a store: flows, and the issues that upstream has with it, by their numbers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod flows;
mod restarts;
mod setting;

/// `docs/pipelines.md` names every test that bears the number of an issue.
#[test]
fn the_guide_names_every_issue() {
    let guide = include_str!("../../../../docs/pipelines.md");
    let tests = include_str!("restarts.rs").lines();
    let names = tests.filter_map(|line| line.strip_prefix("async fn ")?.strip_suffix("() {"));
    let has_number = |name: &&str| name.ends_with("_u1") || name.ends_with(char::is_numeric);
    for name in names.filter(has_number) {
        assert!(guide.contains(&format!("`{name}`")), "`{name}` is missing");
    }
}
