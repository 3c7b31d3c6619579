//! Fuzzing: no manifests make a panic, a run without a fate, or a plan that starts more than a limit
//! allows or leaves a slot idle.

use pac_concurrency::text::is_plain;

use super::manifests::Manifests;
use super::report::{Fate, Queue, Report};
use super::shape::Shape;
use super::{decide, table};

#[test]
fn fuzz_plans() {
    pac_fuzz::text(env!("CARGO_MANIFEST_DIR"), "plans", |text| {
        let manifests = Manifests::of("x.yaml", text);
        let global = "ci/global".parse().unwrap();
        let decision = decide(&manifests, &global).unwrap();
        let report = Report::of(&manifests, &decision, &global);
        let queued: usize = report.repositories.iter().map(|one| one.runs.len()).sum();
        assert_eq!(queued + report.elsewhere.len(), manifests.runs.len());
        report.repositories.iter().for_each(check);
        let shown = table::describe(&report);
        assert!(shown.chars().all(|c| c == '\n' || is_plain(c)), "{shown:?}");
        let problems = report.unreadable.iter().chain(report.warnings);
        for problem in problems {
            let told = problem.to_string();
            assert!(told.starts_with("x.yaml, document "), "{told}");
        }
        serde_json::to_string(&Shape::of(&report)).unwrap();
    });
}

fn check(queue: &Queue<'_>) {
    let count = |of: fn(Fate) -> bool| queue.count(of);
    let running = count(|fate| matches!(fate, Fate::Runs(_)));
    let starts = count(|fate| matches!(fate, Fate::Starts(_)));
    let positions = queue.runs.iter().filter_map(|line| match line.fate {
        Fate::Queued(position) => Some(position),
        _ => None,
    });
    let positions: Vec<_> = positions.collect();
    assert!(
        positions.iter().copied().eq(1..=positions.len()),
        "{queue:?}"
    );
    match queue.limit.runs() {
        Some(limit) => {
            let taken = running + starts;
            let limit = usize::try_from(limit).unwrap();
            assert!(starts == 0 || taken <= limit, "{queue:?}");
            assert!(positions.is_empty() || taken >= limit, "{queue:?}");
        }
        None => assert!(positions.is_empty(), "{queue:?}"),
    }
}
