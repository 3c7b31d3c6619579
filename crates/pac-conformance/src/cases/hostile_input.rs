//! Hostile and broken input.

use std::sync::Arc;

use pac_core::driver::ListFilter;
use pac_core::manager::ConcurrencyManager;
use pac_core::protocol::{Ended, RunRequest};
use pac_core::state::RunOutcome;
use pac_core::{ErrorKind, Limit, LimitVersion, PipelineRunKey, Priority, RepositoryKey, Uid};
use tokio::time::sleep;

use crate::faults::{Breakage, BrokenRepository, Gate};
use crate::{Fixture, at_priority, durable, ephemeral, queued, repository, run, started, uid};

const DONE: RunOutcome = RunOutcome::Completed;

/// (57) Keys with `/`, `..`, `%`, NUL, newline, quotes, 254 and 10,000 characters, upper case,
/// Unicode: refused with an error naming the rule, or stored so that nothing collides; never
/// mixed up with another key.
pub async fn hostile_keys_are_refused_or_kept_apart(fixture: &Fixture) {
    let long = |length| "x".repeat(length);
    let hostile = [
        "",
        ".",
        "..",
        "../x",
        "a/b/c",
        "a%2fb",
        "%",
        "a\0",
        "a\nb",
        "a\r",
        "'",
        "\"",
        "a'b",
        "a\"b",
        "A",
        "aB",
        "é",
        "ａ",
        "a\u{202e}b",
        "-a",
        "a-",
        "a_b",
        "a b",
        " a",
        "a;drop table",
        "*",
        "a\\b",
        "\u{7f}",
        &long(254),
        &long(10_000),
    ];
    for text in hostile {
        for whole in [
            format!("ns/{text}"),
            format!("{text}/name"),
            text.to_owned(),
        ] {
            let refused = whole.parse::<RepositoryKey>().unwrap_err();
            assert!(refused.rule().contains("must be"), "{whole:?}: {refused}");
            let shown = refused.to_string();
            assert!(!shown.contains(|c: char| c.is_control()), "{shown:?}");
            assert!(
                shown.chars().count() < 400,
                "it repeats all of {} bytes",
                whole.len()
            );
            assert_eq!(
                whole.parse::<PipelineRunKey>().unwrap_err().rule(),
                refused.rule()
            );
            let error = pac_core::Error::from(refused);
            assert_eq!(
                (error.kind(), error.is_retryable()),
                (ErrorKind::InvalidInput, false)
            );
        }
        assert!(RepositoryKey::new("ns", text).is_err(), "{text:?}");
        assert!(RepositoryKey::new(text, "name").is_err(), "{text:?}");
    }
    for text in [
        "",
        "a b",
        "a/b",
        "a\0",
        "a\n",
        "'",
        "é",
        &long(129),
        &long(10_000),
    ] {
        let refused = text.parse::<Uid>().unwrap_err();
        assert!(refused.rule().contains("must be"), "{refused}");
    }

    // What is allowed and looks alike: each has a state of its own, under its own name.
    let manager = fixture.manager().await;
    let name = [long(63), long(63), long(63), long(61)].join(".");
    let longest = format!("{}/{name}", long(63));
    let mut keys: Vec<RepositoryKey> = [
        "a/b",
        "a/b.c",
        "a/b-c",
        "a/b.c.d",
        "a-b/c",
        "a/b--c",
        "0/0",
        "0/0.0",
        "a/null",
        "a/0x00",
        "a/b.head",
        "a/head",
        "a/runs",
        "head/a",
        "x--2f/x",
        "x/2e.2e",
        &longest,
        &longest[..longest.len() - 1],
    ]
    .map(|key| key.parse().unwrap())
    .to_vec();
    for (n, key) in keys.iter().enumerate() {
        let text = key.as_str();
        assert_eq!(format!("{}/{}", key.namespace(), key.name()), text);
        manager
            .set_limit(key, Limit::new(n as u32 + 1), None)
            .await
            .unwrap();
        // Runs are named after repositories, in all of which they are.
        for other in keys.iter().take(n + 1) {
            let uid: Uid = "a:b-c_d.E".parse().unwrap();
            let request = RunRequest::durable(other.as_str().parse().unwrap(), uid);
            drop(started(&manager, key, request).await);
        }
        drop(queued(&manager, key, durable("waits")).await);
    }
    fixture.settle().await;
    for (n, key) in keys.iter().enumerate() {
        let head = fixture.view(key).await.head;
        let expected = (Limit::new(n as u32 + 1), n as u32 + 1, 0);
        assert_eq!((head.limit, head.started, head.queued), expected, "{key}");
    }
    keys.sort();
    let listed = fixture
        .driver()
        .list(ListFilter::All, None, 100)
        .await
        .unwrap();
    assert!(listed.iter().map(|(key, _)| key).eq(&keys));
}

/// (58) Foreign or corrupt values under our prefix or in our tables: that repository reports
/// `Corrupt` with the key; the others go on; nothing is deleted.
pub async fn corrupt_state_is_reported_and_left_alone(fixture: &Fixture) {
    for breakage in [
        Breakage::Unreadable,
        Breakage::MiscountedQueue,
        Breakage::MiscountedSlots,
        Breakage::Twice,
        Breakage::TokenFromNowhere,
    ] {
        refused_and_left_alone(fixture, breakage, ErrorKind::Corrupt).await;
    }
}

/// (59) A record written by a newer version is not overwritten by an older one.
pub async fn newer_state_is_not_overwritten(fixture: &Fixture) {
    refused_and_left_alone(fixture, Breakage::Newer, ErrorKind::Incompatible).await;
}

/// (60) Limit 0, 1, u32::MAX; priority at both ends of its range.
pub async fn numbers_at_their_ends(fixture: &Fixture) {
    let manager = fixture.manager().await;
    for (limit, start) in [(0, 5), (1, 1), (2, 2), (u32::MAX, 5)] {
        let repository = repository(&format!("limit-{limit}"));
        let version = Some(LimitVersion::new(u64::from(limit)));
        let change = manager
            .set_limit(&repository, Limit::new(limit), version)
            .await
            .unwrap();
        assert!(change.accepted && change.limit.get() == Some(limit).filter(|limit| *limit > 0));
        let batch = ["a", "b", "c", "d", "e"].map(durable).to_vec();
        let kept = manager.admit_all(&repository, None, batch).await.unwrap();
        let view = fixture.view(&repository).await;
        assert_eq!((view.running.len(), view.waiting.len()), (start, 5 - start));
        assert_eq!(
            manager.status(&repository).await.unwrap().limit,
            Limit::new(limit)
        );
        drop(kept);
    }

    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let mut kept = vec![
        manager
            .admit(&web, at_priority("first", i32::MIN))
            .await
            .unwrap(),
    ];
    for (name, priority) in [
        ("min", i32::MIN),
        ("min-1", i32::MIN + 1),
        ("zero", 0),
        ("minus", -1),
        ("plus", 1),
        ("max-1", i32::MAX - 1),
        ("max", i32::MAX),
        ("max-too", i32::MAX),
        ("min-too", i32::MIN),
    ] {
        kept.push(
            manager
                .admit(&web, at_priority(name, priority))
                .await
                .unwrap(),
        );
    }
    let view = fixture.view(&web).await;
    assert_eq!(view.entry("max").unwrap().priority, Priority::new(i32::MAX));
    let order = fixture.drain(&manager, &web).await;
    let expected = [
        "first", "max", "max-too", "max-1", "plus", "zero", "minus", "min-1", "min", "min-too",
    ];
    assert_eq!(order, expected);

    // A version at the end of its range is the last that can be announced.
    for (version, accepted) in [(u64::MAX, true), (u64::MAX, false), (0, false)] {
        let version = Some(LimitVersion::new(version));
        let change = manager
            .set_limit(&web, Limit::new(4), version)
            .await
            .unwrap();
        assert_eq!((change.accepted, change.limit), (accepted, Limit::new(4)));
    }
}

async fn refused_and_left_alone(fixture: &Fixture, breakage: Breakage, kind: ErrorKind) {
    let intact = fixture.manager().await;
    let broken_key = repository(&format!("broken-{breakage:?}").to_lowercase());
    let sound = repository(&format!("sound-{breakage:?}").to_lowercase());
    // Of a session that dies, so that the sweep meets the broken one among others.
    let gate = Arc::new(Gate::default());
    let doomed = fixture.manager_behind(&gate).await;
    let mut kept = Vec::new();
    for repository in [&broken_key, &sound] {
        intact
            .set_limit(repository, Limit::new(1), None)
            .await
            .unwrap();
        kept.push(doomed.admit(repository, ephemeral("doomed")).await.unwrap());
        kept.push(doomed.admit(repository, durable("waits")).await.unwrap());
    }
    intact.close().await.unwrap();
    let before = fixture.view(&broken_key).await;

    let broken = Arc::new(BrokenRepository::new(&broken_key, breakage));
    let manager = fixture.manager_behind(&broken).await;
    let refusals = every_call(&manager, &broken_key).await;
    for (call, error) in refusals {
        assert_eq!(
            (error.kind(), error.is_retryable()),
            (kind, false),
            "{call}: {error}"
        );
        assert_eq!(error.repository(), Some(&broken_key), "{call}: {error}");
        assert!(
            error.to_string().contains(broken_key.as_str()),
            "{call}: {error}"
        );
    }
    assert!(broken.loads() > 0);

    // The others go on, in the same calls and in the manager's own work.
    let next = queued(&manager, &sound, durable("next")).await;
    gate.cut();
    let options = fixture.options();
    sleep(options.session_ttl + options.sweep_interval * 3).await;
    let view = fixture.view(&sound).await;
    assert_eq!(
        view.outcome("doomed"),
        Some(RunOutcome::Expired),
        "{breakage:?}"
    );
    let next = fixture.turn(next).await;
    assert_eq!(
        manager.release(next, DONE).await.unwrap().ended,
        Ended::Done
    );
    sleep(options.poll_interval * 3).await;
    let listed = manager.list(None, 100).await.unwrap();
    assert!(listed.iter().any(|summary| summary.repository == sound));
    assert!(manager.health().is_ready() && manager.health().panics == 0);

    assert_eq!(broken.commits(), 0, "{breakage:?}: it was written to");
    let after = fixture.view(&broken_key).await;
    assert_eq!(after.head, before.head);
    assert!(
        after.entries().eq(before.entries()),
        "{breakage:?}: something changed"
    );
    // Repaired, it is one like any other, and what was to be done meanwhile is done.
    broken.heal();
    sleep(options.sweep_interval * 3).await;
    let view = fixture.view(&broken_key).await;
    assert_eq!(
        view.outcome("doomed"),
        Some(RunOutcome::Expired),
        "{breakage:?}"
    );
    drop(started(&manager, &broken_key, durable("waits")).await);
    drop(kept);
}

/// Everything that can be asked of a repository, and the refusal.
async fn every_call(
    manager: &ConcurrencyManager,
    key: &RepositoryKey,
) -> Vec<(&'static str, pac_core::Error)> {
    let (run, uid) = (run("doomed"), uid("doomed"));
    let batch = vec![durable("x"), durable("y")];
    let version = LimitVersion::new(9);
    let limit = Limit::new(9);
    let admit = manager.admit(key, durable("x")).await.map(drop);
    let admit_all = manager
        .admit_all(key, Some((limit, version)), batch)
        .await
        .map(drop);
    let adopt = manager.adopt(key, durable("x")).await.map(drop);
    let release = manager
        .release_run(key, &run, &uid, None, DONE)
        .await
        .map(drop);
    let cancel = manager.cancel(key, &run, None).await.map(drop);
    let set_limit = manager.set_limit(key, limit, None).await.map(drop);
    let remove = manager.remove_repository(key).await.map(drop);
    let status = manager.status(key).await.map(drop);
    let run_status = manager.run_status(key, &run).await.map(drop);
    let watch = manager.watch(key).await.map(drop);
    [
        ("admit", admit),
        ("admit all", admit_all),
        ("adopt", adopt),
        ("release", release),
        ("cancel", cancel),
        ("set limit", set_limit),
        ("remove", remove),
        ("status", status),
        ("run status", run_status),
        ("watch", watch),
    ]
    .map(|(call, answer)| (call, answer.expect_err(call)))
    .into()
}
