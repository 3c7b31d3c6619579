//! Pauses, and owners of limits.

use pac_core::manager::{Admission, WaitReason};
use pac_core::protocol::{Claim, PauseCondition};
use pac_core::state::{Owner, RulesChange, RunOutcome};
use pac_core::{Limit, LimitVersion, Reason};

use crate::{Fixture, durable, ephemeral, queued, repository, run, started};

/// A pause holds against every manager, whatever the limit, and every waiter hears why; what runs
/// goes on. Its end starts what waits, as far as there is room.
pub async fn a_pause_holds_against_everybody_and_is_told(fixture: &Fixture) {
    let (here, there) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    here.set_limit(&web, Limit::new(2), None).await.unwrap();
    let first = started(&here, &web, durable("first")).await;
    let reason: Reason = "the database moves".parse().unwrap();
    let paused = here.pause(&web, Some(reason.clone())).await.unwrap();
    assert_eq!((paused.before, paused.promoted), (false, vec![]));

    let mut one = queued(&here, &web, durable("one")).await;
    let mut two = queued(&there, &web, durable("two")).await;
    let mut own = queued(&there, &web, ephemeral("own")).await;
    let raised = there.set_limit(&web, Limit::new(3), None).await.unwrap();
    assert_eq!((raised.accepted, raised.promoted), (true, vec![]));
    let freed = here.release(first, RunOutcome::Completed).await.unwrap();
    assert_eq!(freed.promoted, []);
    for waiter in [&mut one, &mut two, &mut own] {
        fixture.waits_on(waiter).await;
        let Some(WaitReason::Paused(pause)) = waiter.reason() else {
            panic!("{} waits because of {:?}", waiter.run(), waiter.reason());
        };
        assert_eq!(pause.reason.as_ref(), Some(&reason));
        assert!(pause.since.is_some(), "{pause:?}");
    }
    let status = there.status(&web).await.unwrap();
    let shown = status.pause.expect("the pause is shown");
    assert_eq!(shown.reason.as_ref(), Some(&reason));

    // Once more: since the first time, for another reason.
    let again = there.pause(&web, None).await.unwrap();
    assert_eq!((again.before, again.promoted), (true, vec![]));
    let pause = here.status(&web).await.unwrap().pause.unwrap();
    assert_eq!((pause.since, pause.reason), (shown.since, None));

    let resumed = there.resume(&web).await.unwrap();
    assert!(resumed.before);
    assert_eq!(resumed.promoted, [run("one"), run("two"), run("own")]);
    for waiter in [one, two, own] {
        drop(fixture.turn(waiter).await);
    }
    let resumed = here.resume(&web).await.unwrap();
    assert!(!resumed.before);
    assert!(resumed.accepted);

    // What another one has paused since is that one's.
    let mine = || Some("mine".parse::<Reason>().unwrap());
    here.pause(&web, mine()).await.unwrap();
    let (free, of_mine) = (PauseCondition::NotPaused, PauseCondition::PausedFor(mine()));
    there.pause(&web, Some(reason.clone())).await.unwrap();
    let resumed = here.resume_if(&web, of_mine).await.unwrap();
    let again = here.pause_if(&web, mine(), free).await.unwrap();
    for change in [resumed, again] {
        assert!(change.before && !change.accepted, "{change:?}");
    }
    let pause = there.status(&web).await.unwrap().pause.unwrap();
    assert_eq!(pause.reason, Some(reason));
}

/// A run that runs already is recorded during a pause, too; nothing else starts.
pub async fn an_adoption_is_no_start(fixture: &Fixture) {
    let (here, there) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    here.pause(&web, None).await.unwrap();
    let waiter = queued(&here, &web, durable("waits")).await;
    let adopted = there.adopt(&web, durable("runs")).await.unwrap();
    let Admission::Started(lease) = adopted else {
        panic!("{adopted:?}");
    };
    fixture.view(&web).await.assert(&["runs"], &["waits"]);
    there.release(lease, RunOutcome::Completed).await.unwrap();
    fixture.view(&web).await.assert(&[], &["waits"]);
    here.resume(&web).await.unwrap();
    drop(fixture.turn(waiter).await);
}

/// A pinned limit holds against what other managers announce, set or propose, until it is unpinned:
/// then what was announced last is in force.
pub async fn a_pin_holds_against_announcements_and_proposals(fixture: &Fixture) {
    let (here, there) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    let limit = |slots| RulesChange::limit(Limit::new(slots));
    let announced = |version| Claim::Announce(LimitVersion::new(version));
    let set = here
        .set_rules(&web, limit(2), Claim::Propose)
        .await
        .unwrap();
    assert_eq!((set.accepted, set.owner), (true, Some(Owner::Proposed)));
    let set = there.set_rules(&web, limit(4), announced(1)).await.unwrap();
    assert_eq!((set.accepted, set.owner), (true, Some(Owner::Announced)));
    let set = here
        .set_rules(&web, limit(9), Claim::Propose)
        .await
        .unwrap();
    assert_eq!((set.accepted, set.limit), (false, Limit::new(4)));

    let set = here.set_rules(&web, limit(1), Claim::Pin).await.unwrap();
    assert_eq!((set.accepted, set.owner), (true, Some(Owner::Pinned)));
    let first = started(&here, &web, durable("first")).await;
    let mut waiter = queued(&there, &web, durable("second")).await;
    for claim in [Claim::Propose, Claim::Set, announced(2)] {
        let set = there.set_rules(&web, limit(7), claim).await.unwrap();
        let in_force = (set.accepted, set.owner, set.limit, set.promoted);
        let pinned = (false, Some(Owner::Pinned), Limit::new(1), vec![]);
        assert_eq!(in_force, pinned, "{claim:?}");
    }
    fixture.waits_on(&mut waiter).await;
    let status = there.status(&web).await.unwrap();
    let beneath = status.beneath.map(|(rules, owner)| (rules.limit, owner));
    assert_eq!(beneath, Some((Limit::new(7), Owner::Announced)));

    let unpinned = there.unpin(&web).await.unwrap();
    assert_eq!(unpinned.promoted, [run("second")]);
    assert_eq!(unpinned.owner, Some(Owner::Announced));
    drop((first, fixture.turn(waiter).await));
    let stale = here.set_rules(&web, limit(3), announced(2)).await.unwrap();
    assert_eq!((stale.accepted, stale.limit), (false, Limit::new(7)));
    assert!(!here.unpin(&web).await.unwrap().accepted);
}
