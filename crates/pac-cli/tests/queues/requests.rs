//! What a run asks for.

use super::{Shell, Store};

#[test]
fn postgres_the_transcript_of_a_run_of_several_slots_is_what_happens() {
    let mut shell = Shell::new(Store::postgres());
    shell.types("pac limit shared/gpu 3");
    let holder = shell.holds("-r shared/gpu:2 --run ci/train");
    let mut waits =
        shell.starts_and_listens("pac exec -r shared/gpu:2 --run ci/tune -- echo tuned");
    shell.hears(&mut waits);
    shell.types("pac exec -r shared/gpu --no-wait -- echo overtaken");
    shell.types("pac status");
    shell.types("pac exec -r shared/gpu:4 -- true");
    shell.lets_go();
    shell.say("$ wait");
    assert_eq!((shell.hears_the_end_of(waits), holder.wait().code), (0, 0));
    shell.as_documented("weight");
}

#[test]
fn postgres_the_transcript_of_a_group_is_what_happens() {
    let mut shell = Shell::new(Store::postgres());
    shell.types("pac limit ci/website 1");
    let holder = shell.holds("-r ci/website --run ci/main");
    let push = |at: usize, command: &str| {
        format!(
            "pac exec -r ci/website --run ci/push-{at} --group pr-7 --supersede waiting -- {command}"
        )
    };
    let mut first = shell.starts_and_listens(&push(1, "echo deployed push 1"));
    shell.hears(&mut first);
    let mut other = shell.starts_and_listens("pac exec -r ci/website --run ci/other -- true");
    shell.hears(&mut other);
    let mut second = shell.starts_and_listens(&push(2, "echo deployed push 2"));
    shell.hears(&mut second);
    shell.hears(&mut first);
    shell.lets_go();
    shell.say("$ wait");
    assert_eq!(shell.hears_the_end_of(second), 0);
    assert_eq!((other.running.wait().code, holder.wait().code), (0, 0));
    assert_eq!(shell.hears_the_end_of(first), 75);
    shell.types("pac history");
    shell.as_documented("group");
}

#[test]
fn postgres_the_transcript_of_a_bounded_queue_is_what_happens() {
    let mut shell = Shell::new(Store::postgres());
    shell.types("pac limit ci/website 1 --max-queued 1");
    let holder = shell.holds("-r ci/website --run ci/first");
    let mut waits = shell.starts_and_listens("pac exec -r ci/website --run ci/second -- true");
    shell.hears(&mut waits);
    shell.types_and_asks("pac exec -r ci/website --run ci/third -- true");
    shell.types_and_asks("pac exec -r ci/website --skip-if-running -- true");
    shell.types_and_asks("pac exec -r ci/website --run ci/first -- true");
    shell.as_documented("bounded");
    shell.lets_go();
    assert_eq!((shell.hears_the_end_of(waits), holder.wait().code), (0, 0));
}

#[test]
fn postgres_the_transcript_of_named_slots_is_what_happens() {
    let mut shell = Shell::new(Store::postgres());
    shell.types("pac limit shared/phones --slots pixel-8,pixel-9");
    let holder = shell.holds("-r shared/phones --run ci/first");
    shell.types(
        "pac exec -r shared/phones --run ci/second -- sh -c 'echo slot $PAC_SLOT: $PAC_SLOT_NAME'",
    );
    shell.types("pac status");
    shell.as_documented("slots");
    shell.lets_go();
    assert_eq!(holder.wait().code, 0);
}

#[test]
fn postgres_the_transcript_of_a_run_that_goes_before_a_heavy_one_is_what_happens() {
    let mut shell = Shell::new(Store::postgres());
    shell.types("pac limit shared/gpu 3 --backfill 1");
    let holder = shell.holds("-r shared/gpu:2 --run ci/train");
    let mut waits =
        shell.starts_and_listens("pac exec -r shared/gpu:2 --run ci/tune -- echo tuned");
    shell.hears(&mut waits);
    shell.types("pac exec -r shared/gpu --no-wait -- echo before it");
    shell.types("pac exec -r shared/gpu --no-wait -- echo once more");
    shell.lets_go();
    shell.say("$ wait");
    assert_eq!((shell.hears_the_end_of(waits), holder.wait().code), (0, 0));
    shell.as_documented("backfill");
}

#[test]
fn postgres_the_transcript_of_times_is_what_happens() {
    let mut shell = Shell::new(Store::postgres());
    shell.types("pac limit ci/website 1");
    let long = "pac exec -r ci/website --run ci/long --max-hold 4s -- sleep 60";
    let holder = shell.starts_and_listens(long);
    shell.wait_for_run("ci/website");
    shell.types_and_asks("pac exec -r ci/website --run ci/short --max-wait 1s -- true");
    shell.say("$ wait %1");
    let code = shell.hears_the_end_of(holder);
    shell.say("$ echo $?");
    shell.say(&code.to_string());
    shell.types("pac history");
    shell.as_documented("times");
}
