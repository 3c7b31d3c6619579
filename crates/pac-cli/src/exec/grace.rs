//! When the command is told to end because its session is not renewed: so early that it is over
//! before anybody else may start.

use std::time::Duration;

use pac_concurrency::{ConcurrencyManager, HOLD_GRACE};
use tokio::time::sleep;

use crate::exit::{Exit, Failure};
use crate::time::humanise;

/// Where `--kill-grace` does not say: this part of the TTL, and no more than [`USUAL_MOST`].
const USUAL_PART: u32 = 5;
const USUAL_MOST: Duration = Duration::from_secs(10);

/// The largest part of the TTL. A session is renewed once a third of its TTL, and counts for nine
/// tenths of it: with a grace of a quarter, a renewal may take almost a third of the TTL, or be refused
/// and tried again for so long, before the command is told to end.
const LARGEST_PART: u32 = 4;

/// How often it is asked whether the session was renewed, in parts of the TTL: a machine that was
/// suspended does not run timers meanwhile.
const LOOKS: u32 = 20;

/// The longest grace of a run with `--max-hold`: [`HOLD_GRACE`] after it was asked to end, its slots are
/// given to others, and it takes a moment to hear of it and another one to kill what has not ended.
const LONGEST_OF_A_TIMED_RUN: Duration = Duration::from_secs(20);
const _: () = assert!(LONGEST_OF_A_TIMED_RUN.as_secs() + 10 <= HOLD_GRACE.as_secs());

/// The time between SIGTERM and SIGKILL, of a run that has `--max-hold` or not.
///
/// # Errors
/// If SIGTERM would have to be sent although the session is renewed as it should be, or SIGKILL would
/// come when the store has given the slots to others.
pub(super) fn kill_grace(
    asked: Option<Duration>,
    ttl: Duration,
    is_timed: bool,
) -> Result<Duration, Failure> {
    match asked {
        None => Ok((ttl / USUAL_PART).min(USUAL_MOST)),
        Some(asked) if is_timed && asked > LONGEST_OF_A_TIMED_RUN => Err(Failure::new(
            Exit::Usage,
            format!(
                "--kill-grace {} with --max-hold: the store gives the slots to others {} after it has \
                 asked the run to end; say {} or less",
                humanise(asked),
                humanise(HOLD_GRACE),
                humanise(LONGEST_OF_A_TIMED_RUN),
            ),
        )),
        Some(asked) if asked <= ttl / LARGEST_PART => Ok(asked),
        Some(asked) => Err(Failure::new(
            Exit::Usage,
            format!(
                "--kill-grace {} is more than a quarter of the TTL, which is {}: SIGKILL comes \
                 before the TTL is over, and SIGTERM not before a renewal has failed for a while; \
                 say --ttl {} or more, or a shorter grace",
                humanise(asked),
                humanise(ttl),
                humanise(asked.saturating_mul(LARGEST_PART)),
            ),
        )),
    }
}

/// Waits until the session of `manager` lasts no longer than `grace` if it is not renewed. Without
/// end while it is. Cancel-safe.
pub(super) async fn expiring(manager: &ConcurrencyManager, ttl: Duration, grace: Duration) {
    loop {
        let left = manager.health().session_remaining;
        match left.checked_sub(grace) {
            Some(left) if !left.is_zero() => sleep(left.min(ttl / LOOKS)).await,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(15);

    #[test]
    fn a_grace_leaves_room_for_a_renewal_that_fails() {
        let seconds = Duration::from_secs;
        assert_eq!(kill_grace(None, TTL, true).unwrap(), seconds(3));
        let hour = seconds(3_600);
        assert_eq!(kill_grace(None, hour, true).unwrap(), seconds(10));
        assert_eq!(kill_grace(Some(TTL / 4), TTL, true).unwrap(), TTL / 4);
        let refused = kill_grace(Some(seconds(6)), TTL, false).unwrap_err();
        for part in ["--kill-grace 6.0s", "15.0s", "--ttl 24.0s"] {
            assert!(refused.to_string().contains(part), "{refused}");
        }
    }
    #[test]
    fn a_run_whose_time_is_limited_is_killed_before_its_slots_are_given_away() {
        let (hour, grace) = (Duration::from_secs(3_600), Some(Duration::from_secs(60)));
        assert_eq!(kill_grace(grace, hour, false).ok(), grace);
        let refused = kill_grace(grace, hour, true).unwrap_err();
        for part in ["--max-hold", "30.0s after", "say 20.0s or less"] {
            assert!(refused.to_string().contains(part), "{refused}");
        }
    }
}
