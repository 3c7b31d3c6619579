//! The keys of everything that the driver stores.
//!
//! | key, after the prefix | value |
//! | --- | --- |
//! | `heads/<namespace>/<name>` | the head of a repository |
//! | `entries/<namespace>/<name>/<namespace of run>/<run>` | a run |
//! | `sessions/<id>/record` | a session, until it is forgotten |
//! | `sessions/<id>/alive` | empty, on an etcd lease; exists while the session lives |
//! | `sessions/<id>/lease` | empty, on an etcd lease; exists while durable runs keep slots |
//! | `signs/<id>` | empty; written anew about once per session TTL by the process of the session |
//! | `held/<id>/<namespace>/<name>` | empty; the session may have runs in that repository |
//! | `removed/<namespace>/<name>` | up to which ticket runs of a removed repository are left behind; there until they are deleted |
//! | `floor` | the highest ticket or token of any removed repository; new ones count on from it |
//! | `migrated/<layout>` | empty; the state of an older layout was brought along |
//! | `finished` | how many runs were put on the etcd lease that it is on, which takes more |
//! | `compaction` | empty; written by the process that compacts the store |
//! | `never` | never written: named in writes that must not happen |
//!
//! No part of a name contains a slash. So no two things have the same key, and the keys of one
//! repository's entries never start like those of another's.

use pac_core::{Error, ErrorKind, PipelineRunKey, RepositoryKey, SessionId};

/// Makes keys under one prefix, and takes them apart.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    prefix: String,
}

/// What a key stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Head(RepositoryKey),
    Entry(RepositoryKey, PipelineRunKey),
    Record(SessionId),
    Alive(SessionId),
    Lease(SessionId),
    Sign(SessionId),
    Held(SessionId, RepositoryKey),
    Removed(RepositoryKey),
    Floor,
}

impl Keys {
    /// # Errors
    /// `Config` for a prefix that would be hard to type or to grant a role for.
    pub(crate) fn new(prefix: &str) -> Result<Self, Error> {
        let mut prefix = prefix.to_owned();
        if !prefix.ends_with('/') {
            prefix.push('/');
        }
        let plain = |c: char| c.is_ascii_graphic();
        if prefix.len() < 2 || prefix.len() > 256 || !prefix.chars().all(plain) {
            let message = format!(
                "prefix {prefix:?}: must be 1 to 255 visible ASCII characters, such as /pac/v1/"
            );
            return Err(Error::new(ErrorKind::Config, "connect", message));
        }
        Ok(Self { prefix })
    }

    /// What all keys start with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn head(&self, repository: &RepositoryKey) -> String {
        format!("{}heads/{repository}", self.prefix)
    }

    /// What the keys of all heads start with.
    pub(crate) fn heads(&self) -> String {
        format!("{}heads/", self.prefix)
    }

    pub(crate) fn entry(&self, repository: &RepositoryKey, run: &PipelineRunKey) -> String {
        format!("{}entries/{repository}/{run}", self.prefix)
    }

    /// What the keys of a repository's entries start with, and no other key.
    pub(crate) fn entries(&self, repository: &RepositoryKey) -> String {
        format!("{}entries/{repository}/", self.prefix)
    }

    pub(crate) fn record(&self, session: SessionId) -> String {
        format!("{}sessions/{:016x}/record", self.prefix, session.get())
    }

    pub(crate) fn alive(&self, session: SessionId) -> String {
        format!("{}sessions/{:016x}/alive", self.prefix, session.get())
    }

    pub(crate) fn lease(&self, session: SessionId) -> String {
        format!("{}sessions/{:016x}/lease", self.prefix, session.get())
    }

    pub(crate) fn sign(&self, session: SessionId) -> String {
        format!("{}signs/{:016x}", self.prefix, session.get())
    }

    /// What the keys of all sessions start with.
    pub(crate) fn sessions(&self) -> String {
        format!("{}sessions/", self.prefix)
    }

    pub(crate) fn held(&self, session: SessionId, repository: &RepositoryKey) -> String {
        format!("{}held/{:016x}/{repository}", self.prefix, session.get())
    }

    /// The range of all keys of sessions, their signs included: its first key, and the first key
    /// after it.
    pub(crate) fn sessions_and_signs(&self) -> (String, String) {
        (self.sessions(), end_of(&format!("{}signs/", self.prefix)))
    }

    /// The range of all keys but the signs, of which nobody wants to hear each time that they are
    /// written.
    pub(crate) fn all_but_signs(&self) -> (String, String) {
        (self.prefix.clone(), format!("{}signs/", self.prefix))
    }

    /// What the `held` keys of a session start with.
    pub(crate) fn held_by(&self, session: SessionId) -> String {
        format!("{}held/{:016x}/", self.prefix, session.get())
    }

    /// Says that runs of a removed repository are left behind.
    pub(crate) fn removed(&self, repository: &RepositoryKey) -> String {
        format!("{}removed/{repository}", self.prefix)
    }

    /// What the keys of all these start with.
    pub(crate) fn all_removed(&self) -> String {
        format!("{}removed/", self.prefix)
    }

    pub(crate) fn floor(&self) -> String {
        format!("{}floor", self.prefix)
    }

    pub(crate) fn migrated(&self, layout: &str) -> String {
        format!("{}migrated/{layout}", self.prefix)
    }

    pub(crate) fn finished(&self) -> String {
        format!("{}finished", self.prefix)
    }

    pub(crate) fn compaction(&self) -> String {
        format!("{}compaction", self.prefix)
    }

    pub(crate) fn never(&self) -> String {
        format!("{}never", self.prefix)
    }

    /// What a key stands for; `None` for a key that this driver does not write.
    pub(crate) fn place(&self, key: &[u8]) -> Option<Place> {
        let key = std::str::from_utf8(key).ok()?;
        let key = key.strip_prefix(&self.prefix)?;
        let Some((kind, rest)) = key.split_once('/') else {
            return (key == "floor").then_some(Place::Floor);
        };
        match kind {
            "heads" => Some(Place::Head(rest.parse().ok()?)),
            "entries" => {
                let second = rest.match_indices('/').nth(1)?.0;
                let (repository, run) = rest.split_at_checked(second)?;
                let run = run.strip_prefix('/')?;
                Some(Place::Entry(repository.parse().ok()?, run.parse().ok()?))
            }
            "sessions" => {
                let (id, part) = rest.split_once('/')?;
                let id = session(id)?;
                match part {
                    "record" => Some(Place::Record(id)),
                    "alive" => Some(Place::Alive(id)),
                    "lease" => Some(Place::Lease(id)),
                    _ => None,
                }
            }
            "removed" => Some(Place::Removed(rest.parse().ok()?)),
            "signs" => Some(Place::Sign(session(rest)?)),
            "held" => {
                let (id, repository) = rest.split_once('/')?;
                Some(Place::Held(session(id)?, repository.parse().ok()?))
            }
            _ => None,
        }
    }
}

/// The end of the range of all keys that start with `prefix`, which ends with a slash.
pub(crate) fn end_of(prefix: &str) -> String {
    // The character after the slash.
    format!("{}0", prefix.strip_suffix('/').unwrap_or(prefix))
}

/// The first key after this one.
pub(crate) fn after(key: &[u8]) -> Vec<u8> {
    [key, b"\0"].concat()
}

fn session(id: &str) -> Option<SessionId> {
    hexadecimal(id).map(SessionId::new)
}

/// A number as it is written in keys and values: 16 digits, in lower case.
pub(crate) fn hexadecimal(text: &str) -> Option<u64> {
    let plain = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    let well_formed = text.len() == 16 && text.bytes().all(plain);
    well_formed.then(|| u64::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const NAMES: [&str; 10] = [
        "team/web",
        "team/web-api",
        "team/web.api",
        "team-web/api",
        "tea/m-web",
        "heads/entries",
        "entries/heads",
        "held/floor",
        "0/0",
        "sessions/record",
    ];

    #[test]
    fn every_key_leads_back_to_its_place_and_to_no_other() {
        let keys = Keys::new("/pac/v1").unwrap();
        let mut seen = BTreeSet::new();
        let mut check = |key: String, place: Place| {
            assert_eq!(keys.place(key.as_bytes()), Some(place), "{key}");
            assert!(seen.insert(key.clone()), "{key} twice");
        };
        check(keys.floor(), Place::Floor);
        for id in [0, 1, u64::MAX].map(SessionId::new) {
            check(keys.record(id), Place::Record(id));
            check(keys.alive(id), Place::Alive(id));
            check(keys.lease(id), Place::Lease(id));
            check(keys.sign(id), Place::Sign(id));
        }
        for name in NAMES {
            let repository: RepositoryKey = name.parse().unwrap();
            check(keys.head(&repository), Place::Head(repository.clone()));
            let removed = Place::Removed(repository.clone());
            check(keys.removed(&repository), removed);
            let id = SessionId::new(7);
            check(
                keys.held(id, &repository),
                Place::Held(id, repository.clone()),
            );
            for run in NAMES {
                let run: PipelineRunKey = run.parse().unwrap();
                let place = Place::Entry(repository.clone(), run.clone());
                check(keys.entry(&repository, &run), place);
            }
        }
    }

    #[test]
    fn the_range_of_a_repository_holds_its_entries_alone() {
        let keys = Keys::new("/pac/v1/").unwrap();
        let run: PipelineRunKey = "team/web".parse().unwrap();
        for name in NAMES {
            let repository: RepositoryKey = name.parse().unwrap();
            let start = keys.entries(&repository);
            let range = start.clone()..end_of(&start);
            for other in NAMES {
                let entry = keys.entry(&other.parse().unwrap(), &run);
                assert_eq!(range.contains(&entry), name == other, "{entry}");
            }
        }
    }

    #[test]
    fn signs_come_after_all_that_a_watch_tells_and_beside_the_sessions() {
        let keys = Keys::new("/pac/v1/").unwrap();
        let (told, swept) = (keys.all_but_signs(), keys.sessions_and_signs());
        let web: RepositoryKey = "team/web".parse().unwrap();
        for id in [0, u64::MAX].map(SessionId::new) {
            let of_session = [keys.record(id), keys.alive(id), keys.lease(id)];
            for key in of_session.iter().chain([&keys.sign(id)]) {
                assert!(*key >= swept.0 && *key < swept.1, "{key}");
            }
            assert!(keys.sign(id) >= told.1);
            let others = [keys.head(&web), keys.held(id, &web), keys.floor()];
            for key in of_session.iter().chain(&others) {
                assert!(*key >= told.0 && *key < told.1, "{key}");
            }
        }
    }

    #[test]
    fn foreign_keys_have_no_place() {
        let keys = Keys::new("/pac/v1/").unwrap();
        for key in [
            "",
            "/pac/v1/",
            "/pac/v1/x",
            "/pac/v1/heads/",
            "/pac/v1/heads/a",
            "/pac/v1/heads/a/b/c",
            "/pac/v1/heads/A/b",
            "/pac/v1/removed/a",
            "/pac/v1/entries/a/b",
            "/pac/v1/entries/a/b/c",
            "/pac/v1/entries/a/b/c/d/e",
            "/pac/v1/sessions/1/alive",
            "/pac/v2/floor",
            "/pac/v1/sessions/00000000000000zz/alive",
            "/pac/v1/floor/x",
            "/pac/v1/sessions/0000000000000001/x",
            "/pac/v1/signs/1",
            "/pac/v1/sessions/+000000000000001/alive",
        ] {
            assert_eq!(keys.place(key.as_bytes()), None, "{key}");
        }
        assert_eq!(keys.place(b"/pac/v1/heads/\xff/b"), None);
    }

    #[test]
    fn a_prefix_is_plain() {
        assert_eq!(Keys::new("/x").unwrap().prefix(), "/x/");
        for prefix in ["", "/", "a b", "/é/", "/a\n/", &"x".repeat(300)] {
            let error = Keys::new(prefix).unwrap_err();
            assert!(error.to_string().contains("visible ASCII"), "{error}");
        }
    }
}
