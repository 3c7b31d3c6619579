//! The JSON objects in a record: terms of runs and policies of repositories. What is in them is not this
//! driver's business, with the exception that a commit puts its time in.

use pac_core::state::UnreadablePart;
use pac_core::{Error, ErrorKind};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{corrupt, shown};

/// One of them, as it is written.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Part(Box<RawValue>);

impl Part {
    /// What its own `to_json` has written.
    pub(super) fn of(json: Option<String>) -> Result<Option<Self>, serde_json::Error> {
        let part = json.map(RawValue::from_string).transpose()?;
        Ok(part.map(Self))
    }

    /// Has its own `from_json` read it.
    ///
    /// # Errors
    /// `Corrupt` or `Incompatible`, naming the key.
    pub(super) fn read<T>(
        &self,
        key: &[u8],
        what: &str,
        read: impl FnOnce(&str) -> Result<T, UnreadablePart>,
    ) -> Result<T, Error> {
        read(self.0.get()).map_err(|error| match error.kind() {
            ErrorKind::Incompatible => {
                error.error("read", format_args!("the {what} of key {}", shown(key)))
            }
            _ => corrupt(key, &format_args!("its {what}: {error}")),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;

    use pac_core::state::{
        Entry, EntryState, Head, Moment, Owner, Policy, Rules, RunKind, Terms, Weight,
    };
    use pac_core::{
        FencingToken, Limit, LimitVersion, PipelineRunKey, Priority, Revision, SessionId, SlotName,
        SlotNames, Ticket, Timestamp, Version,
    };

    use super::*;
    use crate::record::{StoredHead, decode_entry, encode_entry};

    const KEY: &[u8] = b"/pac/v1/heads/ns/web\n";

    fn run() -> PipelineRunKey {
        "ns/run".parse().unwrap()
    }

    fn entry(terms: Option<Terms>) -> Entry {
        Entry {
            run: run(),
            uid: "u".parse().unwrap(),
            kind: RunKind::Durable,
            priority: Priority::default(),
            ticket: Ticket::new(1),
            state: EntryState::Queued { owner: None },
            queued: Moment::of(Timestamp::from_unix_millis(7)),
            started: Moment::NEVER,
            finished: Moment::NEVER,
            terms: terms.map(Box::new),
            revision: Revision::new(9),
        }
    }

    fn stored(policy: Option<Policy>) -> StoredHead {
        StoredHead {
            head: Head {
                policy: policy.map(Arc::new),
                ..Head::absent(3)
            },
            previous: Version::default(),
            by: SessionId::new(1),
        }
    }

    #[test]
    fn terms_and_policies_come_back_as_they_were() {
        let mut all = Terms::NONE;
        all.weight = Weight::new(3).unwrap();
        all.group = Some("pull/7 \"ü\"".parse().unwrap());
        all.asked = Moment::of(Timestamp::from_unix_millis(8));
        all.admitted_as = Some(Priority::new(-1));
        for terms in [None, Some(Terms::NONE), Some(all)] {
            let entry = entry(terms);
            let value = encode_entry(&entry).unwrap();
            let read = decode_entry(run(), KEY, &value, entry.revision);
            assert_eq!(read.unwrap(), entry);
        }
        let all = r#"{"beneath":{"limit":2,"owner":"announced"},"max_queued":0,"needs":3,"owner":"pinned","paused":9,"reason":"the \"store\" moves","surplus":4294967295}"#;
        let all = Policy::from_json(all).unwrap();
        for policy in [None, Some(Policy::default()), Some(all)] {
            let stored = stored(policy);
            let value = stored.encode().unwrap();
            let read = StoredHead::decode(KEY, &value, stored.head.revision);
            assert_eq!(read.unwrap().head, stored.head);
        }
    }

    /// A record that no reader takes would make its repository unreadable for good.
    #[test]
    fn the_longest_records_are_read_and_longer_ones_are_not_written() {
        let name = |n: usize| format!("{n:x>63}").parse::<SlotName>().unwrap();
        let names = SlotNames::new((0..SlotNames::MOST).map(name)).unwrap();
        let mut rules = Rules::limit(Limit::new(u32::MAX));
        rules.max_queued = Some(u32::MAX);
        rules.backfill = NonZeroU32::new(u32::MAX);
        rules.slots = Some(names);
        let pause = format!(
            r#"{{"paused":{},"reason":"{}"}}"#,
            i64::MAX,
            r#"\""#.repeat(500)
        );
        let mut policy = Policy::from_json(&pause).unwrap();
        policy.owner = Some(Owner::Announced);
        policy.beneath = Some((rules.clone(), Owner::Announced));
        rules.limit = Limit::UNLIMITED;
        policy.rules = rules;
        (policy.surplus, policy.needs, policy.timed) = (u32::MAX, u32::MAX, u32::MAX);
        let mut longest = stored(Some(policy));
        longest.head.last_ticket = Ticket::new(u64::MAX);
        longest.head.last_token = FencingToken::new(u64::MAX);
        (longest.head.queued, longest.head.started) = (u32::MAX, u32::MAX);
        longest.head.limit = Limit::new(u32::MAX);
        longest.head.limit_version = Some(LimitVersion::new(u64::MAX));
        let value = longest.encode().unwrap();
        let read = StoredHead::decode(KEY, &value, longest.head.revision).unwrap();
        assert_eq!(read.head, longest.head);
        // Whoever makes it longer breaks a rule of another crate.
        let mut terms = Terms::NONE;
        terms.numbered = true;
        for (numbers, is_written) in [(256, true), (10_000, false)] {
            terms.slots = vec![u32::MAX; numbers];
            let entry = entry(Some(terms.clone()));
            match encode_entry(&entry) {
                Ok(value) => {
                    let read = decode_entry(run(), KEY, &value, entry.revision);
                    assert_eq!((read.unwrap(), is_written), (entry, true));
                }
                Err(refused) => {
                    assert_eq!((refused.kind(), is_written), (ErrorKind::Internal, false));
                }
            }
        }
    }

    #[test]
    fn what_none_is_asked_for_takes_no_bytes_and_objects_are_no_strings() {
        let text = |value: Vec<u8>| String::from_utf8(value).unwrap();
        let plain = text(encode_entry(&entry(None)).unwrap());
        assert_eq!(plain, r#"[1,"u",{"queued":null},1,7]"#);
        let mut heavy = Terms::NONE;
        heavy.weight = Weight::new(2).unwrap();
        let heavy = text(encode_entry(&entry(Some(heavy))).unwrap());
        let expected = r#"[1,"u",{"queued":null},1,7,null,null,0,false,{"weight":2}]"#;
        assert_eq!(heavy, expected);
        let before = text(stored(None).encode().unwrap());
        assert!(before.ends_with(r#","0000000000000000",3,3]"#), "{before}");
        let mut stored = stored(Some(Policy::default()));
        stored.head.limit_version = Some(LimitVersion::new(4));
        let after = text(stored.encode().unwrap());
        assert!(after.ends_with(",3,3,0,0,0,4,{}]"), "{after}");
    }

    #[test]
    fn what_is_newer_or_broken_names_its_key_and_is_not_passed_over() {
        for (part, kind) in [
            (r#"{"colour":"red"}"#, ErrorKind::Incompatible),
            (r#"{"weight":2,"colour":null}"#, ErrorKind::Incompatible),
            (r#"{"weight":0}"#, ErrorKind::Corrupt),
            (r#"{"surplus":-1}"#, ErrorKind::Corrupt),
            (r#""{}""#, ErrorKind::Corrupt),
            ("[]", ErrorKind::Corrupt),
            ("7", ErrorKind::Corrupt),
        ] {
            let run_value = format!(r#"[1,"u",{{"queued":null}},1,7,null,null,0,false,{part}]"#);
            let read = decode_entry(run(), KEY, run_value.as_bytes(), Revision::new(9));
            let stamp = "00000000000000ab";
            let head_value =
                format!(r#"[1,"{stamp}","{stamp}",1,"{stamp}",3,3,0,0,0,null,{part}]"#);
            let head = StoredHead::decode(KEY, head_value.as_bytes(), Revision::new(9));
            for error in [read.map(drop).err(), head.map(drop).err()] {
                // Each field is one of only one of the two.
                let Some(error) = error.filter(|error| error.kind() == kind) else {
                    assert!(
                        part.contains("weight") || part.contains("surplus"),
                        "{part}"
                    );
                    continue;
                };
                let said = error.to_string();
                assert!(said.contains(r"/pac/v1/heads/ns/web\n"), "{said}");
                let is_newer = kind == ErrorKind::Incompatible;
                assert_eq!(said.contains("colour"), is_newer, "{said}");
            }
        }
        // Without any, as they were written before there were any.
        let none = br#"[1,"u",{"queued":null},1,7,null,null,0,false,null]"#;
        let read = decode_entry(run(), KEY, none, Revision::new(9)).unwrap();
        assert_eq!(read, entry(None));
    }
}
