//! `pac plan`, run as a process.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::common;

use std::fs;
use std::path::Path;

use common::{Ended, pac};
use serde_json::{Value, json};

const EXAMPLES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../pac-pipelines/examples/manifests"
);

/// The plan of files with these names and contents.
fn plan(files: &[(&str, &str)], args: &[&str]) -> Ended {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    plan_of(directory.path(), args)
}

fn plan_of(path: &Path, args: &[&str]) -> Ended {
    pac(&[&["plan", path.to_str().unwrap()], args].concat())
}

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

/// Run, state and reason of each run of the only Repository.
fn fates(ended: &Ended) -> Vec<(String, String, String)> {
    let plan = json(ended);
    let runs = plan["repositories"][0]["runs"].as_array().unwrap().clone();
    let text = |run: &Value, field: &str| run[field].as_str().unwrap().to_owned();
    runs.iter()
        .map(|run| (text(run, "run"), text(run, "state"), text(run, "reason")))
        .collect()
}

fn repository(name: &str, spec: &str) -> String {
    format!("kind: Repository\nmetadata: {{name: {name}, namespace: ci}}\nspec: {spec}\n---\n")
}

fn run(name: &str, rest: &str) -> String {
    format!(
        "kind: PipelineRun\nmetadata:\n  name: {name}\n  namespace: ci\n  annotations:\n    \
         pipelinesascode.tekton.dev/repository: web\n{rest}\n---\n"
    )
}

#[test]
fn the_examples_are_planned_as_they_stand_here() {
    let table = plan_of(Path::new(EXAMPLES), &[]);
    assert_eq!((table.code, table.stderr.as_str()), (0, ""));
    let lines = |text: &str| -> Vec<String> { text.lines().map(str::to_owned).collect() };
    assert_eq!(
        lines(&table.stdout),
        lines(include_str!("plan/examples.txt"))
    );
    let planned = plan_of(Path::new(EXAMPLES), &["-o", "json"]);
    let expected: Value = serde_json::from_str(include_str!("plan/examples.json")).unwrap();
    assert_eq!(json(&planned), expected);
    let yaml = plan_of(Path::new(EXAMPLES), &["--output", "yaml"]);
    let start = "repositories:\n- repository: ci/api\n  limit: 1\n  limit_of: ci/api\n  runs:\n";
    assert!(yaml.stdout.starts_with(start), "{yaml:?}");
}

#[test]
fn an_empty_directory_is_an_empty_plan() {
    for files in [
        &[][..],
        &[("README.md", "kind: PipelineRun"), (".git/a.yaml", "a: [")],
    ] {
        let empty = plan(files, &[]);
        assert_eq!((empty.code, empty.stdout.as_str()), (0, ""));
        assert!(
            empty.stderr.contains("no PipelineRun and no Repository in"),
            "{empty:?}"
        );
    }
    let expected = json!({
        "repositories": [], "elsewhere": [], "unreadable": [], "warnings": [], "other_objects": 0,
    });
    assert_eq!(json(&plan(&[], &["-o", "json"])), expected);
}

#[test]
fn what_annotations_ask_for_is_planned() {
    const OURS: &str = "    concurrency.pipelinesascode.tekton.dev";
    let wishes = |wishes: &[(&str, &str)]| {
        let lines = wishes.iter();
        let lines = lines.map(|(name, value)| format!("{OURS}/{name}: '{value}'\n"));
        lines.collect::<String>()
    };
    let repository = |wish: &[(&str, &str)]| {
        let annotations = wishes(wish);
        format!(
            "kind: Repository\nmetadata:\n  name: web\n  namespace: ci\n  annotations:\n\
             {annotations}    x: x\nspec: {{concurrency_limit: 3}}\n---\n"
        )
    };
    let run = |name: &str, minute: u32, wish: &[(&str, &str)]| {
        let created = format!("  creationTimestamp: 2026-06-01T10:{minute:02}:00Z");
        run(name, &(wishes(wish) + &created))
    };
    let deploy = [("group", "deploy"), ("supersede", "waiting")];
    let manifests = [
        repository(&[("max-queued", "1")]),
        run("a", 1, &[("weight", "2")]),
        run("deploy-1", 2, &deploy),
        run("deploy-2", 3, &deploy),
        run("heavy", 4, &[("weight", "4")]),
        run("b", 5, &[]),
        run("c", 6, &[]),
    ]
    .concat();
    let planned = plan(&[("all.yaml", &manifests)], &["-o", "json"]);
    assert_eq!(planned.code, 0, "{planned:?}");
    let fate = |run: &str, state: &str, reason: &str| {
        (format!("ci/{run}"), state.to_owned(), reason.to_owned())
    };
    let expected = [
        fate("a", "starts", "slots 1 to 2 of 3"),
        fate("deploy-2", "starts", "slot 3 of 3"),
        fate("b", "queued", "next; 3 running of at most 3"),
        fate(
            "deploy-1",
            "cancelled",
            "a newer run of its group takes its place",
        ),
        fate("c", "cancelled", "as many wait as may"),
        fate("heavy", "too-heavy", "takes 4 slots, and the limit is 3"),
    ];
    assert_eq!(fates(&planned), expected);
    let paused = [
        repository(&[("pause", "the registry moves"), ("order", "lifo")]),
        run("a", 1, &[("weight", "none")]),
    ]
    .concat();
    let planned = plan(&[("all.yaml", &paused)], &["-o", "json"]);
    let (_, state, reason) = fates(&planned).remove(0);
    assert_eq!(state, "queued");
    assert!(reason.ends_with("the registry moves"), "{reason}");
    let warnings = json(&planned)["warnings"].as_array().unwrap().len();
    assert_eq!((planned.code, warnings), (0, 2), "{planned:?}");
}

#[test]
fn a_path_that_cannot_be_read_is_named() {
    let ended = pac(&["plan", "/nowhere/at/all"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (65, ""));
    assert!(
        ended.stderr.contains("/nowhere/at/all: cannot be read:"),
        "{ended:?}"
    );
    assert_eq!(pac(&["plan"]).code, 2);
    assert_eq!(pac(&["plan", "x", "--global-repository", "none"]).code, 2);
}

#[test]
fn what_is_wrong_is_named_and_the_rest_is_planned() {
    let good = repository("web", "{concurrency_limit: 1}") + &run("a", "");
    let bad = [
        &run("b", ""),
        "kind: [\n---\n",
        &repository("api", "{concurrency_limit: -1}"),
        "kind: PipelineRun\nmetadata: {namespace: ci}\n---\n",
        &run("a", ""),
        "- 1\n---\n",
        &run("c", "  creationTimestamp: yesterday"),
        &run("d", ""),
    ]
    .concat();
    let files = [("1.yaml", good.as_str()), ("more/2.yml", &bad)];
    let planned = plan(&files, &["-o", "json"]);
    assert_eq!(planned.code, 65);
    for named in [
        "more/2.yml, document 2: line ",
        "more/2.yml, document 3: Repository ci/api: spec.concurrency_limit: must be a whole number",
        "more/2.yml, document 4: PipelineRun without a name in ci: metadata.name: is missing",
        "more/2.yml, document 5: PipelineRun ci/a: metadata.name: is there before, in 1.yaml, document 2",
        "more/2.yml, document 6: line 26: must be an object",
        "more/2.yml, document 7: PipelineRun ci/c: metadata.creationTimestamp: must be a time",
    ] {
        assert!(
            planned.stderr.contains(named),
            "{named}: {}",
            planned.stderr
        );
    }
    let plan = json(&planned);
    assert_eq!(plan["unreadable"].as_array().unwrap().len(), 6);
    assert_eq!(
        (
            &plan["unreadable"][1]["file"],
            &plan["unreadable"][1]["document"]
        ),
        (&json!("more/2.yml"), &json!(3))
    );
    let repositories = plan["repositories"].as_array().unwrap();
    assert_eq!(repositories[0]["repository"], "ci/api");
    assert_eq!(repositories[0]["limit"], Value::Null);
    let runs = repositories[1]["runs"].as_array().unwrap();
    let fates: Vec<_> = runs
        .iter()
        .map(|run| (&run["run"], &run["state"]))
        .collect();
    let (starts, queued) = (json!("starts"), json!("queued"));
    let (a, b, d) = (json!("ci/a"), json!("ci/b"), json!("ci/d"));
    assert_eq!(fates, [(&a, &starts), (&b, &queued), (&d, &queued)]);
}

#[test]
fn while_a_limit_cannot_be_understood_nothing_that_depends_on_it_starts() {
    let global = repository("all", "{concurrency_limit: many}");
    let text = repository("web", "{}") + &run("a", "") + &global;
    let args = ["-o", "json", "--global-repository", "ci/all"];
    let planned = plan(&[("a.yaml", &text)], &args);
    assert_eq!(planned.code, 65);
    let web = json(&planned)["repositories"][1].clone();
    assert_eq!(
        (&web["limit"], &web["runs"][0]["state"]),
        (&Value::Null, &json!("limit-unknown"))
    );
}

#[test]
fn the_global_limit_holds_for_those_without_one_of_their_own() {
    let text = repository("all", "{concurrency_limit: 1}")
        + &repository("web", "{}")
        + &run("a", "")
        + &run("b", "");
    let of = |args: &[&str]| {
        let planned = plan(&[("a.yaml", &text)], &[&["-o", "json"], args].concat());
        let web = json(&planned)["repositories"][1].clone();
        let states = [0, 1].map(|at: usize| web["runs"][at]["state"].clone());
        (web["limit"].clone(), web["limit_of"].clone(), states)
    };
    let states = [json!("starts"), json!("queued")];
    let inherited = of(&["--global-repository", "ci/all"]);
    assert_eq!(inherited, (json!(1), json!("ci/all"), states));
    let states = [json!("starts"), json!("starts")];
    assert_eq!(of(&[]), (json!(0), Value::Null, states));
}

#[test]
fn what_runs_is_counted_also_beyond_the_limit() {
    let runs = "  uid: UID\nstatus: {startTime: \"2026-06-01T10:00:00Z\"}";
    let text = repository("web", "{concurrency_limit: 1}")
        + &run("a", &runs.replace("UID", "u1"))
        + &run("b", &runs.replace("UID", "u2"))
        + &run("c", "");
    let fates = fates(&plan(&[("a.yaml", &text)], &["-o", "json"]));
    let states: Vec<_> = fates
        .iter()
        .map(|(run, state, _)| (run.as_str(), state.as_str()))
        .collect();
    assert_eq!(states[2], ("ci/c", "queued"));
    assert_eq!((states[0].1, states[1].1), ("runs", "runs"));
    assert_eq!(fates[0].2, "counted: slot 1 of 1");
    assert_eq!(fates[1].2, "counted, beyond the limit of 1");
    assert_eq!(fates[2].2, "next; 2 running of at most 1");
}

#[test]
fn every_cancel_form_ends_a_run_and_every_other_controller_keeps_its_own() {
    let text = repository("web", "{concurrency_limit: 5}")
        + &run("a", "spec: {status: Cancelled}")
        + &run("b", "spec: {status: Paused}")
        + &run("c", "spec: {managedBy: example.com/farm}")
        + &run(
            "d",
            "  deletionTimestamp: \"2026-06-01T10:00:00Z\"\n  uid: u\nspec: {status: PipelineRunPending}",
        );
    let fates = fates(&plan(&[("a.yaml", &text)], &["-o", "json"]));
    let expected = [
        ("ci/a", "cancelled", "Cancelled before its start"),
        ("ci/d", "cancelled", "deleted before its start"),
        (
            "ci/b",
            "left-alone",
            "spec.status is Paused, which is not known",
        ),
        ("ci/c", "left-alone", "spec.managedBy is example.com/farm"),
    ];
    let expected = expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
    assert_eq!(fates, expected);
}

#[test]
fn a_long_queue_keeps_the_order_that_is_given_as_its_reason() {
    let created = |second| format!("  creationTimestamp: \"2026-06-01T10:00:{second:02}Z\"");
    let mut text = repository("web", "{concurrency_limit: 1}");
    for number in (0..120).rev() {
        text.push_str(&run(&format!("pr{number}"), &created(number % 3)));
    }
    let planned = plan(&[("a.yaml", &text)], &["-o", "json"]);
    let mut expected: Vec<u32> = (0..120).collect();
    expected.sort_by_key(|number| (number % 3, *number));
    let fates = fates(&planned);
    for (at, number) in expected.iter().enumerate() {
        assert_eq!(fates[at].0, format!("ci/pr{number}"), "{at}");
    }
    let last = &json(&planned)["repositories"][0]["runs"][119];
    assert_eq!(last["position"], 119);
    let created = json!({"by": "creation", "created_at": "2026-06-01T10:00:02.000Z"});
    assert_eq!(last["order"], created);
}

#[test]
fn a_malformed_entry_of_an_order_is_a_warning() {
    let order = "    pipelinesascode.tekton.dev/execution-order: ci/b,oops,ci/a";
    let text = repository("web", "{concurrency_limit: 1}") + &run("a", order) + &run("b", "");
    let planned = plan(&[("a.yaml", &text)], &["-o", "json"]);
    assert_eq!(planned.code, 0);
    let warning = "warning: a.yaml, document 2: PipelineRun ci/a: execution-order: \"oops\" is \
                   passed over";
    assert!(planned.stderr.contains(warning), "{}", planned.stderr);
    let runs: Vec<_> = fates(&planned).into_iter().map(|(run, ..)| run).collect();
    assert_eq!(runs, ["ci/b", "ci/a"]);
    let table = plan(&[("a.yaml", &text)], &[]).stdout;
    assert!(table.contains("execution order, 1 of 2"), "{table}");
}
