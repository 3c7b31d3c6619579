//! What an operator does to a queue, and what a script hears of it: by exit codes and lines.

#![cfg(all(unix, any(feature = "etcd", feature = "postgres")))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::servers;

use serde_json::json;
use servers::{Running, Store, WEB, on_every_store, read, wait_for_text};

on_every_store! {
    nothing_starts_while_a_repository_is_paused_and_everybody_hears_why,
    many_repositories_are_paused_and_resumed_together,
    a_pinned_limit_holds_until_it_is_taken_back,
    a_proposed_limit_gives_way_and_says_so_once,
    a_heavy_run_takes_its_slots_at_once_and_knows_them,
    a_newer_run_of_a_group_takes_the_place_of_the_earlier,
    a_run_that_is_asked_to_end_keeps_its_slot_until_its_command_has_ended,
    a_full_queue_and_a_run_that_is_skipped_have_codes_of_their_own,
    many_runs_are_ended_together_and_nothing_to_end_is_told,
    a_waiting_run_is_moved_and_put_back,
}

/// A run that holds slots until the file is there.
fn holder(store: &Store, args: &[&str]) -> Running {
    let up = store.file("up");
    let go = store.file("go");
    let script = format!(
        "echo up > {}; until [ -e {} ]; do sleep 0.05; done",
        up.display(),
        go.display()
    );
    let running = store.exec(args, &script);
    wait_for_text(&up, "up");
    running
}

fn let_go(store: &Store) {
    std::fs::write(store.file("go"), "").unwrap();
}

fn limited(store: &Store, limit: &str) {
    assert_eq!(store.run(&["limit", WEB, limit]).code, 0);
}

fn nothing_starts_while_a_repository_is_paused_and_everybody_hears_why(store: &Store) {
    limited(store, "2");
    let paused = store.run(&["pause", WEB, "--reason", "the store moves"]);
    assert_eq!(paused.stdout, "ci/web is paused: the store moves\n");
    let waiter = store.exec(&["--run", "ci/waits"], "true");
    store.wait_for_counts(0, 1);
    let refused = store.exec(&["--no-wait"], "true").wait();
    assert_eq!(refused.code, 75, "{refused:?}");
    assert!(
        refused.stderr.contains("paused: the store moves"),
        "{refused:?}"
    );
    let status = store.json(&["status", WEB]);
    assert_eq!(status[0]["paused"]["reason"], "the store moves");
    assert_eq!(status[0]["queued"][0]["reason"], "paused");
    let table = store.run(&["status"]).stdout;
    assert_eq!(table.matches("the store moves").count(), 2, "{table}");
    let top = store.run(&["top", "--count", "1"]).stdout;
    assert!(top.contains("paused: the store moves"), "{top}");

    let again = store.run(&["pause", WEB]);
    assert_eq!(again.stdout, "ci/web is paused already\n");
    let resumed = store.run(&["resume", WEB]);
    assert_eq!(resumed.stdout, "ci/web goes on; started: ci/waits\n");
    let waiter = waiter.wait();
    assert_eq!(waiter.code, 0, "{waiter:?}");
    assert!(
        waiter.stderr.contains("(paused: the store moves)"),
        "{waiter:?}"
    );
    assert_eq!(
        store.run(&["resume", WEB]).stdout,
        "ci/web was not paused\n"
    );
    // A name that was mistyped is told, and changes nothing.
    for (args, name) in [
        (&["pause", "ci/wep"][..], "ci/wep"),
        (&["resume", "ci/wep"], "ci/wep"),
        (&["limit", "ci/wep", "--unpin"], "ci/wep"),
        (&["status", "ci/wep"], "ci/wep"),
        (&["history", "ci/wep"], "ci/wep"),
        (&["pause", "--namespace", "ic", "--yes"], "ic"),
        (&["resume", "--namespace", "ic", "--yes"], "ic"),
    ] {
        let mistyped = store.run(args);
        assert_eq!(mistyped.code, 1, "{args:?}: {mistyped:?}");
        let told = format!("knows nothing of {name}\n");
        assert!(mistyped.stderr.ends_with(&told), "{args:?}: {mistyped:?}");
    }
    let no_name = store.run(&["pause", "--namespace", "ci/web", "--yes"]);
    assert_eq!(no_name.code, 2, "{no_name:?}");
    assert_eq!(store.json(&["status"]).as_array().map(Vec::len), Some(1));
}

fn many_repositories_are_paused_and_resumed_together(store: &Store) {
    for repository in ["ci/a", "ci/b", "other/c"] {
        store.run(&["limit", repository, "1"]);
    }
    store.run(&["pause", "ci/b", "--reason", "broken"]);
    let asked = store.run(&["pause", "--all"]);
    assert_eq!(asked.code, 2, "{asked:?}");
    assert!(
        asked.stderr.contains("Pause 2 repositories in the store?"),
        "{asked:?}"
    );
    let paused = [
        "pause",
        "--namespace",
        "ci",
        "--reason",
        "the weekend",
        "--yes",
    ];
    let paused = store.json(&paused);
    let one = json!({
        "repository": "ci/a", "paused": true, "reason": "the weekend", "before": false, "promoted": [],
    });
    assert_eq!(paused, json!({"paused": true, "repositories": [one]}));
    let reasons = |store: &Store| {
        let status = store.json(&["status"]);
        let all = status.as_array().unwrap().iter();
        all.map(|one| one["paused"]["reason"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        reasons(store),
        [json!("the weekend"), json!("broken"), json!(null)]
    );
    let resumed = store.run(&["resume", "--all", "--reason", "broken", "--yes"]);
    assert_eq!(resumed.stdout, "1 repository resumed; 0 runs started\n");
    let resumed = store.run(&["resume", "--all", "--yes"]);
    assert_eq!(
        resumed.stdout, "1 repository resumed; 0 runs started\n",
        "ci/a"
    );
    assert_eq!(store.run(&["pause"]).code, 2, "which?");
}

fn a_pinned_limit_holds_until_it_is_taken_back(store: &Store) {
    assert_eq!(store.exec(&["-l", "2"], "true").wait().code, 0);
    limited(store, "5");
    let rules = [
        "limit",
        WEB,
        "--max-queued",
        "9",
        "--backfill",
        "2",
        "--slots",
        "a,b,c",
    ];
    let set = store.run(&rules);
    assert_eq!(
        set.stdout,
        "the limit of ci/web is 3 (pinned); max-queued 9; backfill 2; slots a, b, c\n"
    );
    let shown = store.json(&["limit", WEB]);
    let beneath = json!({
        "limit": 2, "owner": "proposed", "max_queued": null, "backfill": null, "slots": null,
    });
    let expected = json!({
        "repository": WEB, "limit": 3, "owner": "pinned", "max_queued": 9, "backfill": 2,
        "slots": ["a", "b", "c"], "beneath": beneath,
    });
    assert_eq!(shown, expected);
    store.run(&["limit", WEB, "--slots", "none", "--backfill", "none"]);
    let shown = store.run(&["limit", WEB]).stdout;
    assert_eq!(
        shown,
        "the limit of ci/web is 3, pinned by an operator\nmax-queued 9\n\
         beneath the pin: limit 2, proposed by a caller\n"
    );
    let unpinned = store.run(&["limit", WEB, "--unpin"]);
    assert_eq!(
        unpinned.stdout,
        "the limit of ci/web is 2, proposed by a caller\n"
    );
    let unpinned = store.run(&["limit", WEB, "--unpin"]);
    assert!(
        unpinned.stdout.starts_with("nothing is pinned: "),
        "{unpinned:?}"
    );
    for wrong in [
        &["--unpin", "3"][..],
        &["--max-queued", "some"],
        &["--slots", "a,a"],
        &["--backfill", "0"],
    ] {
        let refused = store.run(&[&["limit", WEB], wrong].concat());
        assert_eq!(refused.code, 2, "{wrong:?}: {refused:?}");
    }
    // That there is no limit is not pinned by the way.
    let unsaid = store.run(&["limit", "ci/new", "--max-queued", "5"]);
    assert_eq!(unsaid.code, 2, "{unsaid:?}");
    assert!(unsaid.stderr.contains("say N, or 0 for none"), "{unsaid:?}");
    assert_eq!(store.run(&["limit", "ci/new"]).code, 1, "nothing was set");
    for said in [&["0", "--max-queued", "5"][..], &["--max-queued", "6"]] {
        let set = store.run(&[&["limit", "ci/new"], said].concat());
        assert_eq!(set.code, 0, "{set:?}");
    }
}

fn a_proposed_limit_gives_way_and_says_so_once(store: &Store) {
    let holder = holder(store, &["-l", "2"]);
    let other = store.exec(&["-l", "1"], "true").wait();
    let told = "the limit of ci/web is 2, proposed by a caller; --limit 1 is not in force";
    assert_eq!(other.stderr.matches(told).count(), 1, "{other:?}");
    assert_eq!(other.code, 0);
    limited(store, "3");
    let pinned = store.exec(&["-l", "1"], "true").wait();
    let told = "the limit of ci/web is 3, pinned by an operator; --limit 1 is not in force";
    assert!(pinned.stderr.contains(told), "{pinned:?}");
    let_go(store);
    assert_eq!(holder.wait().code, 0);

    // Another one that comes while it waits is told when it starts.
    store.run(&["pause", WEB]);
    let waits = store.exec(&["-l", "3"], "true");
    store.wait_for_counts(0, 1);
    limited(store, "5");
    store.run(&["resume", WEB]);
    let waits = waits.wait();
    assert_eq!(waits.code, 0, "{waits:?}");
    let told = "is 5, pinned by an operator; --limit 3 is not in force";
    assert_eq!(waits.stderr.matches(told).count(), 1, "{waits:?}");
}

fn a_heavy_run_takes_its_slots_at_once_and_knows_them(store: &Store) {
    store.run(&["limit", WEB, "--slots", "a,b,c"]);
    let holder = holder(store, &["--run", "ci/holds"]);
    let heavy = [
        "exec",
        "-r",
        "ci/web:2",
        "--run",
        "ci/heavy",
        "--",
        "sh",
        "-c",
        "echo $PAC_SLOT $PAC_SLOT_NAME",
    ];
    let ran = store.run(&heavy);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "1,2 b,c\n"), "{ran:?}");
    let too_heavy = store.exec(&["--weight", "4"], "true").wait();
    assert_eq!(too_heavy.code, 2, "{too_heavy:?}");
    assert!(
        too_heavy.stderr.contains("takes 4 slots at once"),
        "{too_heavy:?}"
    );
    let waiter = store.exec(&["--weight", "3", "--run", "ci/three"], "true");
    store.wait_for_counts(1, 1);
    let status = store.json(&["status", WEB]);
    let (held, waits) = (&status[0]["running"][0], &status[0]["queued"][0]);
    assert_eq!(
        (&held["slots"], &held["slot_names"]),
        (&json!([0]), &json!(["a"]))
    );
    assert_eq!(
        (&waits["weight"], &status[0]["slots_taken"]),
        (&json!(3), &json!(1))
    );
    // The order stays strict.
    let light = store.exec(&["--no-wait"], "true").wait();
    assert_eq!(light.code, 75, "{light:?}");
    let_go(store);
    assert_eq!(holder.wait().code, 0);
    let waiter = waiter.wait();
    assert_eq!(waiter.code, 0, "{waiter:?}");
    assert!(
        waiter.stderr.contains("needs 3, 1 of 3 slots taken"),
        "{waiter:?}"
    );
    let malformed = store.run(&["exec", "-r", "ci/web:0", "--", "true"]);
    assert_eq!(malformed.code, 2, "{malformed:?}");
}

fn a_newer_run_of_a_group_takes_the_place_of_the_earlier(store: &Store) {
    limited(store, "1");
    let of_group = ["--group", "pr-7", "--supersede"];
    let running = holder(store, &["--group", "pr-7", "--run", "ci/a"]);
    let first = store.exec(
        &[&of_group[..], &["waiting", "--run", "ci/b"]].concat(),
        "true",
    );
    store.wait_for_counts(1, 1);
    let other = store.exec(&["--run", "ci/other"], "true");
    store.wait_for_counts(1, 2);
    let newer = store.exec(&[&of_group[..], &["all", "--run", "ci/c"]].concat(), "true");
    let first = first.wait();
    assert_eq!(first.code, 75, "{first:?}");
    assert!(
        first.stderr.contains("superseded: a newer run"),
        "{first:?}"
    );
    let asked = running.wait();
    assert_eq!(asked.code, 143, "{asked:?}");
    assert_eq!((newer.wait().code, other.wait().code), (0, 0));
    let history = store.json(&["history"]);
    let ended = history.as_array().unwrap().iter();
    let ended: Vec<_> = ended.map(|one| (&one["run"], &one["outcome"])).collect();
    let expected = [
        ("ci/b", "superseded"),
        ("ci/a", "cancelled"),
        ("ci/c", "completed"),
        ("ci/other", "completed"),
    ]
    .map(|(run, outcome)| (json!(run), json!(outcome)));
    assert!(
        ended.into_iter().eq(expected.iter().map(|(a, b)| (a, b))),
        "{history}"
    );
    let alone = store.exec(&["--supersede", "all"], "true").wait();
    assert_eq!(alone.code, 2, "of which group?");
}

fn a_run_that_is_asked_to_end_keeps_its_slot_until_its_command_has_ended(store: &Store) {
    limited(store, "1");
    let (up, down) = (store.file("up"), store.file("down"));
    let script = format!(
        "trap 'sleep 1; echo down > {}; exit 0' TERM; echo up > {}; while :; do sleep 0.05; done",
        down.display(),
        up.display()
    );
    let running = store.exec(&["--run", "ci/a"], &script);
    wait_for_text(&up, "up");
    let next = store.exec(&[], &format!("cat {}", down.display()));
    store.wait_for_counts(1, 1);
    let asked = store.json(&["cancel", WEB, "ci/a", "--ask"]);
    assert_eq!(asked["result"], "asked", "{asked}");
    let status = store.json(&["status", WEB]);
    assert!(status[0]["running"][0]["asked_at"].is_string(), "{status}");
    let next = next.wait();
    assert_eq!(next.stdout, "down\n", "it waited for the command's end");
    let running = running.wait();
    assert_eq!(running.code, 143, "{running:?}");
    assert!(running.stderr.contains("asked to end"), "{running:?}");
    assert_eq!(store.json(&["history"])[0]["outcome"], "cancelled");
    // A command that does not want to.
    let script = format!(
        "trap '' TERM; echo up > {}; while :; do sleep 0.05; done",
        up.display()
    );
    std::fs::write(&up, "").unwrap();
    let deaf = store.exec(&["--run", "ci/deaf", "--ttl", "3s"], &script);
    wait_for_text(&up, "up");
    store.run(&["cancel", WEB, "--all", "--ask", "--yes"]);
    let deaf = deaf.wait();
    assert_eq!(deaf.code, 143, "{deaf:?}");
    assert!(deaf.stderr.contains("did not end within 600ms"), "{deaf:?}");
    assert_eq!(store.counts(), (0, 0));
}

fn a_full_queue_and_a_run_that_is_skipped_have_codes_of_their_own(store: &Store) {
    store.run(&["limit", WEB, "1", "--max-queued", "1"]);
    let holder = holder(store, &["--run", "ci/holds"]);
    let ran = store.file("ran");
    let script = format!("echo ran >> {}", ran.display());
    let skipped = store.exec(&["--skip-if-running"], &script).wait();
    assert_eq!(skipped.code, 75, "{skipped:?}");
    assert_eq!(skipped.stderr.lines().count(), 1, "{skipped:?}");
    let waiter = store.exec(&["--skip-if-waiting"], "true");
    store.wait_for_counts(1, 1);
    let skipped = store.exec(&["--skip-if-waiting"], &script).wait();
    assert_eq!(skipped.code, 75, "{skipped:?}");
    let full = store.exec(&["--run", "ci/refused"], &script).wait();
    assert_eq!(full.code, 76, "{full:?}");
    assert!(full.stderr.contains("1 waiting already"), "{full:?}");
    let named = store.exec(&["--run", "ci/holds"], &script).wait();
    assert_eq!(named.code, 73, "{named:?}");
    assert_eq!(read(&ran), "");
    assert_eq!(store.json(&["history"])[0]["outcome"], "queue-full");
    let_go(store);
    assert_eq!((holder.wait().code, waiter.wait().code), (0, 0));
}

fn many_runs_are_ended_together_and_nothing_to_end_is_told(store: &Store) {
    limited(store, "1");
    let holder = holder(store, &["--run", "ci/holds", "--group", "x"]);
    let mut waiters = Vec::new();
    for (at, (run, group)) in [("ci/a", "x"), ("ci/b", "y"), ("ci/c", "x")]
        .into_iter()
        .enumerate()
    {
        waiters.push(store.exec(&["--run", run, "--group", group], "true"));
        store.wait_for_counts(1, at + 1);
    }
    let started = store.run(&["cancel", WEB, "ci/holds", "--waiting"]);
    assert_eq!(started.code, 1, "{started:?}");
    assert!(started.stdout.contains("does not wait"), "{started:?}");
    let ended = store.run(&["cancel", WEB, "--group", "x", "--waiting"]);
    assert_eq!(
        (ended.code, ended.stdout.as_str()),
        (0, "2 runs ended: ci/a, ci/c\n")
    );
    for old in [&["--group", "x", "--waiting"][..], &["--older-than", "1h"]] {
        let nothing = store.run(&[&["cancel", WEB], old].concat());
        assert_eq!(
            (nothing.code, nothing.stdout.as_str()),
            (1, "nothing to end\n")
        );
    }
    for (args, question) in [
        (
            &["--all"][..],
            "End 1 running run and 1 queued run of ci/web?",
        ),
        (&["--waiting"], "End 1 queued run of ci/web?"),
        (
            &["--all", "--ask"],
            "Ask 1 running run to end, and end 1 queued run of ci/web?",
        ),
        (&["--all", "--group", "x"], "cannot be used with"),
        (&["--all", "--waiting"], "cannot be used with"),
    ] {
        let asked = store.run(&[&["cancel", WEB], args].concat());
        assert_eq!(asked.code, 2, "{asked:?}");
        assert!(asked.stderr.contains(question), "{question}: {asked:?}");
    }
    let ended = store.run(&["cancel", WEB, "--all", "--yes", "--output", "json"]);
    let shape: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    let runs = json!(["ci/holds", "ci/b"]);
    assert_eq!(
        shape,
        json!({"repository": WEB, "result": "ended", "runs": runs, "promoted": []})
    );
    assert_eq!(holder.wait().code, 71);
    for waiter in waiters {
        assert_eq!(waiter.wait().code, 75);
    }
    for wrong in [&["ci/a", "--all"][..], &[], &["ci/a", "--waiting", "--ask"]] {
        let refused = store.run(&[&["cancel", WEB], wrong].concat());
        assert_eq!(refused.code, 2, "{wrong:?}: {refused:?}");
    }
}

fn a_waiting_run_is_moved_and_put_back(store: &Store) {
    limited(store, "2");
    let holder = holder(store, &["--run", "ci/holds", "--weight", "2"]);
    let mut waiters = Vec::new();
    for (at, run) in ["ci/a", "ci/b", "ci/c"].into_iter().enumerate() {
        waiters.push(store.exec(&["--run", run], "true"));
        store.wait_for_counts(1, at + 1);
    }
    let order = |store: &Store| {
        let status = store.json(&["status", WEB]);
        let queued = status[0]["queued"].as_array().unwrap().clone();
        queued
            .into_iter()
            .map(|one| one["run"].clone())
            .collect::<Vec<_>>()
    };
    let first = store.run(&["bump", WEB, "ci/c"]);
    assert_eq!(
        (first.code, first.stdout.as_str()),
        (0, "ci/c is queued at 1 (next; 2 of 2 slots taken)\n")
    );
    assert_eq!(order(store), ["ci/c", "ci/a", "ci/b"]);
    assert_eq!(
        store.run(&["bump", WEB, "ci/a", "--priority", "-1"]).code,
        0
    );
    assert_eq!(order(store), ["ci/c", "ci/b", "ci/a"]);
    let back = store.json(&["bump", WEB, "ci/c", "--back"]);
    assert_eq!(
        (&back["position"], &back["priority"]),
        (&json!(2), &json!(0))
    );
    for (run, part) in [("ci/holds", "has started"), ("ci/nobody", "has no run")] {
        let refused = store.run(&["bump", WEB, run, "--first"]);
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.stdout.contains(part), "{refused:?}");
    }
    let_go(store);
    assert_eq!(holder.wait().code, 0);
    for waiter in waiters {
        assert_eq!(waiter.wait().code, 0);
    }
}
