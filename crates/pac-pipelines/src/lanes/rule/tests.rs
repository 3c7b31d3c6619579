use super::*;

fn rule(annotations: &[(&str, &str)]) -> NamespaceRule {
    let mut view = NamespaceView::new("ci");
    let annotations = annotations.iter();
    view.annotations
        .extend(annotations.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    NamespaceRule::of(&view)
}

fn run(labels: &[(&str, &str)]) -> RunView {
    let mut run = RunView::new("ci/a".parse().unwrap(), "u".parse().unwrap());
    let labels = labels.iter();
    run.other_labels
        .extend(labels.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    run
}

/// The lane of a run and its limit, or what is wrong.
fn place(rule: &NamespaceRule, run: &RunView) -> String {
    let lane = match rule.lane_of(run) {
        None => return "no lanes".to_owned(),
        Some(Err(error)) => return error.to_string(),
        Some(Ok(lane)) => lane,
    };
    match rule.limit_of(&lane) {
        Ok(limit) => format!("{} {:?}", lane.key(), limit.and_then(Limit::get)),
        Err(error) => error.to_string(),
    }
}

fn told(rule: &NamespaceRule) -> Vec<String> {
    rule.problems().iter().map(ToString::to_string).collect()
}

#[test]
fn a_namespace_without_annotations_says_nothing() {
    let rule = rule(&[]);
    assert!(!rule.is_said() && !rule.has_lanes() && rule.problems().is_empty());
    assert_eq!(place(&rule, &run(&[])), "no lanes");
    assert_eq!(rule.limit().unwrap(), None);
}

#[test]
fn runs_with_the_same_labels_are_one_lane() {
    let rule = rule(&[
        (LANE_LABELS, "branch, env"),
        (LIMIT, "5"),
        (LANE_LIMIT, "2"),
    ]);
    assert_eq!(told(&rule), [""; 0]);
    let both = run(&[("branch", "main"), ("env", "prod"), ("other", "x")]);
    assert_eq!(place(&rule, &both), "ci/lane.main.0--and.prod Some(2)");
    let one = run(&[("env", "main")]);
    assert_eq!(place(&rule, &one), "ci/lane.0--none.0--and.main Some(2)");
    // One that views of runs keep under its own name counts too.
    let mut of_pac = run(&[("env", "x")]);
    of_pac.labels.insert("branch".to_owned(), "b".to_owned());
    assert_eq!(place(&rule, &of_pac), "ci/lane.b.0--and.x Some(2)");
}

#[test]
fn values_that_break_their_rule_are_told_and_give_no_limit() {
    for (bad, part) in [
        ((LIMIT, "0"), "at least 1, not \"0\""),
        ((LIMIT, "many"), "whole number"),
        ((LANE_LABELS, ""), "keys of labels"),
        ((LANE_LABELS, "a,,b"), "keys of labels"),
        ((LANE_LABELS, "a,a"), "keys of labels"),
        ((LANE_LABELS, "a b"), "keys of labels"),
        ((LANE_LABELS, "a,b,c,d,e,f,g,h,i"), "1 to 8"),
    ] {
        let rule = rule(&[bad, (LANE_LIMIT, "1")]);
        let told = told(&rule);
        assert!(
            told.iter().any(
                |told| told.starts_with("Namespace ci: metadata.annotations.")
                    && told.contains(part)
            ),
            "{bad:?}: {told:?}"
        );
    }
    let broken = rule(&[(LIMIT, "x")]);
    assert!(broken.is_said() && broken.limit().is_err());
    let broken = rule(&[(LANE_LABELS, "a"), (LANE_LIMIT, "0")]);
    assert!(place(&broken, &run(&[])).contains("at least 1, not \"0\""));
}

#[test]
fn what_says_nothing_by_itself_is_told_and_changes_nothing() {
    let lanes = rule(&[(LANE_LABELS, "branch")]);
    assert!(told(&lanes)[0].contains("without a limit"), "{lanes:?}");
    assert!(!lanes.is_said());
    let limit = rule(&[(LANE_LIMIT, "3")]);
    assert!(told(&limit)[0].contains("without lanes"), "{limit:?}");
    assert!(!limit.is_said());
    let both = rule(&[(LANE_LABELS, "a"), (LANE, "'x'"), (LIMIT, "1")]);
    assert!(place(&both, &run(&[])).contains("remove one of them"));
}

#[cfg(not(feature = "expressions"))]
#[test]
fn without_expressions_an_expression_is_told_and_nothing_starts() {
    let rule = rule(&[(LANE, "'x'"), (LIMIT, "1")]);
    assert!(place(&rule, &run(&[])).contains("built without"));
}

#[cfg(feature = "expressions")]
mod expressions {
    use super::*;

    fn lane(source: &str, run: &RunView) -> String {
        place(&rule(&[(LANE, source), (LIMIT, "1")]), run)
    }

    #[test]
    fn an_expression_reads_the_metadata_of_a_run() {
        let mut run = run(&[("env", "prod")]);
        run.generate_name = Some("build-".to_owned());
        run.other_annotations
            .insert("x/cluster".to_owned(), "c-7".to_owned());
        for (source, expected) in [
            ("object.metadata.labels.env", "ci/lane.prod Some(1)"),
            (
                "object.metadata.labels['env'] + '/' + object.metadata.namespace",
                "ci/lane.prod0--2fci Some(1)",
            ),
            (
                "object.metadata.annotations['x/cluster']",
                "ci/lane.c-7 Some(1)",
            ),
            (
                "'team' in object.metadata.labels ? object.metadata.labels.team : 'none'",
                "ci/lane.none Some(1)",
            ),
            (
                "has(object.metadata.labels.team) ? 'a' : 'b'",
                "ci/lane.b Some(1)",
            ),
            (
                "object.metadata.generateName.startsWith('build') ? 'builds' : ''",
                "ci/lane.builds Some(1)",
            ),
            ("string(size(object.metadata.name))", "ci/lane.1 Some(1)"),
        ] {
            assert_eq!(lane(source, &run), expected, "{source}");
        }
    }

    #[test]
    fn what_gives_no_text_is_told_with_the_run() {
        for (source, part) in [
            ("1", "put string() around it"),
            ("true", "gives true or false"),
            ("object", "gives a map"),
            ("object.metadata.labels.env", "No such key: env"),
            (
                "string(1 / (size(object.metadata.name) - 1))",
                "cannot be evaluated",
            ),
            (
                "'A' + 'B' + object.metadata.name + \
              'ÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄ'",
                "longer than 253 characters",
            ),
        ] {
            let told = lane(source, &run(&[]));
            assert!(told.contains(part), "{source}: {told}");
            assert!(told.ends_with("for PipelineRun ci/a"), "{told}");
        }
    }

    /// Whatever is written there, it ends soon and breaks nothing.
    #[test]
    fn what_could_take_long_is_refused_before_it_is_evaluated() {
        let deep = |open: &str, close: &str, times: usize| {
            format!("{}'a'{}", open.repeat(times), close.repeat(times))
        };
        for (source, part) in [
            ("", "must be a CEL expression"),
            ("object.", "must be a CEL expression"),
            ("'a' +", "must be a CEL expression"),
            ("params.x", "over object"),
            ("lane", "over object"),
            (
                "object.metadata.labels.all(x, true) ? 'a' : 'b'",
                "must not repeat",
            ),
            ("[1, 2].map(x, [1, 2].map(y, x))", "must not repeat"),
            (
                "object.metadata.name.matches('a')",
                "must not use \"matches\"",
            ),
            ("'a'.replace('a', 'aa')", "must not use \"replace\""),
            ("Foo{a: 1}", "must be"),
            (&"a".repeat(513), "at most 512 bytes"),
            (&deep("(", ")", 17), "brackets"),
            (&deep("[", "]", 200), "brackets"),
            (&format!("'a'{}", "+'a'".repeat(100)), "nested at most 32"),
            (&format!("{}'a'", "true?'b':".repeat(50)), "must be"),
            (&"(".repeat(400), "brackets"),
            (&"!".repeat(500), "must be"),
            (&"-".repeat(500), "must be"),
            (&"'".repeat(511), "must be"),
        ] {
            let told = lane(source, &run(&[]));
            assert!(told.contains(part), "{source}: {told}");
        }
    }

    #[test]
    fn a_lane_has_one_limit_whatever_its_runs_are() {
        let lane_limit = "lane == 'prod' ? 1 : 4";
        let by_label = rule(&[(LANE_LABELS, "env"), (LANE_LIMIT, lane_limit)]);
        assert_eq!(
            place(&by_label, &run(&[("env", "prod")])),
            "ci/lane.prod Some(1)"
        );
        assert_eq!(place(&by_label, &run(&[])), "ci/lane.0--none Some(4)");
        let labels = "'env' in labels ? int(labels.env) : 7";
        let by_number = rule(&[(LANE_LABELS, "env"), (LANE_LIMIT, labels)]);
        assert_eq!(
            place(&by_number, &run(&[("env", "3")])),
            "ci/lane.3 Some(3)"
        );
        assert_eq!(place(&by_number, &run(&[])), "ci/lane.0--none Some(7)");
        let told = place(&by_number, &run(&[("env", "0")]));
        assert!(
            told.ends_with("at least 1, for the lane ci/lane.0"),
            "{told}"
        );
        let told = place(&by_number, &run(&[("env", "x")]));
        assert!(told.contains("cannot be evaluated"), "{told}");
        let of_runs = rule(&[(LANE_LABELS, "env"), (LANE_LIMIT, "size(object)")]);
        assert!(told_of(&of_runs).contains("over lane and labels"));
    }

    fn told_of(rule: &NamespaceRule) -> String {
        told(rule).join("\n")
    }

    #[test]
    fn a_run_that_starts_stays_in_its_lane() {
        let source = "string(size(object.metadata.annotations))";
        let before = lane(source, &run(&[]));
        let mut started = run(&[]);
        let token = (crate::vocabulary::TOKEN.to_owned(), "7".to_owned());
        started.annotations.extend([token]);
        assert_eq!(lane(source, &started), before);
    }
}
