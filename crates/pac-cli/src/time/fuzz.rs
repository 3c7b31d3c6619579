//! Fuzzing: no argument and no field makes a time or a duration that cannot be shown.

use std::time::Duration;

use super::{LONGEST, humanise, parse_duration, parse_rfc3339, rfc3339};

#[test]
fn fuzz_times() {
    pac_fuzz::text(env!("CARGO_MANIFEST_DIR"), "times", |text| {
        if let Ok(duration) = parse_duration(text) {
            assert!((Duration::from_millis(1)..=LONGEST).contains(&duration));
            assert!(!humanise(duration).is_empty());
        }
        match parse_rfc3339(text) {
            Ok(time) => assert_eq!(parse_rfc3339(&rfc3339(time)), Ok(time)),
            Err(why) => assert!(why.len() < 1_000, "{why}"),
        }
    });
}
