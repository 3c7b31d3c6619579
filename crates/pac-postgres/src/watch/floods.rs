//! How often hints make a process look at the whole store, and what it says of notifications that are
//! none of its store's.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pac_core::pauses::Seldom;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// The time between two looks that hints ask for: at most four a second.
const BETWEEN: Duration = Duration::from_millis(250);
/// The time between two lines in the log about foreign notifications.
const TELL: Duration = Duration::from_secs(60);

/// What hints have asked for: to look for dead sessions, or at everything. The first is told at once,
/// and those that come too soon after it are told together.
#[derive(Debug, Default)]
pub(super) struct Looks {
    asked: Mutex<Asked>,
    wake: Notify,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// A session has died.
    pub(super) session_died: bool,
    /// Hints were lost.
    pub(super) missed: bool,
}

impl Looks {
    pub(super) fn session_died(&self) {
        locked(&self.asked).session_died = true;
        self.wake.notify_one();
    }

    pub(super) fn missed(&self) {
        locked(&self.asked).missed = true;
        self.wake.notify_one();
    }

    /// Passes on what was asked for, for ever.
    pub(super) async fn pass_on(&self, tell: impl Fn(Asked)) {
        loop {
            self.wake.notified().await;
            let asked = std::mem::take(&mut *locked(&self.asked));
            if asked == Asked::default() {
                continue;
            }
            let next = Instant::now() + BETWEEN;
            tell(asked);
            sleep_until(next).await;
        }
    }
}

/// Notifications on the channel that no process of this store has sent.
#[derive(Debug)]
pub(super) struct Foreign(Mutex<Arrived>);

#[derive(Debug)]
struct Arrived {
    all: u64,
    tell: Seldom,
}

impl Default for Foreign {
    fn default() -> Self {
        let tell = Seldom::every(TELL);
        Self(Mutex::new(Arrived { all: 0, tell }))
    }
}

impl Foreign {
    /// Notes one, and says so in the log, if that was not said lately.
    pub(super) fn arrived(&self, channel: &str) {
        let mut arrived = locked(&self.0);
        arrived.all = arrived.all.saturating_add(1);
        if !arrived.tell.is_due() {
            return;
        }
        tracing::warn!(
            channel,
            all = arrived.all,
            "{}; {}",
            text(arrived.all),
            CURE
        );
    }

    /// What `pac doctor` says, if any have arrived: the text and the cure.
    pub(super) fn told(&self) -> Option<(String, &'static str)> {
        let all = locked(&self.0).all;
        (all > 0).then(|| (text(all), CURE))
    }
}

fn text(all: u64) -> String {
    format!(
        "{all} notifications came that no process of this store has sent, or not lately; they were \
         passed over"
    )
}

const CURE: &str = "any role that may connect to the database can send them: REVOKE CONNECT ON \
                    DATABASE … FROM PUBLIC, and look for the sender in pg_stat_activity";

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each of these values is whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_causes_four_looks_a_second_and_loses_nothing() {
        let looks = Looks::default();
        let told = Mutex::new(Vec::new());
        let flood = async {
            for n in 0..3_000 {
                looks.session_died();
                if n == 2_999 {
                    looks.missed();
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        tokio::select! {
            () = looks.pass_on(|asked| locked(&told).push(asked)) => {}
            () = flood => {}
        }
        let told = locked(&told);
        assert!((10..=14).contains(&told.len()), "{}", told.len());
        assert!(told.first().unwrap().session_died);
        assert!(told.last().unwrap().missed);
    }

    #[test]
    fn foreign_notifications_are_counted() {
        let foreign = Foreign::default();
        assert_eq!(foreign.told(), None);
        foreign.arrived("pac");
        foreign.arrived("pac");
        assert!(foreign.told().unwrap().0.starts_with("2 notifications"));
    }
}
