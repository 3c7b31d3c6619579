//! What history tells of the end of a run.

use super::{Shell, Store, eventually, signal};

#[test]
fn postgres_the_transcript_of_how_runs_ended_is_what_happens() {
    let mut shell = Shell::new(Store::postgres());
    let exec = |run: &str, rest: &str| format!("pac exec -r ci/website --run ci/{run} {rest}");
    shell.types("pac limit ci/website 1 --max-queued 1");
    shell.types(&exec("good", "-- true"));
    shell.types(&exec("bad", "-- false"));

    let _killed = shell.starts(&exec("killed", "--ttl 3s -- sleep 60"));
    shell.wait_for_run("ci/website");
    let holder = shell.store.json(&["status", "ci/website"])[0]["running"][0].clone();
    let pid = holder["process"]["pid"].as_u64().unwrap();
    signal("KILL", u32::try_from(pid).unwrap());
    shell.say(&format!("$ kill -9 {pid}"));

    let mut asked = shell.starts_and_listens(&exec("asked", "-- sleep 60"));
    shell.hears(&mut asked);
    eventually("the next", || {
        shell.store.json(&["status", "ci/website"])[0]["running"][0]["run"] == "ci/asked"
    });
    shell.types(&exec("late", "--max-wait 1s -- true"));
    let mut first = shell.starts_and_listens(&exec("push-1", "--group pr-7 -- true"));
    shell.hears(&mut first);
    shell.types(&exec("refused", "-- true"));
    let push = exec("push-2", "--group pr-7 --supersede waiting -- true");
    let mut second = shell.starts_and_listens(&push);
    shell.hears(&mut second);
    shell.hears(&mut first);
    shell.types("pac cancel ci/website ci/push-2");
    shell.hears(&mut second);
    shell.types("pac cancel ci/website ci/asked --ask");
    shell.say("$ wait");
    assert_eq!(shell.hears_the_end_of(asked), 143);
    shell.types("pac history");
    let ends = shell.store.json(&["history", "ci/website"]);
    let mut words: Vec<_> = ends
        .as_array()
        .unwrap()
        .iter()
        .map(|run| &run["outcome"])
        .collect();
    words.sort_by_key(|word| word.as_str());
    words.dedup();
    assert_eq!(words.len(), 7, "each word at least once: {words:?}");
    shell.as_documented("ends");
    for one in [first, second] {
        assert_eq!(shell.hears_the_end_of(one), 75);
    }
}
