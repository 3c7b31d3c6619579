//! Entering, waiting and leaving.

use pac_core::Limit;
use pac_pipelines::sections::Standing;
use pac_pipelines::testing::NewRun;
use pac_pipelines::{Noticed, What, vocabulary};

use crate::setting::{Setting, Steps, flow, gpu, run, stored, website};

#[test]
fn two_runs_want_one_section_and_have_it_one_after_the_other() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let _controller = setting.controller().await;
        setting.started(&["a", "b"]);
        setting.asks("a").await;
        let first = setting.enters("a").await;
        setting.asks("b").await;
        setting.section_is(&["a"], &["b"]).await;
        assert_eq!(setting.standing("b"), Standing::Waits);
        setting.leaves("a").await;
        assert!(setting.enters("b").await > first);
        setting.section_is(&["b"], &[]).await;
        assert_eq!(setting.standing("a"), Standing::Withdrawn);
        // The run goes on without it.
        assert!(!setting.view("a").is_done());
    });
}

#[test]
fn they_enter_in_the_order_in_which_they_asked() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        // What one look sees at once, too.
        setting.started(&["a", "b", "c", "d", "e"]);
        for name in ["c", "a", "d"] {
            setting.asks(name).await;
        }
        let _controller = setting.controller().await;
        setting.section_is(&["c"], &["a", "d"]).await;
        setting.asks("b").await;
        setting.section_is(&["c"], &["a", "d", "b"]).await;
        setting.asks("e").await;
        let mut tokens = Vec::new();
        for name in ["c", "a", "d", "b", "e"] {
            tokens.push(setting.enters(name).await);
            setting.leaves(name).await;
        }
        assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
        setting.section_is(&[], &[]).await;
    });
}

#[test]
fn the_slot_of_a_section_is_none_of_the_repository() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 1);
        let _controller = setting.controller().await;
        setting.event(&["a", "b"]);
        setting.comes_to(&["a"], &["b"]).await;
        // One that waits for its own slot keeps nobody out of the section.
        setting.asks("b").await;
        setting.asks("a").await;
        setting.enters("a").await;
        setting.section_is(&["a"], &[]).await;
        assert!(setting.cluster.finish(&run("a"), true));
        setting.comes_to(&["b"], &[]).await;
        setting.enters("b").await;
        setting.section_is(&["b"], &[]).await;
        setting.audit();
    });
}

#[test]
fn a_request_that_is_repeated_changes_nothing() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let _controller = setting.controller().await;
        setting.started(&["a", "b", "c"]);
        for name in ["a", "b", "c", "b", "a", "c", "b"] {
            setting.asks(name).await;
            setting.quiet().await;
        }
        setting.section_is(&["a"], &["b", "c"]).await;
        let token = setting.enters("a").await;
        setting.asks("a").await;
        assert_eq!(setting.enters("a").await, token);
    });
}

#[test]
fn a_run_that_has_left_may_come_back_and_is_the_last() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let _controller = setting.controller().await;
        setting.started(&["a", "b"]);
        setting.asks("a").await;
        let first = setting.enters("a").await;
        setting.asks("b").await;
        setting.section_is(&["a"], &["b"]).await;
        // Before any controller has seen it leave.
        setting.leaves("a").await;
        setting.asks("a").await;
        setting.section_is(&["b"], &["a"]).await;
        assert_eq!(
            setting.standing("a"),
            Standing::Waits,
            "the old token is none"
        );
        setting.leaves("b").await;
        assert!(setting.enters("a").await > first);
    });
}

#[test]
fn leaving_twice_is_harmless() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let _controller = setting.controller().await;
        setting.started(&["a", "b"]);
        setting.leaves("a").await;
        setting.asks("a").await;
        setting.enters("a").await;
        setting.asks("b").await;
        setting.leaves("a").await;
        setting.leaves("a").await;
        setting.enters("b").await;
        setting.leaves("a").await;
        setting.quiet().await;
        setting.section_is(&["b"], &[]).await;
    });
}

#[test]
fn tasks_of_one_run_hold_one_slot_until_the_last_has_left() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let _controller = setting.controller().await;
        setting.started(&["a", "b"]);
        setting.asks_as("a", "unit").await;
        setting.asks_as("a", "e2e").await;
        let token = setting.enters("a").await;
        setting.asks("b").await;
        setting.section_is(&["a"], &["b"]).await;
        setting.leaves_as("a", "unit").await;
        setting.leaves_as("a", "another").await;
        setting.quiet().await;
        setting.section_is(&["a"], &["b"]).await;
        assert_eq!(setting.enters("a").await, token);
        setting.leaves_as("a", "e2e").await;
        setting.enters("b").await;
    });
}

#[test]
fn the_repositories_of_a_namespace_say_how_many_may_enter() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let _controller = setting.controller().await;
        setting.started(&["a", "b", "c", "d"]);
        let limits = |limits| {
            let name = vocabulary::SECTION_LIMITS;
            setting
                .cluster
                .annotate_repository(&website(), name, limits);
        };
        limits("gpu=2, staging=7");
        for name in ["a", "b", "c", "d"] {
            setting.asks(name).await;
        }
        setting.section_is(&["a", "b"], &["c", "d"]).await;
        // A change acts at once; a lower limit throws nobody out.
        limits("gpu=3");
        setting.section_is(&["a", "b", "c"], &["d"]).await;
        limits("gpu=many");
        setting.leaves("a").await;
        setting.leaves("b").await;
        setting.section_is(&["c"], &["d"]).await;
        setting.leaves("c").await;
        setting.section_is(&["d"], &[]).await;
        assert_eq!(fixture.view(&stored()).await.head.limit, Limit::new(1));
    });
}

#[test]
fn what_happens_is_told() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let running = setting.controller().await;
        let mut notices = running.controller.notices();
        setting.started(&["a", "b"]);
        setting.asks("a").await;
        setting.enters("a").await;
        setting.asks("b").await;
        setting.section_is(&["a"], &["b"]).await;
        running
            .manager()
            .cancel(&stored(), &run("b"), None)
            .await
            .unwrap();
        let mut told = Vec::new();
        while told.len() < 3 {
            match notices.next().await.unwrap() {
                Noticed::Notice(notice) if notice.repository == stored() => {
                    told.push((notice.run.name().to_owned(), notice.what));
                }
                _ => {}
            }
        }
        assert!(matches!(&told[0], (run, What::SectionEntered { .. }) if run == "a"));
        let expected = What::SectionQueued {
            position: 1,
            of: 1,
            running: 1,
            limit: Limit::new(1),
        };
        assert_eq!(told[1], ("b".to_owned(), expected));
        assert_eq!(told[2], ("b".to_owned(), What::SectionRefused));
        let answer = gpu().answer_annotation();
        let view = setting.view("b");
        assert!(view.annotation(&answer).unwrap().ends_with(" cancelled"));
    });
}

#[test]
fn what_is_written_by_hand_asks_for_nothing() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let _controller = setting.controller().await;
        setting.started(&["a", "b"]);
        let name = gpu().request_annotation();
        setting.cluster.mark(&run("a"), &name, "please");
        setting.asks("b").await;
        setting.enters("b").await;
        setting.section_is(&["b"], &[]).await;
    });
}

#[test]
fn a_run_without_a_repository_may_ask() {
    flow(async |fixture| {
        let setting = Setting::new(fixture, 0);
        let _controller = setting.controller().await;
        setting.cluster.create(NewRun::plain(run("a"))).unwrap();
        setting.asks("a").await;
        setting.enters("a").await;
        assert!(setting.cluster.finish(&run("a"), true));
        setting.section_is(&[], &[]).await;
    });
}
