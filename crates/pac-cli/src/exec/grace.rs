//! When the command is told to end because its session is not renewed: so early that it is over
//! before anybody else may start.

use std::time::Duration;

use pac_concurrency::ConcurrencyManager;
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

/// The time between SIGTERM and SIGKILL.
///
/// # Errors
/// If SIGTERM would have to be sent although the session is renewed as it should be.
pub(super) fn kill_grace(asked: Option<Duration>, ttl: Duration) -> Result<Duration, Failure> {
    match asked {
        None => Ok((ttl / USUAL_PART).min(USUAL_MOST)),
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
        assert_eq!(kill_grace(None, TTL).unwrap(), seconds(3));
        assert_eq!(kill_grace(None, seconds(3_600)).unwrap(), seconds(10));
        assert_eq!(kill_grace(Some(TTL / 4), TTL).unwrap(), TTL / 4);
        let refused = kill_grace(Some(seconds(6)), TTL).unwrap_err();
        for part in ["--kill-grace 6.0s", "15.0s", "--ttl 24.0s"] {
            assert!(refused.to_string().contains(part), "{refused}");
        }
    }
}
