//! Fuzzing: no trace makes a panic, an endless error, or an error that a terminal would act on.

use pac_concurrency::text::{LONGEST, is_plain};

use super::super::idle::Idle;
use super::{MAX_PROBLEMS, Trace};

#[test]
fn fuzz_traces() {
    pac_fuzz::bytes(env!("CARGO_MANIFEST_DIR"), "traces", |bytes| {
        match Trace::read("trace", bytes) {
            Ok(trace) => {
                assert!(trace.rows.is_sorted_by_key(|row| row.at));
                let Some(first) = trace.rows.first() else {
                    return;
                };
                // A clock without the idle times shows every row's own time.
                let idle = Idle::of(&trace);
                for row in &trace.rows {
                    let at = row.at.since(first.at);
                    assert_eq!(idle.put_back_into(idle.left_out_of(at)), at);
                }
            }
            Err(error) => {
                let shown = error.to_string();
                assert!(shown.lines().count() <= MAX_PROBLEMS + 2, "{shown}");
                assert!(
                    shown.lines().all(|line| line.chars().all(is_plain)),
                    "{shown}"
                );
                assert!(shown.lines().all(|line| line.len() < LONGEST + 100));
            }
        }
    });
}
