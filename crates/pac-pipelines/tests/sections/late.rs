//! What a controller asks the store for, and what comes there late.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use pac_conformance::faults::{Fault, Faults, Request, When};
use pac_pipelines::{Noticed, What};
use tokio::time::{sleep, timeout};

use crate::setting::{Setting, Steps, flow, stored};

/// The run is in the section by a request that it made after it had left: what one controller still
/// asks for on behalf of the earlier request must not free that slot.
#[test]
fn an_admission_that_comes_late_ends_no_newer_request_of_the_run() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let connection = Faults::none();
        let slow = setting.controller_behind(&connection).await;
        setting.started(&["a"]);
        let commits = [Request::Commit];
        connection.inject_at(&stored(), commits, Fault::Hang, When::Next(1));
        setting.asks("a").await;
        while !connection.is_used_up() {
            sleep(Duration::from_millis(5)).await;
        }
        let quick = setting.controller().await;
        let mut notices = quick.controller.notices();
        setting.leaves("a").await;
        sleep(Duration::from_millis(100)).await;
        setting.asks("a").await;
        let token = setting.enters("a").await;
        connection.clear();
        sleep(Duration::from_secs(2)).await;
        assert_eq!(
            setting.enters("a").await,
            token,
            "it has the slot all along"
        );
        setting.section_is(&["a"], &[]).await;
        let told = async {
            while let Some(Noticed::Notice(notice)) = notices.next().await {
                assert!(!matches!(notice.what, What::SectionLost { .. }));
            }
        };
        let _ = timeout(Duration::from_secs(5), told).await;
        // It is heard as any other afterwards.
        setting.leaves("a").await;
        setting.section_is(&[], &[]).await;
        slow.close().await;
    });
}
