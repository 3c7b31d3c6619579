//! Groups, and superseding in them.

use pac_core::manager::{ConcurrencyManager, Lease, Turn};
use pac_core::protocol::{RunRequest, Supersedes};
use pac_core::state::{Entry, RunOutcome};
use pac_core::{Limit, RepositoryKey};

use crate::{Fixture, durable, queued, repository, run, started};

const DONE: RunOutcome = RunOutcome::Completed;

fn of_group(name: &str, group: &str, supersedes: Supersedes) -> RunRequest {
    let group = group.parse().unwrap();
    durable(name).in_group(group).superseding(supersedes)
}

/// A newer run of a group ends the waiting ones, whichever managers wait for them; these hear it,
/// and the newcomer has the place of the first.
pub async fn a_newer_run_takes_the_place_of_those_that_it_supersedes(fixture: &Fixture) {
    let (here, there) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    let holder = only_slot(&here, &web).await;
    let none = Supersedes::None;
    let old = queued(&there, &web, of_group("old", "pr-7", none)).await;
    let other = queued(&here, &web, of_group("other", "pr-8", none)).await;
    let older = queued(&here, &web, of_group("older", "pr-7", none)).await;
    let place = old.ticket();
    let newest = of_group("newest", "pr-7", Supersedes::Waiting);
    let newest = queued(&here, &web, newest).await;
    assert_eq!(newest.ticket(), place);
    for waiter in [old, older] {
        let turn = fixture.soon("the end of a superseded run", waiter).await;
        let superseded = matches!(turn, Ok(Turn::Ended(RunOutcome::Superseded)));
        assert!(superseded, "{turn:?}");
    }
    let view = fixture.view(&web).await;
    view.assert(&["holder"], &["newest", "other"]);
    assert_eq!(view.outcome("old"), Some(RunOutcome::Superseded));
    let freed = here.release(holder, DONE).await.unwrap();
    assert_eq!(freed.promoted, [run("newest")]);
    let newest = fixture.turn(newest).await;
    here.release(newest, DONE).await.unwrap();
    drop(fixture.turn(other).await);
}

/// A run supersedes as many as there are: more, too, than some stores change in one commit.
pub async fn a_newer_run_supersedes_however_many_wait(fixture: &Fixture) {
    const MANY: usize = 150;
    let (here, there) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    let holder = only_slot(&here, &web).await;
    let first = queued(&here, &web, durable("first")).await;
    let names: Vec<_> = (0..MANY).map(|at| format!("old-{at}")).collect();
    let mut old = Vec::new();
    for some in names.chunks(25) {
        let runs = some
            .iter()
            .map(|name| of_group(name, "pr-7", Supersedes::None));
        let admitted = there.admit_all(&web, None, runs.collect()).await.unwrap();
        old.extend(admitted);
    }
    let last = queued(&here, &web, durable("last")).await;
    let newest = of_group("newest", "pr-7", Supersedes::Waiting);
    let newest = queued(&here, &web, newest).await;
    let view = fixture.view(&web).await;
    view.assert(&["holder"], &["first", "newest", "last"]);
    for name in &names {
        // A store may keep fewer finished runs than that.
        let outcome = view.outcome(name);
        assert!(
            outcome.is_none_or(|how| how == RunOutcome::Superseded),
            "{name}"
        );
    }
    drop((holder, first, old, last, newest));
}

/// Superseding all asks the running ones of the group to end, on whichever manager; the newcomer
/// waits until they have.
pub async fn superseding_all_asks_the_holders(fixture: &Fixture) {
    let (here, there) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    here.set_limit(&web, Limit::new(2), None).await.unwrap();
    let old = of_group("old", "pr-7", Supersedes::None);
    let old = started(&here, &web, old).await;
    let other = of_group("other", "pr-8", Supersedes::None);
    let other = started(&there, &web, other).await;
    let newest = of_group("newest", "pr-7", Supersedes::All);
    let mut newest = queued(&there, &web, newest).await;
    fixture
        .soon("the request to end", old.cancel_requested())
        .await;
    assert!(here.holds(&old), "it has its slot until it gives it back");
    fixture.waits_on(&mut newest).await;
    let asked = |entry: &Entry| entry.terms().asked.at().is_some();
    let view = fixture.view(&web).await;
    assert!(asked(&view.entry("old").unwrap()));
    assert!(!asked(&view.entry("other").unwrap()));
    let cancelled = RunOutcome::Cancelled;
    here.release(old, cancelled).await.unwrap();
    drop((other, fixture.turn(newest).await));
}

async fn only_slot(manager: &ConcurrencyManager, repository: &RepositoryKey) -> Lease {
    let one = Limit::new(1);
    manager.set_limit(repository, one, None).await.unwrap();
    started(manager, repository, durable("holder")).await
}
