//! Hostile and broken input.

use std::sync::Arc;

use pac_core::driver::ListFilter;
use pac_core::protocol::{Ended, RunRequest};
use pac_core::state::{Entry, Head, RunOutcome};
use pac_core::{
    ErrorKind, Limit, LimitVersion, PipelineRunKey, Priority, RepositoryKey, Revision, Uid,
};
use tokio::time::sleep;

use super::calls::every_call_fails;
use crate::faults::{Faults, Ruin};
use crate::{Fixture, Harm, View, at_priority, durable, ephemeral, queued, repository, started};

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

    // Keys that are allowed but look alike: each has a state of its own, under its own name.
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
        // Runs bear the names of repositories, so that one name occurs in several repositories.
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
    let ways = [
        Ruin::Unreadable,
        Ruin::MiscountedQueue,
        Ruin::MiscountedSlots,
        Ruin::Twice,
        Ruin::TokenFromNowhere,
        Ruin::CounterAtItsEnd,
    ];
    let read = ways.map(Way::Read);
    let stored = [Harm::CorruptHead, Harm::CorruptEntry].map(Way::Stored);
    refused_and_left_alone(fixture, read.into_iter().chain(stored), ErrorKind::Corrupt).await;
}

/// (59) A record written by a newer version is not overwritten by an older one.
pub async fn newer_state_is_not_overwritten(fixture: &Fixture) {
    let stored = [Harm::NewerHead, Harm::NewerPolicy, Harm::NewerTerms].map(Way::Stored);
    let ways = [Way::Read(Ruin::Newer)].into_iter().chain(stored);
    refused_and_left_alone(fixture, ways, ErrorKind::Incompatible).await;
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

/// Repositories whose stored or delivered records cannot be understood.
struct Ruins<'a> {
    fixture: &'a Fixture,
    faults: Arc<Faults>,
    broken: Vec<(RepositoryKey, Way)>,
}

/// The way in which a repository becomes broken.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// The driver's answers to one manager are damaged.
    Read(Ruin),
    /// The stored records are damaged.
    Stored(Harm),
}

impl Ruins<'_> {
    async fn damage(&self) {
        for (key, way) in &self.broken {
            match *way {
                Way::Read(ruin) => self.faults.ruin(key, ruin),
                Way::Stored(harm) => self.fixture.vandal().unwrap().damage(key, harm).await,
            }
        }
    }

    async fn mend(&self) {
        for (key, way) in &self.broken {
            match way {
                Way::Read(_) => self.faults.mend(key),
                Way::Stored(_) => self.fixture.vandal().unwrap().mend(key).await,
            }
        }
    }
}

/// Breaks one repository in each of `ways`, beside a sound one, and checks that calls for the
/// broken ones fail with `kind`, that their records stay, and that the sound one works.
async fn refused_and_left_alone(
    fixture: &Fixture,
    ways: impl IntoIterator<Item = Way>,
    kind: ErrorKind,
) {
    let possible = |way: &Way| matches!(way, Way::Read(_)) || fixture.vandal().is_some();
    let ways = ways.into_iter().filter(possible).enumerate();
    let ruins = Ruins {
        fixture,
        faults: Faults::none(),
        broken: ways
            .map(|(n, way)| (repository(&format!("broken-{n}")), way))
            .collect(),
    };
    let keys = || ruins.broken.iter().map(|(key, _)| key);
    let sound = repository("sound");
    let intact = fixture.manager().await;
    // The runs belong to a session that dies, so that the sweep meets broken repositories among
    // sound ones.
    let gate = Faults::none();
    let doomed = fixture.manager_behind(&gate).await;
    let mut kept = Vec::new();
    for key in keys().chain([&sound]) {
        intact.set_limit(key, Limit::new(1), None).await.unwrap();
        kept.push(doomed.admit(key, ephemeral("doomed")).await.unwrap());
        kept.push(doomed.admit(key, durable("waits")).await.unwrap());
    }
    intact.close().await.unwrap();
    let mut before = Vec::new();
    for key in keys() {
        before.push(fixture.view(key).await);
    }

    ruins.damage().await;
    let options = fixture.polling_options();
    let manager = fixture.manager_behind_with(&ruins.faults, options).await;
    for (key, way) in &ruins.broken {
        for (call, error) in every_call_fails(&manager, key).await {
            let told = (error.kind(), error.is_retryable(), error.repository());
            assert_eq!(told, (kind, false, Some(key)), "{way:?}, {call}: {error}");
            assert!(error.to_string().contains(key.as_str()), "{call}: {error}");
        }
        assert!(ruins.faults.traffic(key).loads > 0, "{way:?} was never met");
    }

    // The sound repository keeps working, for calls and for the manager's own sweep.
    let next = queued(&manager, &sound, durable("next")).await;
    gate.cut();
    fixture.outlive_session().await;
    let view = fixture.view(&sound).await;
    assert_eq!(view.outcome("doomed"), Some(RunOutcome::LeaseLost));
    let next = fixture.turn(next).await;
    let ending = manager.release(next, DONE).await.unwrap();
    assert_eq!(ending.ended, Ended::Done);
    sleep(options.poll_interval * 3).await;
    let listed = manager.list(None, 100).await.unwrap();
    assert!(listed.iter().any(|summary| summary.repository == sound));
    assert!(manager.health().is_ready() && manager.health().panics == 0);

    for ((key, way), before) in ruins.broken.iter().zip(&before) {
        let commits = ruins.faults.traffic(key).commits;
        assert_eq!(commits, 0, "{way:?}: it was written to");
        if matches!(way, Way::Read(_)) {
            left_alone(before, &fixture.view(key).await, *way);
        }
    }
    ruins.mend().await;
    // Once repaired, each repository is swept like any other. The sweep may expire the dead
    // session's run at this very moment, but it must change nothing else.
    for ((key, way), before) in ruins.broken.iter().zip(&before) {
        let view = fixture.view(key).await;
        if view.outcome("doomed") != Some(RunOutcome::LeaseLost) {
            left_alone(before, &view, *way);
        }
    }
    sleep(fixture.notice() + options.sweep_interval).await;
    for (key, way) in &ruins.broken {
        let view = fixture.view(key).await;
        assert_eq!(
            view.outcome("doomed"),
            Some(RunOutcome::LeaseLost),
            "{way:?}"
        );
        drop(started(&manager, key, durable("waits")).await);
        assert_eq!(
            fixture.view(key).await.entries().count(),
            2,
            "{way:?}: something is gone"
        );
    }
    drop(kept);
}

fn left_alone(before: &View, after: &View, way: Way) {
    // Repairing a stored record is a write, which may give it another revision.
    let repaired = matches!(way, Way::Stored(_));
    let content = |view: &View| {
        let revision = |revision| {
            if repaired {
                Revision::default()
            } else {
                revision
            }
        };
        let head = Head {
            revision: revision(view.head.revision),
            ..view.head.clone()
        };
        let entry = |entry: &Arc<Entry>| Entry {
            revision: revision(entry.revision),
            ..Entry::clone(entry)
        };
        (head, view.entries().map(entry).collect::<Vec<_>>())
    };
    assert_eq!(
        content(after),
        content(before),
        "{way:?}: something changed"
    );
}
