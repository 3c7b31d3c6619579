use pac_core::Limit;

use super::*;

fn run(name: &str, uid: &str, version: u64) -> RunView {
    let key = PipelineRunKey::new("ci", name).unwrap();
    let mut run = RunView::new(key, uid.parse().unwrap());
    run.version = Some(ResourceVersion::new(version));
    let repository = (vocabulary::REPOSITORY.to_owned(), "r".to_owned());
    run.annotations.extend([repository]);
    run.spec_status = SpecStatus::Pending;
    run
}

fn repository(name: &str, limit: u32, version: u64) -> RepositoryView {
    let key = RepositoryKey::new("ci", name).unwrap();
    let mut view = RepositoryView::new(key).with_limit(Limit::new(limit));
    view.version = Some(ResourceVersion::new(version));
    view
}

fn listing<T>(items: Vec<T>, version: u64) -> Listing<T> {
    Listing::new(items, Some(ResourceVersion::new(version)))
}

#[test]
fn what_is_late_or_does_not_matter_touches_nothing() {
    let mut seen = Seen::default();
    let (applied, deleted) = (ClusterEvent::RunApplied, ClusterEvent::RunDeleted);
    assert!(matches!(
        seen.observe(applied(run("a", "1", 5))),
        Touched::Run(..)
    ));
    assert_eq!(seen.observe(applied(run("a", "1", 4))), Touched::Nothing);
    assert_eq!(seen.observe(applied(run("a", "1", 6))), Touched::Nothing);
    let mut started = run("a", "1", 7);
    started.spec_status = SpecStatus::None;
    assert!(matches!(seen.observe(applied(started)), Touched::Run(..)));
    // Another run of the name; what comes late of the first one does not touch it.
    assert!(matches!(
        seen.observe(applied(run("a", "2", 9))),
        Touched::Run(..)
    ));
    assert!(matches!(
        seen.observe(deleted(run("a", "1", 8))),
        Touched::Run(..)
    ));
    assert_eq!(seen.observe(applied(run("a", "1", 10))), Touched::Nothing);
    let key = run("a", "2", 0).key;
    assert_eq!(seen.run(&key).unwrap().uid.as_str(), "2");
    assert!(seen.is_gone(&key, &"1".parse().unwrap()));
    assert!(!seen.is_gone(&key, &"2".parse().unwrap()));
}

#[test]
fn a_list_ends_what_is_not_in_it_unless_that_is_newer() {
    let mut seen = Seen::default();
    for (name, version) in [("old", 5), ("new", 20)] {
        seen.observe(ClusterEvent::RunApplied(run(name, name, version)));
    }
    seen.replace(
        listing(Vec::new(), 10),
        listing(vec![run("listed", "l", 6)], 10),
    );
    let repository = RepositoryKey::new("ci", "r").unwrap();
    let names: Vec<_> = seen
        .runs_of(&repository)
        .iter()
        .map(|r| r.name().to_owned())
        .collect();
    assert_eq!(names, ["listed", "new"]);
    assert!(seen.is_gone(&run("old", "old", 0).key, &"old".parse().unwrap()));
}

#[test]
fn a_change_of_the_global_limit_touches_all_that_inherit_it() {
    let global = repository("global", 1, 1);
    let mut seen = Seen::new(Some(global.key.clone()));
    let all = vec![global, repository("own", 2, 2), repository("heir", 0, 3)];
    seen.replace(listing(all, 10), listing(Vec::new(), 10));
    let touched = |seen: &mut Seen, event| match seen.observe(event) {
        Touched::Repositories(keys) => keys.iter().map(|key| key.name().to_owned()).collect(),
        _ => Vec::new(),
    };
    let applied = ClusterEvent::RepositoryApplied;
    assert_eq!(
        touched(&mut seen, applied(repository("global", 3, 11))),
        ["heir", "global"]
    );
    assert_eq!(
        touched(&mut seen, applied(repository("heir", 0, 12))),
        [""; 0]
    );
    assert_eq!(
        touched(&mut seen, applied(repository("own", 4, 13))),
        ["own"]
    );
    let gone = ClusterEvent::RepositoryDeleted(repository("global", 3, 14));
    assert_eq!(touched(&mut seen, gone), ["heir", "global"]);
    let heir = seen
        .limit(&RepositoryKey::new("ci", "heir").unwrap())
        .unwrap();
    assert_eq!(
        (heir.limit, heir.version.unwrap().get()),
        (Limit::UNLIMITED, 14)
    );
    let broken = Unreadable::new(
        UnreadableObject::Repository(RepositoryKey::new("ci", "global").unwrap()),
        ModelError::new("Repository ci/global", "spec", "must be a mapping"),
    );
    seen.observe(ClusterEvent::Unreadable(broken));
    assert_eq!(seen.limit(&RepositoryKey::new("ci", "heir").unwrap()), None);
}

/// It is there, and what was known of it counts on: its slot is not another run's.
#[test]
fn a_listed_run_that_cannot_be_understood_stays_as_it_was() {
    let mut seen = Seen::default();
    seen.observe(ClusterEvent::RunApplied(run("a", "u1", 5)));
    let error = ModelError::new("PipelineRun ci/a", "status", "must be a mapping");
    let mut runs = listing(vec![run("b", "u2", 6)], 9);
    let object = UnreadableObject::Run("ci/a".parse().unwrap());
    runs.unreadable.push(Unreadable::new(object, error));
    seen.replace(listing(vec![], 9), runs);
    let repository = "ci/r".parse().unwrap();
    assert_eq!(seen.runs_of(&repository).len(), 2);
    seen.replace(listing(vec![], 10), listing(vec![run("b", "u2", 6)], 10));
    assert_eq!(seen.runs_of(&repository).len(), 1);
}
