//! Hints that are to be sent: merged, and in as few payloads as they fit into.

use std::collections::HashMap;
use std::fmt::Write;

use pac_core::hints::Reached;
use pac_core::{RepositoryKey, Revision, SessionId};

use super::seal;

/// Most repositories to tell of. With more, it is quicker that each process reads all that it uses.
const MOST: usize = 10_000;

/// One hint.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hint {
    Changed(SessionId, RepositoryKey, Reached),
    SessionDied,
    Missed,
}

/// Hints that have not been sent yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    changed: HashMap<RepositoryKey, (SessionId, Reached)>,
    session_died: bool,
    missed: bool,
    urgent: bool,
}

impl Outbox {
    pub(super) fn changed(
        &mut self,
        by: SessionId,
        repository: &RepositoryKey,
        reached: Reached,
        urgent: bool,
    ) {
        self.urgent |= urgent;
        if self.changed.len() >= MOST {
            return self.missed();
        }
        let hint = self
            .changed
            .entry(repository.clone())
            .or_insert((by, reached));
        hint.1 = hint.1.later(reached);
        if hint.0 != by {
            hint.0 = SessionId::new(0);
        }
    }

    pub(super) fn session_died(&mut self) {
        self.session_died = true;
        self.urgent = true;
    }

    /// Replaces all hints by one that says that hints were lost.
    pub(super) fn missed(&mut self) {
        self.changed.clear();
        self.missed = true;
        self.urgent = true;
    }

    /// Whether a waiter may depend on one of these hints.
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Whether more than one repository has changed.
    pub(super) fn holds_several(&self) -> bool {
        self.changed.len() > 1
    }

    /// Takes all hints, as texts that each fit into a payload.
    pub(super) fn take(&mut self) -> Vec<String> {
        let taken = std::mem::take(self);
        let mut texts = Vec::new();
        let mut text = String::new();
        for (set, word) in [(taken.missed, "m"), (taken.session_died, "d")] {
            if set {
                text.push_str(word);
                text.push(' ');
            }
        }
        for (repository, (by, reached)) in taken.changed {
            if text.len() + repository.as_str().len() + 48 > seal::MOST {
                texts.push(std::mem::take(&mut text));
            }
            // Writing to a string does not fail.
            let word = if reached.startable { 's' } else { 'c' };
            let revision = reached.revision;
            let _ = write!(text, "{word}{by}:{revision}:{repository} ");
        }
        if !text.is_empty() {
            texts.push(text);
        }
        texts
    }
}

/// The hint in a text; `None` if it is nothing that this software sends.
pub(super) fn parse(hint: &str) -> Option<Hint> {
    match hint {
        "d" => return Some(Hint::SessionDied),
        "m" => return Some(Hint::Missed),
        _ => {}
    }
    let (startable, rest) = match hint.strip_prefix('s') {
        Some(rest) => (true, rest),
        None => (false, hint.strip_prefix('c')?),
    };
    let mut parts = rest.splitn(3, ':');
    let by = parts.next()?.parse().ok()?;
    let revision = parts.next()?.parse().ok()?;
    let repository = parts.next()?.parse().ok()?;
    Some(Hint::Changed(
        SessionId::new(by),
        repository,
        Reached {
            revision: Revision::new(revision),
            startable,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: usize) -> RepositoryKey {
        let long = "x".repeat(60);
        format!("{long}/{long}.{long}.{n}").parse().unwrap()
    }

    /// Even revisions have something that could start.
    fn reached(revision: u64) -> Reached {
        Reached {
            revision: Revision::new(revision),
            startable: revision.is_multiple_of(2),
        }
    }

    fn hints(outbox: &mut Outbox) -> Vec<Hint> {
        let texts = outbox.take();
        assert!(texts.iter().all(|text| text.len() <= seal::MOST));
        let hints = texts.iter().flat_map(|text| text.split(' '));
        hints.filter_map(parse).collect()
    }

    #[test]
    fn every_repository_is_told_once_in_texts_that_fit() {
        let mut outbox = Outbox::default();
        let by = SessionId::new(7);
        for revision in [1, 3, 2] {
            for n in 0..300 {
                outbox.changed(by, &key(n), reached(revision), false);
            }
        }
        assert!(!outbox.is_urgent());
        outbox.changed(SessionId::new(8), &key(0), reached(4), true);
        assert!(outbox.is_urgent());
        outbox.session_died();
        let hints = hints(&mut outbox);
        assert_eq!(hints.len(), 301);
        let several = SessionId::new(0);
        assert!(hints.contains(&Hint::Changed(several, key(0), reached(4))));
        assert!(hints.contains(&Hint::Changed(by, key(299), reached(3))));
        assert!(hints.contains(&Hint::SessionDied));
        assert!(outbox.take().is_empty());
    }

    #[test]
    fn what_could_not_be_told_is_said_to_be_missed() {
        let mut outbox = Outbox::default();
        outbox.changed(SessionId::new(1), &key(1), reached(1), false);
        outbox.missed();
        assert_eq!(hints(&mut outbox), [Hint::Missed]);
    }

    #[test]
    fn what_others_send_is_no_hint() {
        for text in [
            "",
            "c",
            "c1",
            "c1:2",
            "c1:2:no-slash",
            "c-1:2:ns/a",
            "x",
            "c1:2:NS/A",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
