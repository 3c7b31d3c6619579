//! A day of runs on the memory driver, in paused time: what the examples of the drivers for servers do
//! in ten minutes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use pac_conformance::day::{Day, live};
use pac_memory::{MemoryDriver, MemoryOptions};

/// Nearly all runs that come have ended by each look, and each look is told once.
#[tokio::test(start_paused = true)]
async fn runs_come_and_go_all_day() {
    let day = Day::default().within(Duration::from_secs(60));
    let driver = Arc::new(MemoryDriver::new(MemoryOptions::default()));
    let mut told = Vec::new();
    let points = live(
        driver,
        day,
        async || Ok(Vec::new()),
        |point| {
            told.push(point.clone());
        },
    )
    .await
    .unwrap();
    assert_eq!(points, told);
    assert_eq!(points.len(), day.points as usize);
    let whole = day.rate as usize * day.length.as_secs() as usize;
    for (number, point) in points.iter().enumerate() {
        let come = whole * (number + 1) / points.len();
        assert!(point.runs > come * 9 / 10, "{} of {come} runs", point.runs);
        assert!(
            point.runs <= come + day.repositories,
            "{} of {come} runs",
            point.runs
        );
    }
}
