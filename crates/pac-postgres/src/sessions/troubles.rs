//! Sessions that looks for dead ones could not see to, and what is said of them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use pac_core::pauses::Seldom;

/// Commits take some milliseconds. A session that is due and has been locked for longer than this is
/// worth a word.
const STUCK: Duration = Duration::from_secs(5);
/// The time between two lines in the log about them.
const TELL: Duration = Duration::from_secs(60);
/// Most sessions that a message names.
pub(super) const NAMED: i64 = 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Troubles {
    /// Those that are due and locked, each since when.
    locked: HashMap<i64, Instant>,
    /// Those whose TTLs or number no commit of this software has written.
    unsound: Vec<i64>,
    tell_locked: Seldom,
    tell_unsound: Seldom,
}

impl Default for Troubles {
    fn default() -> Self {
        Self {
            locked: HashMap::new(),
            unsound: Vec::new(),
            tell_locked: Seldom::every(TELL),
            tell_unsound: Seldom::every(TELL),
        }
    }
}

impl Troubles {
    /// Takes in what the latest look found.
    pub(super) fn note(&mut self, locked: &[i64], unsound: Vec<i64>) {
        let now = Instant::now();
        self.locked.retain(|session, _| locked.contains(session));
        for session in locked {
            self.locked.entry(*session).or_insert(now);
        }
        self.unsound = unsound;
    }

    /// What is to be said in the log now, if anything: the text and the cure. If there is more, the
    /// next call gives it.
    pub(super) fn tell(&mut self, schema: &str) -> Option<(String, String)> {
        if !self.unsound.is_empty() && self.tell_unsound.is_due() {
            return Some(unsound(&self.unsound, schema));
        }
        let stuck = self.locked.iter();
        let stuck = stuck.filter(|(_, since)| since.elapsed() >= STUCK);
        let stuck: Vec<i64> = stuck.map(|(session, _)| *session).collect();
        if !stuck.is_empty() && self.tell_locked.is_due() {
            return Some(locked(&stuck, schema));
        }
        None
    }
}

/// What is wrong with sessions that cannot be declared dead because their rows stay locked.
fn locked(sessions: &[i64], schema: &str) -> (String, String) {
    (
        format!(
            "sessions {} of {schema} are due to be declared dead, but transactions hold their rows \
             locked: their runs keep their slots meanwhile",
            named(sessions)
        ),
        format!(
            "look in pg_stat_activity for transactions that have been open for long and use \
             {schema}, and end them (SELECT pg_catalog.pg_terminate_backend(pid))"
        ),
    )
}

/// What is wrong with sessions whose rows this software has not written.
pub(super) fn unsound(sessions: &[i64], schema: &str) -> (String, String) {
    (
        format!(
            "sessions {} of {schema} have a number that is not above zero, or a TTL that is not \
             between 1 ms and 366 days, which this software never writes: they can neither be \
             renewed nor declared dead, and their runs keep their slots",
            named(sessions)
        ),
        format!(
            "UPDATE {schema}.sessions SET session_ttl = 15000, lease_ttl = 3600000 WHERE id = …, \
             and they die by themselves; DELETE those whose number is not above zero"
        ),
    )
}

fn named(sessions: &[i64]) -> String {
    let most = usize::try_from(NAMED).unwrap_or(usize::MAX);
    let names = sessions.iter().take(most).map(ToString::to_string);
    let mut named = names.collect::<Vec<_>>().join(", ");
    if sessions.len() > most {
        named.push_str(&format!(" and {} more", sessions.len() - most));
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_understood_is_named_at_once_and_not_all_the_time() {
        let mut troubles = Troubles::default();
        troubles.note(&[], Vec::new());
        assert_eq!(troubles.tell("\"pac\""), None);
        troubles.note(&[5], (1..=30).collect());
        let (text, cure) = troubles.tell("\"pac\"").unwrap();
        assert!(text.contains("20 and 10 more"), "{text}");
        assert!(cure.contains("UPDATE \"pac\".sessions"), "{cure}");
        assert_eq!(troubles.tell("\"pac\""), None);
    }

    #[test]
    fn a_commit_under_way_is_not_worth_a_word() {
        let mut troubles = Troubles::default();
        troubles.note(&[5, 6], Vec::new());
        assert_eq!(troubles.tell("\"pac\""), None);
        let long_ago = Instant::now().checked_sub(STUCK).unwrap();
        troubles.locked.insert(6, long_ago);
        troubles.note(&[6], Vec::new());
        // One that cannot be understood does not hide it.
        troubles.note(&[6], vec![7]);
        for first in ["sessions 7 of", "sessions 6 of"] {
            let (text, _) = troubles.tell("\"pac\"").unwrap();
            assert!(text.starts_with(first), "{text}");
        }
        assert_eq!(troubles.tell("\"pac\""), None);
    }
}
