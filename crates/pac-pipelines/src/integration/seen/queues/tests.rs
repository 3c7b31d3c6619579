use super::*;
use crate::cluster::ClusterEvent;
use crate::vocabulary::{HELD, LANE_LABELS, LANE_LIMIT, LIMIT, REPOSITORY};

fn key(name: &str) -> RepositoryKey {
    RepositoryKey::new("ci", name).unwrap()
}

fn namespace(version: u64, annotations: &[(&str, &str)]) -> NamespaceView {
    let mut view = NamespaceView::new("ci");
    view.version = Some(ResourceVersion::new(version));
    let annotations = annotations.iter();
    view.annotations
        .extend(annotations.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    view
}

fn run(name: &str, version: u64, branch: &str) -> RunView {
    let key = PipelineRunKey::new("ci", name).unwrap();
    let mut run = RunView::new(key, name.parse().unwrap());
    run.version = Some(ResourceVersion::new(version));
    run.annotations.insert(HELD.to_owned(), "true".to_owned());
    if !branch.is_empty() {
        run.other_labels
            .insert("branch".to_owned(), branch.to_owned());
    }
    run
}

fn of_website(mut run: RunView) -> RunView {
    let website = (REPOSITORY.to_owned(), "website".to_owned());
    run.annotations.extend([website]);
    run
}

fn website(limit: u32, version: u64) -> RepositoryView {
    let mut view = RepositoryView::new(key("website")).with_limit(Limit::new(limit));
    view.version = Some(ResourceVersion::new(version));
    view
}

fn seen(annotations: &[(&str, &str)]) -> Seen {
    let mut seen = Seen::new(None).with_lanes();
    let items = vec![namespace(10, annotations)];
    seen.replace_namespaces(&Listing::new(items, Some(ResourceVersion::new(10))));
    seen
}

fn announced(seen: &Seen, queue: &str) -> Option<(u32, u64)> {
    let effective = seen.limit(&key(queue))?;
    let limit = effective.limit.get().unwrap_or(0);
    Some((limit, effective.version.unwrap().get()))
}

fn names(touched: Touched) -> Vec<String> {
    match touched {
        Touched::Repositories(keys) => keys.iter().map(|key| key.name().to_owned()).collect(),
        other => vec![format!("{other:?}")],
    }
}

const LANES: &[(&str, &str)] = &[(LANE_LABELS, "branch"), (LANE_LIMIT, "2")];

#[test]
fn a_run_moves_with_its_label_and_with_the_rule() {
    let mut seen = seen(LANES);
    let applied = ClusterEvent::RunApplied;
    let touched = seen.observe(applied(run("a", 11, "main")));
    assert_eq!(touched, Touched::Run(key("lane.main"), run("a", 0, "").key));
    assert_eq!(announced(&seen, "lane.main"), Some((2, 10)));
    assert_eq!(announced(&seen, "lane.next"), None, "no run is of it");
    let moved = vec![key("lane.main"), key("lane.next")];
    let touched = seen.observe(applied(run("a", 12, "next")));
    assert_eq!(touched, Touched::Moved(moved, run("a", 0, "").key));
    assert_eq!(announced(&seen, "lane.next"), Some((2, 10)));
    assert!(seen.is_known(&key("lane.next")) && !seen.is_known(&key("lane.main")));
    // Without lanes it is one of its Namespace, and of its Repository if it has one.
    seen.observe(applied(of_website(run("b", 13, "next"))));
    let event = ClusterEvent::NamespaceApplied(namespace(14, &[(LIMIT, "3")]));
    let touched = names(seen.observe(event));
    assert_eq!(touched, ["lane.0--all", "lane.next", "website"]);
    assert_eq!(announced(&seen, "lane.0--all"), Some((3, 14)));
    assert_eq!(seen.runs_of(&key("website")).len(), 1);
    // A run that is held stays in it when the limit is gone.
    seen.observe(ClusterEvent::NamespaceApplied(namespace(15, &[])));
    assert_eq!(announced(&seen, "lane.0--all"), Some((0, 15)));
    let late = ClusterEvent::NamespaceApplied(namespace(14, &[(LIMIT, "3")]));
    assert_eq!(seen.observe(late), Touched::Nothing);
}

#[test]
fn a_repository_inherits_the_limit_of_its_namespace_before_the_global_one() {
    let mut seen = seen(&[(LIMIT, "3")]);
    let applied = ClusterEvent::RepositoryApplied;
    seen.observe(applied(website(0, 5)));
    assert_eq!(announced(&seen, "website"), Some((3, 10)));
    seen.observe(applied(website(7, 12)));
    assert_eq!(announced(&seen, "website"), Some((7, 12)));
    seen.observe(applied(website(0, 13)));
    assert_eq!(announced(&seen, "website"), Some((3, 13)));
    let event = ClusterEvent::NamespaceApplied(namespace(14, &[(LIMIT, "4")]));
    assert_eq!(names(seen.observe(event)), ["website"]);
    assert_eq!(announced(&seen, "website"), Some((4, 14)));
    let broken = ClusterEvent::NamespaceApplied(namespace(15, &[(LIMIT, "few")]));
    seen.observe(broken);
    assert_eq!(announced(&seen, "website"), None);
    let refused = seen.refusal(&key("website"), &of_website(run("a", 1, "")));
    assert!(refused.unwrap().contains("not \"few\""));
}

#[test]
fn nothing_starts_in_a_namespace_that_is_not_known() {
    let mut seen = seen(&[]);
    let other = "new/lane.0--all".parse().unwrap();
    let mut held = run("a", 11, "");
    held.key = "new/a".parse().unwrap();
    seen.observe(ClusterEvent::RunApplied(held));
    assert!(seen.is_known(&other));
    assert_eq!(seen.limit(&other), None);
    let mut new = NamespaceView::new("new");
    new.version = Some(ResourceVersion::new(12));
    let touched = seen.observe(ClusterEvent::NamespaceApplied(new));
    assert_eq!(names(touched), ["lane.0--all"]);
    assert_eq!(seen.limit(&other).unwrap().limit, Limit::UNLIMITED);
}

#[test]
fn two_limits_and_the_name_of_a_lane_are_refused() {
    let mut seen = seen(LANES);
    let run = of_website(run("a", 11, "main"));
    seen.observe(ClusterEvent::RunApplied(run.clone()));
    assert_eq!(seen.refusal(&key("lane.main"), &run), None);
    let event = ClusterEvent::RepositoryApplied(website(5, 12));
    assert_eq!(names(seen.observe(event)), ["lane.main", "website"]);
    let refused = seen.refusal(&key("lane.main"), &run).unwrap();
    assert!(refused.contains("limit of its own"), "{refused}");
    seen.observe(ClusterEvent::NamespaceApplied(namespace(
        13,
        &[(LIMIT, "1")],
    )));
    let mut odd = run;
    odd.annotations
        .insert(REPOSITORY.to_owned(), "lane.main".to_owned());
    let refused = seen.refusal(&key("lane.0--all"), &odd).unwrap();
    assert!(refused.contains("begins with \"lane.\""), "{refused}");
}

#[test]
fn without_a_list_of_namespaces_there_are_repositories_alone() {
    let mut seen = Seen::new(None).with_lanes();
    seen.observe(ClusterEvent::RepositoryApplied(website(0, 5)));
    assert_eq!(announced(&seen, "website"), Some((0, 5)));
    seen.observe(ClusterEvent::RunApplied(of_website(run("a", 6, "main"))));
    assert_eq!(seen.runs_of(&key("website")).len(), 1);
    // The first list puts what was seen before where it belongs.
    let items = vec![namespace(10, LANES)];
    seen.replace_namespaces(&Listing::new(items, Some(ResourceVersion::new(10))));
    assert_eq!(seen.runs_of(&key("lane.main")).len(), 1);
    let mut takeover = Seen::new(None);
    takeover.replace_namespaces(&Listing::new(vec![namespace(10, LANES)], None));
    takeover.observe(ClusterEvent::RunApplied(of_website(run("a", 6, "main"))));
    assert_eq!(takeover.runs_of(&key("website")).len(), 1);
}

#[test]
fn the_global_concurrency_limit_stands_beside_an_annotation() {
    let global: RepositoryKey = "pac/global".parse().unwrap();
    let mut seen = Seen::new(Some(global.clone())).with_lanes();
    let applied = ClusterEvent::RepositoryApplied;
    let mut annotated = website(2, 5);
    annotated.has_concurrency_limit = false;
    seen.observe(applied(annotated));
    assert_eq!(seen.limit_beside_annotation(&key("website")), None);
    let mut of_pac = RepositoryView::new(global.clone()).with_limit(Limit::new(1));
    of_pac.version = Some(ResourceVersion::new(6));
    let touched = names(seen.observe(applied(of_pac.clone())));
    assert_eq!(touched, ["website", "global"], "both are looked at");
    let beside = seen.limit_beside_annotation(&key("website"));
    assert_eq!(beside, Some(global.clone()));
    // The limit of the annotation is that of both; in two modes it is no longer.
    of_pac.has_concurrency_limit = false;
    of_pac.version = Some(ResourceVersion::new(7));
    assert!(names(seen.observe(applied(of_pac))).contains(&"website".to_owned()));
    assert_eq!(seen.limit_beside_annotation(&key("website")), None);
    // One of its own is a limit of Pipelines-as-Code alone.
    seen.observe(applied(website(3, 8)));
    assert_eq!(seen.limit_beside_annotation(&key("website")), None);
}
