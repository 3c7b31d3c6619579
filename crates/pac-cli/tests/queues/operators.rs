//! What an operator does.

use super::{Shell, Store, servers};

#[test]
fn postgres_the_transcript_of_a_pause_is_what_happens() {
    let mut shell = Shell::new(Store::postgres());
    shell.types("pac limit ci/website 2");
    shell.types("pac pause ci/website --reason 'the registry moves'");
    let mut waits =
        shell.starts_and_listens("pac exec -r ci/website --run ci/deploy -- echo deployed");
    shell.hears(&mut waits);
    shell.types("pac status");
    shell.types("pac resume ci/website");
    shell.say("$ wait");
    assert_eq!(shell.hears_the_end_of(waits), 0);
    shell.types("pac pause --all --reason maintenance --yes");
    shell.types("pac resume --all --reason maintenance --yes");
    shell.as_documented("pause");
}

#[test]
fn postgres_the_transcript_of_the_owner_of_a_limit_is_what_happens() {
    let mut shell = Shell::new(Store::postgres());
    let holder = shell.holds("-r ci/website -l 2 --run ci/first");
    shell.types("pac exec -r ci/website -l 3 --run ci/second -- echo the second");
    shell.types("pac limit ci/website 4");
    shell.types("pac exec -r ci/website -l 3 --run ci/third -- echo the third");
    shell.types("pac limit ci/website");
    shell.types("pac limit ci/website --unpin");
    shell.lets_go();
    assert_eq!(holder.wait().code, 0);
    shell.as_documented("owner");
}

#[test]
fn postgres_the_transcript_of_a_run_that_is_asked_to_end_is_what_happens() {
    let mut shell = Shell::new(Store::postgres());
    shell.types("pac limit ci/website 1");
    let up = shell.store.file("up");
    let script = format!(
        "#!/bin/sh\ntrap 'echo rolled back; exit 0' TERM\necho up > '{}'\n\
         while :; do sleep 0.1; done\n",
        up.display()
    );
    shell.has_a_program("deploy", &script);
    let deploys = shell.starts_and_listens("pac exec -r ci/website --run ci/deploy -- ./deploy");
    servers::wait_for_text(&up, "up");
    shell.types("pac cancel ci/website ci/deploy --ask");
    shell.say("$ wait $!");
    let code = shell.hears_the_end_of(deploys);
    shell.say("$ echo $?");
    shell.say(&code.to_string());
    shell.types("pac history");
    shell.as_documented("asked");
}

#[test]
fn postgres_the_transcript_of_many_that_are_ended_is_what_happens() {
    let mut shell = Shell::new(Store::postgres());
    shell.types("pac limit ci/website 1");
    let holder = shell.holds("-r ci/website --run ci/first --group pr-7");
    let mut waiting = Vec::new();
    for (at, (run, group)) in [("second", "pr-7"), ("third", "main"), ("fourth", "pr-7")]
        .into_iter()
        .enumerate()
    {
        let line = format!("pac exec -r ci/website --run ci/{run} --group {group} -- ./deploy");
        waiting.push(shell.starts_and_listens(&line));
        shell.wait_for_counts("ci/website", 1, at + 1);
    }
    shell.types("pac cancel ci/website --group pr-7 --waiting");
    shell.types_and_asks("pac cancel ci/website --group pr-7 --waiting");
    shell.types_and_asks("pac cancel ci/website --older-than 1h");
    shell.types("pac cancel ci/website --waiting --yes");
    shell.as_documented("many");
    shell.lets_go();
    assert_eq!(holder.wait().code, 0);
    for one in waiting {
        assert_eq!(shell.hears_the_end_of(one), 75);
    }
}

#[test]
fn postgres_the_transcript_of_a_run_that_is_moved_is_what_happens() {
    let mut shell = Shell::new(Store::postgres());
    shell.types("pac limit ci/website 1");
    let holder = shell.holds("-r ci/website --run ci/first");
    let mut waiting = Vec::new();
    for (at, run) in ["second", "third", "hotfix"].into_iter().enumerate() {
        let line = format!("pac exec -r ci/website --run ci/{run} -- true");
        waiting.push(shell.starts_and_listens(&line));
        shell.wait_for_counts("ci/website", 1, at + 1);
    }
    shell.types("pac bump ci/website ci/hotfix");
    shell.types("pac bump ci/website ci/second --priority -1");
    shell.types("pac status");
    shell.types("pac bump ci/website ci/second --back");
    shell.as_documented("bump");
    shell.lets_go();
    assert_eq!(holder.wait().code, 0);
    for one in waiting {
        assert_eq!(shell.hears_the_end_of(one), 0);
    }
}
