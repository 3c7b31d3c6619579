//! The values of the keys. Each is a JSON array of its format and the fields below, in this order.
//! Fields at its end that have their defaults are left out.
//!
//! | record | fields after the format |
//! | --- | --- |
//! | head | stamp; the session that wrote it; the revision and the stamp of the version that it was planned at; last ticket; last token; queued runs; started runs; limit, 0: none; version of the limit; policy |
//! | run | uid; state; ticket; when it was queued, started and finished; priority; whether it is ephemeral; terms |
//! | session | session TTL; lease TTL; in seconds, as etcd granted them; program; version; host; pid, 0: not known; when it was opened |
//! | floor | stamp; the highest ticket or token of any removed repository |
//! | removed | the highest ticket or token of any removed repository, this one included |
//!
//! Stamps and sessions are written in 16 hexadecimal digits, the latter as in the keys. A run was
//! queued so many milliseconds after the Unix epoch, and started and finished so many after that;
//! `null`: never. Its terms and the policy of a head are JSON objects, as
//! [`Terms`](pac_core::state::Terms) and [`Policy`](pac_core::state::Policy) write them; most records
//! have none. Of these, a field that is not known is no field to pass over: what it says may decide
//! who may run. A run's state is one of
//!
//! | state | is written |
//! | --- | --- |
//! | queued | `{"queued":"<owner>"}`, or `{"queued":null}` without one |
//! | started | `{"started":[<token>,"<session>"]}`; `orphaned` instead if that session is dead |
//! | finished | `{"completed":[<token>]}`, or `failed`, `cancelled`, `expired`, `superseded`, `timed-out`, `queue-full`; `null` for a run that never started; a second field `true` for one that its asker gave up |
//!
//! ```text
//! [1,"a5484a1c1abeb497","72c8a22bc183d846",46317,"2916393cc5624eeb",2,1,1,1,1]
//! [1,"4fd0b1ad-7b7d-4c0d-a2c0-2c7e44a08f3b",{"started":[1,"72c8a22bc183d846"]},1,1796034501199,0]
//! [1,"9a1d",{"queued":null},2,1796034501203,null,null,0,false,{"group":"pull/7","weight":2}]
//! ```

mod entry;
mod fields;
mod part;
mod session;
mod stamp;

use std::fmt::Display;
use std::sync::Arc;

use pac_core::state::{Head, Policy};
use pac_core::{
    Error, ErrorKind, FencingToken, Limit, LimitVersion, MAX_COUNTER, Revision, SessionId, Stamp,
    Ticket, Version,
};
use serde::de::SeqAccess;

pub(crate) use entry::{decode_entry, encode_entry};
use fields::{Fields, Hex, Read, Record, Writer};
use part::Part;
pub(crate) use session::{decode_session, encode_session};
use stamp::check_beginning;
pub(crate) use stamp::{is_stamped, new_stamp};

/// The format that this software writes and reads.
const FORMAT: u64 = 1;

/// The longest value that is read or written, in bytes. Most have less than 200; the longest are those
/// of repositories whose slots have names, with 256 of 63 bytes in force and as many beneath a pin.
const MAX_BYTES: usize = 64 * 1024;

/// The cure for a record of one repository.
const OF_REPOSITORY: &str = "repair it, or remove the keys of the repository";

/// Most bytes of a key that a message shows.
const SHOWN: usize = 200;

/// A head as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct StoredHead {
    pub(crate) head: Head,
    /// The version that it was planned at.
    pub(crate) previous: Version,
    /// The session that wrote it.
    pub(crate) by: SessionId,
}

impl StoredHead {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        let head = &self.head;
        let write = || {
            let record = Writer::new()
                .field(&Hex(head.stamp.get()))?
                .field(&Hex(self.by.get()))?
                .field(&self.previous.revision.get())?
                .field(&Hex(self.previous.stamp.get()))?
                .field_or_default(&head.last_ticket.get())?
                .field_or_default(&head.last_token.get())?
                .field_or_default(&head.queued)?
                .field_or_default(&head.started)?
                .field_or_default(&head.limit.get().unwrap_or(0))?
                .field_or_default(&head.limit_version.map(LimitVersion::get))?
                .field_or_null(Part::of(head.policy.as_deref().map(Policy::to_json))?.as_ref())?;
            Ok(record.end())
        };
        encoded(write())
    }

    /// # Errors
    /// `Corrupt` or `Incompatible`, naming the key.
    pub(crate) fn decode(key: &[u8], value: &[u8], revision: Revision) -> Result<Self, Error> {
        let (mut stored, policy): (Self, Option<Part>) = decode(key, value)?;
        check_beginning::<(Self, Option<Part>)>(key, value, stored.head.stamp)?;
        let policy = policy.map(|part| part.read(key, "policy", Policy::from_json));
        stored.head.policy = policy.transpose()?.map(Arc::new);
        stored.head.revision = revision;
        Ok(stored)
    }
}

/// With its policy, which is read once it is known which key it is of.
impl Record for (StoredHead, Option<Part>) {
    const NAME: &'static str = "repository";

    fn read<'de, A: SeqAccess<'de>>(fields: &mut Fields<A>) -> Result<Self, A::Error> {
        let stamp = Stamp::new(fields.next::<Hex>("stamp")?.0);
        let by = SessionId::new(fields.next::<Hex>("session")?.0);
        let previous = Revision::new(fields.next("previous revision")?);
        let previous = Version::new(
            previous,
            Stamp::new(fields.next::<Hex>("previous stamp")?.0),
        );
        let stored = StoredHead {
            head: Head {
                revision: Revision::default(),
                stamp,
                last_ticket: Ticket::new(fields.next_or_default()?),
                last_token: FencingToken::new(fields.next_or_default()?),
                queued: fields.next_or_default()?,
                started: fields.next_or_default()?,
                limit: Limit::new(fields.next_or_default()?),
                limit_version: fields
                    .next_or_default::<Option<_>>()?
                    .map(LimitVersion::new),
                policy: None,
            },
            previous,
            by,
        };
        Ok((stored, fields.next_or_default()?))
    }
}

pub(crate) fn encode_floor(given_out: u64, stamp: Stamp) -> Result<Vec<u8>, Error> {
    let write = || {
        let record = Writer::new().field(&Hex(stamp.get()))?.field(&given_out)?;
        Ok(record.end())
    };
    encoded(write())
}

struct FloorRecord {
    stamp: Stamp,
    given_out: u64,
}

impl Record for FloorRecord {
    const NAME: &'static str = "floor";
    const CURE: &'static str = "write [1,\"<16 hexadecimal digits>\",<number>] there, with the \
        largest fencing token that is known; never delete it, or fencing tokens come twice";

    fn read<'de, A: SeqAccess<'de>>(fields: &mut Fields<A>) -> Result<Self, A::Error> {
        Ok(Self {
            stamp: Stamp::new(fields.next::<Hex>("stamp")?.0),
            given_out: fields.next("number given out")?,
        })
    }
}

/// The highest ticket or token of any removed repository, from which a new one counts on; and the
/// stamp of the removal.
pub(crate) fn decode_floor(key: &[u8], value: &[u8]) -> Result<(u64, Stamp), Error> {
    let record: FloorRecord = decode(key, value)?;
    check_beginning::<FloorRecord>(key, value, record.stamp)?;
    if record.given_out > MAX_COUNTER {
        let message = format!(
            "key {} says that new repositories count on from {}, which must be at most \
             {MAX_COUNTER} (2^62): another program wrote it; set its last field to the largest \
             fencing token that is known",
            shown(key),
            record.given_out
        );
        return Err(Error::new(ErrorKind::Corrupt, "read", message));
    }
    Ok((record.given_out, record.stamp))
}

/// What says that runs of a removed repository are left behind: with which tickets at most.
pub(crate) fn encode_removed(given_out: u64) -> Result<Vec<u8>, Error> {
    let write = || Ok(Writer::new().field(&given_out)?.end());
    encoded(write())
}

struct RemovedRecord {
    given_out: u64,
}

impl Record for RemovedRecord {
    const NAME: &'static str = "removal";
    const CURE: &'static str = "write [1,<number>] there, with the largest fencing token or ticket \
        that was known when the repository was removed";

    fn read<'de, A: SeqAccess<'de>>(fields: &mut Fields<A>) -> Result<Self, A::Error> {
        Ok(Self {
            given_out: fields.next("number given out")?,
        })
    }
}

/// The highest ticket that a run may have which the removal of its repository has left behind.
pub(crate) fn decode_removed(key: &[u8], value: &[u8]) -> Result<Ticket, Error> {
    let record: RemovedRecord = decode(key, value)?;
    Ok(Ticket::new(record.given_out))
}

/// # Errors
/// `Internal` for what no reader would take: to write it would make the record unreadable for good.
fn encoded(written: Result<Vec<u8>, serde_json::Error>) -> Result<Vec<u8>, Error> {
    let refused = |message: String| Error::new(ErrorKind::Internal, "encode", message);
    let value = written.map_err(|error| {
        refused("a record cannot be written as JSON".to_owned()).caused_by(error)
    })?;
    if value.len() > MAX_BYTES {
        return Err(refused(format!(
            "a record would have {} bytes, and must have at most {MAX_BYTES}; nothing was written",
            value.len()
        )));
    }
    Ok(value)
}

fn decode<T: Record>(key: &[u8], value: &[u8]) -> Result<T, Error> {
    if value.len() > MAX_BYTES {
        let reason = format!(
            "it has {} bytes, and must have at most {MAX_BYTES}",
            value.len()
        );
        return Err(corrupt_record::<T>(key, &reason));
    }
    let read = serde_json::from_slice(value);
    match read.map_err(|error| corrupt_record::<T>(key, &error))? {
        Read::Known(record) => Ok(record),
        Read::Newer(format) => {
            let message = format!(
                "the value of key {} has format {format}; this software knows {FORMAT}: upgrade it",
                shown(key)
            );
            Err(Error::new(ErrorKind::Incompatible, "read", message))
        }
    }
}

/// The error for a key of one repository.
pub(crate) fn corrupt(key: &[u8], reason: &dyn Display) -> Error {
    corrupt_with(key, reason, OF_REPOSITORY)
}

fn corrupt_record<T: Record>(key: &[u8], reason: &dyn Display) -> Error {
    corrupt_with(key, reason, T::CURE)
}

fn corrupt_with(key: &[u8], reason: &dyn Display, cure: &str) -> Error {
    let message = format!(
        "the value of key {} is not what this software writes ({reason}); {cure}",
        shown(key)
    );
    Error::new(ErrorKind::Corrupt, "read", message)
}

/// A key for people to read: without characters that a terminal would act on, and not endless.
pub(crate) fn shown(key: &[u8]) -> String {
    let (start, rest) = key.split_at(key.len().min(SHOWN));
    let more = if rest.is_empty() { "" } else { "..." };
    format!("{}{more}", start.escape_ascii())
}

#[cfg(test)]
mod tests {
    use pac_core::state::{Entry, EntryState, Moment, RunKind, RunOutcome};
    use pac_core::{Priority, Timestamp};

    use super::*;

    fn entry(state: EntryState) -> Entry {
        Entry {
            run: "ns/run".parse().unwrap(),
            uid: "uid:1".parse().unwrap(),
            kind: RunKind::Ephemeral,
            priority: Priority::new(i32::MIN),
            ticket: Ticket::new(u64::MAX),
            state,
            queued: Moment::of(Timestamp::from_unix_millis(-1)),
            started: Moment::of(Timestamp::from_unix_millis(i64::MAX)),
            finished: Moment::NEVER,
            terms: None,
            revision: Revision::new(9),
        }
    }

    #[test]
    fn records_come_back_as_they_were() {
        let (token, session) = (FencingToken::new(u64::MAX), SessionId::new(u64::MAX));
        let mut states = vec![
            EntryState::Queued { owner: None },
            EntryState::Queued {
                owner: Some(session),
            },
        ];
        for orphaned in [false, true] {
            states.push(EntryState::Started {
                token,
                session,
                orphaned,
            });
        }
        for outcome in [
            RunOutcome::Completed,
            RunOutcome::Failed,
            RunOutcome::Cancelled,
            RunOutcome::LeaseLost,
            RunOutcome::Superseded,
            RunOutcome::TimedOut,
            RunOutcome::QueueFull,
        ] {
            for (token, abandoned) in [(None, true), (Some(token), false)] {
                states.push(EntryState::Finished {
                    outcome,
                    token,
                    abandoned,
                });
            }
        }
        for state in states {
            let entry = entry(state);
            let value = encode_entry(&entry).unwrap();
            let run = entry.run.clone();
            assert_eq!(
                decode_entry(run, b"k", &value, entry.revision).unwrap(),
                entry
            );
        }
        for limit_version in [None, Some(LimitVersion::new(u64::MAX))] {
            let head = Head {
                stamp: Stamp::new(0xab),
                limit: Limit::new(u32::MAX),
                limit_version,
                last_ticket: Ticket::new(u64::MAX),
                queued: u32::MAX,
                ..Head::absent(3)
            };
            let stored = StoredHead {
                head: head.clone(),
                previous: Version::new(Revision::new(2), Stamp::new(u64::MAX)),
                by: session,
            };
            let value = stored.encode().unwrap();
            let back = StoredHead::decode(b"k", &value, head.revision).unwrap();
            assert_eq!(
                (back.head, back.previous, back.by),
                (head, stored.previous, session)
            );
        }
    }

    #[test]
    fn records_are_short() {
        let mut started = entry(EntryState::Started {
            token: FencingToken::new(1),
            session: SessionId::new(0x72c8_a22b_c183_d846),
            orphaned: false,
        });
        started.uid = "4fd0b1ad-7b7d-4c0d-a2c0-2c7e44a08f3b".parse().unwrap();
        started.kind = RunKind::Durable;
        started.priority = Priority::default();
        started.ticket = Ticket::new(1);
        started.queued = Moment::of(Timestamp::from_unix_millis(1_796_034_501_199));
        started.started = started.queued;
        assert_eq!(
            String::from_utf8(encode_entry(&started).unwrap()).unwrap(),
            r#"[1,"4fd0b1ad-7b7d-4c0d-a2c0-2c7e44a08f3b",{"started":[1,"72c8a22bc183d846"]},1,1796034501199,0]"#
        );
        let stored = StoredHead {
            head: Head {
                stamp: Stamp::new(0xa548_4a1c_1abe_b497),
                last_ticket: Ticket::new(2),
                ..Head::absent(0)
            },
            previous: Version::new(Revision::new(46_317), Stamp::new(0x2916_393c_c562_4eeb)),
            by: SessionId::new(0x72c8_a22b_c183_d846),
        };
        assert_eq!(
            String::from_utf8(stored.encode().unwrap()).unwrap(),
            r#"[1,"a5484a1c1abeb497","72c8a22bc183d846",46317,"2916393cc5624eeb",2]"#
        );
    }

    #[test]
    fn fields_that_are_new_within_a_format_are_passed_over() {
        let value = br#"[1,"00000000000000ab",7,{"more":"x"}]"#;
        assert_eq!(decode_floor(b"k", value).unwrap(), (7, Stamp::new(0xab)));
    }

    #[test]
    fn fields_that_are_new_within_a_state_are_passed_over() {
        let (token, session) = (FencingToken::new(7), SessionId::new(0xab));
        let started = |orphaned| EntryState::Started {
            token,
            session,
            orphaned,
        };
        let finished = |token, abandoned| EntryState::Finished {
            outcome: RunOutcome::Failed,
            token,
            abandoned,
        };
        for (state, expected) in [
            (r#"{"started":[7,"00000000000000ab",9]}"#, started(false)),
            (r#"{"orphaned":[7,"00000000000000ab",{}]}"#, started(true)),
            (r#"{"failed":[7,false,9]}"#, finished(Some(token), false)),
            (r#"{"failed":[null,true,"x",9]}"#, finished(None, true)),
        ] {
            let value = format!(r#"[1,"uid",{state},1]"#);
            let run = "ns/run".parse().unwrap();
            let read = decode_entry(run, b"k", value.as_bytes(), Revision::new(9));
            assert_eq!(read.unwrap().state, expected, "{state}");
        }
        for state in [
            r#"{"started":[7]}"#,
            r#"{"started":["00000000000000ab",7]}"#,
            r#"{"failed":[]}"#,
            r#"{"failed":[7,9]}"#,
        ] {
            let value = format!(r#"[1,"uid",{state},1]"#);
            let run = "ns/run".parse().unwrap();
            let refused = decode_entry(run, b"k", value.as_bytes(), Revision::new(9));
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corrupt, "{state}");
        }
    }

    /// Without the floor, new repositories would count from 0 again.
    #[test]
    fn a_damaged_floor_is_not_to_be_deleted() {
        let spaced = br#"[1, "00000000000000ab",7]"#;
        for value in [&b"x"[..], b"[1]", spaced, &[b' '; MAX_BYTES + 1]] {
            let error = decode_floor(b"/pac/v1/floor", value).unwrap_err();
            let said = error.to_string();
            assert!(said.contains("never delete it"), "{said}");
            assert!(!said.contains("keys of the repository"), "{said}");
        }
        let head = StoredHead::decode(b"k", b"x", Revision::new(1)).unwrap_err();
        assert!(head.to_string().contains(OF_REPOSITORY), "{head}");
    }

    #[test]
    fn broken_and_newer_values_are_told_apart_and_name_their_key() {
        for (value, kind) in [
            (&b""[..], ErrorKind::Corrupt),
            (b"\xff", ErrorKind::Corrupt),
            (b"{}", ErrorKind::Corrupt),
            (b"null", ErrorKind::Corrupt),
            (b"[]", ErrorKind::Corrupt),
            (b"[1]", ErrorKind::Corrupt),
            (br#"[0,"00000000000000ab",7]"#, ErrorKind::Corrupt),
            (br#"[1,"00000000000000ab"]"#, ErrorKind::Corrupt),
            (br#"[1,"00000000000000ab",7]]"#, ErrorKind::Corrupt),
            (br#"[1,"1",7]"#, ErrorKind::Corrupt),
            (br#"[1,"x",7]"#, ErrorKind::Corrupt),
            (br#"[1,"+0000000000000ab",7]"#, ErrorKind::Corrupt),
            (br#"[1,"00000000000000AB",7]"#, ErrorKind::Corrupt),
            (br#"{"version":1}"#, ErrorKind::Corrupt),
            (b"[2]", ErrorKind::Incompatible),
            (br#"[2,"x",[]]"#, ErrorKind::Incompatible),
            (b"[4294967297]", ErrorKind::Incompatible),
        ] {
            let error = decode_floor(b"/pac/v1/floor\n", value).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains("/pac/v1/floor\\n"), "{error}");
        }
    }
}
