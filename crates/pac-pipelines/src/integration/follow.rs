//! The controller's loop: it hears the cluster, the store and the clock, and has looked at what
//! they are about.

use std::sync::Arc;
use std::time::Duration;

use pac_core::manager::{Event, Events, Grants, Heard, Lease};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::PipelinesController;
use super::engine::{Engine, backoff};
use super::options::Mode;
use super::work::Dirty;
use crate::cluster::ClusterWatch;
use crate::error::PipelinesError;

impl PipelinesController {
    /// Does everything there is to do, until the manager is closed: recovers from the cluster's
    /// lists, follows its changes, starts what is granted a slot, and compares with the lists
    /// again from time to time. What fails is logged and tried again.
    ///
    /// Dropped, it ends all of its work where it is; another controller, or a later call, goes on
    /// from there. One call at a time: a manager has one stream of grants.
    ///
    /// # Errors
    /// None of its own as long as the manager lives; [`PipelinesError::Store`] when another task
    /// reads this manager's grants, so that nothing would ever be started here.
    pub async fn run(&self) -> Result<(), PipelinesError> {
        let engine = &self.engine;
        let _ended = EndsTasks(engine);
        let mut events = engine.manager.events();
        let observes = engine.options.mode == Mode::Observe;
        let mut grants: Option<Grants> = None;
        let mut failures = 0;
        loop {
            // The watch first: nothing that happens after the lists are taken is missed then.
            let watch = match engine.cluster.watch().await {
                Ok(watch) => match engine.recover().await {
                    Ok(_) => Ok(watch),
                    Err(error) => Err(error),
                },
                Err(error) => Err(error.into()),
            };
            let mut watch = match watch {
                Ok(watch) => watch,
                Err(error) => {
                    if !engine.manager.health().is_ready() && is_closed(&error) {
                        return Ok(());
                    }
                    tracing::warn!(%error, "cannot follow the cluster; trying again");
                    sleep(backoff(failures)).await;
                    failures += 1;
                    continue;
                }
            };
            failures = 0;
            // Only now: what runs is counted before anything is taken over from the dead.
            if grants.is_none() && !observes {
                grants = engine.manager.grants();
            }
            if grants.is_none() && !observes {
                let message = "another task reads the grants of this manager; give the \
                               controller a manager of its own";
                return Err(
                    pac_core::Error::new(pac_core::ErrorKind::Config, "run", message).into(),
                );
            }
            let grants = grants.as_mut();
            match engine.follow(watch.as_mut(), grants, &mut events).await {
                Followed::WatchEnded => {}
                Followed::ManagerClosed => return Ok(()),
            }
        }
    }
}

/// Why following has ended.
enum Followed {
    WatchEnded,
    ManagerClosed,
}

impl Engine {
    async fn follow(
        self: &Arc<Self>,
        watch: &mut dyn ClusterWatch,
        mut grants: Option<&mut Grants>,
        events: &mut Events,
    ) -> Followed {
        // At most one; ended with this function.
        let mut recoveries: JoinSet<Result<(), PipelinesError>> = JoinSet::new();
        let mut failures = 0;
        let mut next_recovery = self.next_recovery();
        loop {
            self.dispatch();
            let next_due = self.work.next_due();
            tokio::select! {
                event = watch.next() => match event {
                    Some(event) => {
                        if self.observe(event) {
                            next_recovery = Instant::now();
                        }
                    }
                    None => return Followed::WatchEnded,
                },
                lease = next_grant(grants.as_deref_mut()) => match lease {
                    Some(lease) => self.begin(lease),
                    None => return Followed::ManagerClosed,
                },
                heard = events.next() => match heard {
                    Some(Heard::Event(event)) => self.heard(&event),
                    // Events were missed: whatever they were about is looked at.
                    Some(_) => self.look_at_everything(),
                    None => return Followed::ManagerClosed,
                },
                () = self.work.changed.notified() => {}
                () = due(next_due) => {}
                // What becomes due while one is under way stays due: that one's lists may be older
                // than the reason.
                () = sleep_until(next_recovery), if recoveries.is_empty() => {
                    next_recovery = self.next_recovery();
                    let engine = Arc::clone(self);
                    recoveries.spawn(async move { engine.recover().await.map(drop) });
                }
                Some(ended) = recoveries.join_next() => {
                    let Err(error) = ended.map_err(|error| error.to_string()).and_then(|result| {
                        result.map_err(|error| error.to_string())
                    }) else {
                        failures = 0;
                        continue;
                    };
                    tracing::warn!(error, "could not compare with the cluster's lists; trying again");
                    next_recovery = next_recovery.min(Instant::now() + backoff(failures));
                    failures += 1;
                }
            }
        }
    }

    /// Has every Repository looked at that is due, each in a task of its own; when as many as may
    /// be are looked at, the next follows when one of those is done.
    fn dispatch(self: &Arc<Self>) {
        let at_once = self.options.concurrent_repositories.max(1);
        while let Some((repository, dirty)) = self.work.take(at_once) {
            let engine = Arc::clone(self);
            self.spawn(async move {
                // What fails is logged and tried again there.
                let _ = engine.look(&repository, dirty).await;
            });
        }
    }

    fn heard(&self, event: &Event) {
        match event {
            // With everything in the Repository: what runs is counted before a run that waited in
            // the name of the same dead controller is asked for.
            Event::OwnerLost { repository, .. } | Event::Orphaned { repository, .. } => {
                self.work.mark(repository, Dirty::all(), Instant::now());
            }
            Event::Ended {
                repository, run, ..
            }
            | Event::CancelRequested {
                repository, run, ..
            } => self.look_at(repository, run.clone()),
            // What ran in the name of the session before has to be looked after anew.
            Event::SessionOpened(_) => self.look_at_everything(),
            _ => {}
        }
    }

    /// Up to a fifth sooner or later, so that controllers started together do not list together.
    fn next_recovery(&self) -> Instant {
        let interval = self.options.recovery_interval;
        let session = self.manager.session().get();
        // Differs between controllers, and is the same for one in a test.
        let part = f64::from(u32::try_from(session % 41).unwrap_or(0)) / 100.0;
        Instant::now() + interval.mul_f64(0.8 + part)
    }
}

/// The next grant; never, for a controller that starts nothing.
async fn next_grant(grants: Option<&mut Grants>) -> Option<Lease> {
    match grants {
        Some(grants) => grants.next().await,
        None => std::future::pending().await,
    }
}

async fn due(at: Option<Instant>) {
    // Wakes up now and then in any case, which costs nothing.
    let idle = Duration::from_secs(60 * 60);
    sleep_until(at.unwrap_or_else(|| Instant::now() + idle)).await;
}

fn is_closed(error: &PipelinesError) -> bool {
    matches!(error, PipelinesError::Store(error) if error.kind() == pac_core::ErrorKind::Closed)
}

/// Ends the tasks of a controller when its loop ends.
struct EndsTasks<'a>(&'a Arc<Engine>);

impl Drop for EndsTasks<'_> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
