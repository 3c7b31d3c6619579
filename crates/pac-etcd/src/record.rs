//! The values of the keys: JSON objects with a version.

mod stamp;

use pac_core::state::{Entry, EntryState, Head, Moment, RunKind, RunOutcome};
use pac_core::{
    Error, ErrorKind, FencingToken, Limit, LimitVersion, MAX_COUNTER, PipelineRunKey, Priority,
    Revision, SessionId, Stamp, Ticket, Timestamp, Version,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use stamp::{Hex, check_beginning};
pub(crate) use stamp::{is_stamped, new_stamp};

/// The version that this software writes, and the newest that it reads.
const VERSION: u32 = 1;

/// The longest value that is read, in bytes. This software writes less than 2 KiB, and newer
/// versions of it may write more.
const MAX_BYTES: usize = 64 * 1024;

/// Most bytes of a key that a message shows.
const SHOWN: usize = 200;

#[derive(Debug, Serialize, Deserialize)]
struct HeadRecord {
    /// First of all, so that a commit can compare the beginning of the value; see [`is_stamped`].
    stamp: Hex,
    version: u32,
    /// 0: none.
    limit: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    limit_version: Option<u64>,
    last_ticket: u64,
    last_token: u64,
    queued: u32,
    started: u32,
    /// The revision and the stamp of the version that this head was planned at.
    previous: u64,
    previous_stamp: Hex,
    /// The session that wrote it.
    by: Id,
}

#[derive(Debug, Serialize, Deserialize)]
struct EntryRecord {
    version: u32,
    uid: String,
    kind: Kind,
    priority: i32,
    ticket: u64,
    state: StateRecord,
    /// In milliseconds since the Unix epoch, as are the two times below.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    queued_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    started_at: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    finished_at: Option<i64>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Durable,
    Ephemeral,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StateRecord {
    Queued {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        owner: Option<Id>,
    },
    Started {
        token: u64,
        session: Id,
        orphaned: bool,
    },
    Finished {
        outcome: Ending,
        #[serde(skip_serializing_if = "Option::is_none", default)]
        token: Option<u64>,
        abandoned: bool,
    },
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Ending {
    Completed,
    Failed,
    Cancelled,
    Expired,
}

/// A session, in 16 hexadecimal digits as in the keys.
#[derive(Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Id(SessionId);

impl Clone for Id {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        format!("{:016x}", id.0.get())
    }
}

impl TryFrom<String> for Id {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let id = u64::from_str_radix(&text, 16);
        id.map(|id| Self(SessionId::new(id)))
            .map_err(|_| "a session is written in hexadecimal digits")
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct SessionRecord {
    version: u32,
    /// In seconds, as etcd granted it; so is the lease TTL.
    session_ttl: i64,
    lease_ttl: i64,
}

#[derive(Debug, Serialize, Deserialize)]
struct FloorRecord {
    /// As in a head.
    stamp: Hex,
    version: u32,
    given_out: u64,
}

/// A head as it is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredHead {
    pub(crate) head: Head,
    /// The version that it was planned at.
    pub(crate) previous: Version,
    /// The session that wrote it.
    pub(crate) by: SessionId,
}

impl StoredHead {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Error> {
        encode(&HeadRecord {
            stamp: Hex(self.head.stamp),
            version: VERSION,
            limit: self.head.limit.get().unwrap_or(0),
            limit_version: self.head.limit_version.map(LimitVersion::get),
            last_ticket: self.head.last_ticket.get(),
            last_token: self.head.last_token.get(),
            queued: self.head.queued,
            started: self.head.started,
            previous: self.previous.revision.get(),
            previous_stamp: Hex(self.previous.stamp),
            by: Id(self.by),
        })
    }

    /// # Errors
    /// `Corrupt` or `Incompatible`, naming the key.
    pub(crate) fn decode(key: &[u8], value: &[u8], revision: Revision) -> Result<Self, Error> {
        let record: HeadRecord = decode(key, value)?;
        let stamp = record.stamp.0;
        check_beginning(key, value, stamp)?;
        Ok(Self {
            head: Head {
                revision,
                stamp,
                limit: Limit::new(record.limit),
                limit_version: record.limit_version.map(LimitVersion::new),
                last_ticket: Ticket::new(record.last_ticket),
                last_token: FencingToken::new(record.last_token),
                queued: record.queued,
                started: record.started,
            },
            previous: Version::new(Revision::new(record.previous), record.previous_stamp.0),
            by: record.by.0,
        })
    }
}

pub(crate) fn encode_entry(entry: &Entry) -> Result<Vec<u8>, Error> {
    let at = |moment: Moment| moment.at().map(Timestamp::as_unix_millis);
    encode(&EntryRecord {
        version: VERSION,
        uid: entry.uid.as_str().to_owned(),
        kind: match entry.kind {
            RunKind::Durable => Kind::Durable,
            RunKind::Ephemeral => Kind::Ephemeral,
        },
        priority: entry.priority.get(),
        ticket: entry.ticket.get(),
        state: match entry.state {
            EntryState::Queued { owner } => StateRecord::Queued {
                owner: owner.map(Id),
            },
            EntryState::Started {
                token,
                session,
                orphaned,
            } => StateRecord::Started {
                token: token.get(),
                session: Id(session),
                orphaned,
            },
            EntryState::Finished {
                outcome,
                token,
                abandoned,
            } => StateRecord::Finished {
                outcome: match outcome {
                    RunOutcome::Completed => Ending::Completed,
                    RunOutcome::Failed => Ending::Failed,
                    RunOutcome::Cancelled => Ending::Cancelled,
                    RunOutcome::Expired => Ending::Expired,
                },
                token: token.map(FencingToken::get),
                abandoned,
            },
        },
        queued_at: at(entry.queued),
        started_at: at(entry.started),
        finished_at: at(entry.finished),
    })
}

/// # Errors
/// `Corrupt` or `Incompatible`, naming the key.
pub(crate) fn decode_entry(
    run: PipelineRunKey,
    key: &[u8],
    value: &[u8],
    revision: Revision,
) -> Result<Entry, Error> {
    let record: EntryRecord = decode(key, value)?;
    let moment = |at: Option<i64>| match at {
        Some(at) => Moment::At(Timestamp::from_unix_millis(at)),
        None => Moment::Never,
    };
    Ok(Entry {
        run,
        uid: record.uid.parse().map_err(|error| corrupt(key, &error))?,
        kind: match record.kind {
            Kind::Durable => RunKind::Durable,
            Kind::Ephemeral => RunKind::Ephemeral,
        },
        priority: Priority::new(record.priority),
        ticket: Ticket::new(record.ticket),
        state: match record.state {
            StateRecord::Queued { owner } => EntryState::Queued {
                owner: owner.map(|owner| owner.0),
            },
            StateRecord::Started {
                token,
                session,
                orphaned,
            } => EntryState::Started {
                token: FencingToken::new(token),
                session: session.0,
                orphaned,
            },
            StateRecord::Finished {
                outcome,
                token,
                abandoned,
            } => EntryState::Finished {
                outcome: match outcome {
                    Ending::Completed => RunOutcome::Completed,
                    Ending::Failed => RunOutcome::Failed,
                    Ending::Cancelled => RunOutcome::Cancelled,
                    Ending::Expired => RunOutcome::Expired,
                },
                token: token.map(FencingToken::new),
                abandoned,
            },
        },
        queued: moment(record.queued_at),
        started: moment(record.started_at),
        finished: moment(record.finished_at),
        revision,
    })
}

pub(crate) fn encode_session(session_ttl: i64, lease_ttl: i64) -> Result<Vec<u8>, Error> {
    encode(&SessionRecord {
        version: VERSION,
        session_ttl,
        lease_ttl,
    })
}

pub(crate) fn encode_floor(given_out: u64, stamp: Stamp) -> Result<Vec<u8>, Error> {
    encode(&FloorRecord {
        stamp: Hex(stamp),
        version: VERSION,
        given_out,
    })
}

/// The highest ticket or token of any removed repository, from which a new one counts on; and the
/// stamp of the removal.
pub(crate) fn decode_floor(key: &[u8], value: &[u8]) -> Result<(u64, Stamp), Error> {
    let record: FloorRecord = decode(key, value)?;
    check_beginning(key, value, record.stamp.0)?;
    if record.given_out > MAX_COUNTER {
        let message = format!(
            "key {} says that new repositories count on from {}, which must be at most \
             {MAX_COUNTER} (2^62): another program wrote it; set given_out to the largest fencing \
             token that is known",
            shown(key),
            record.given_out
        );
        return Err(Error::new(ErrorKind::Corrupt, "read", message));
    }
    Ok((record.given_out, record.stamp.0))
}

fn encode(record: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(record).map_err(|error| {
        Error::new(
            ErrorKind::Internal,
            "encode",
            "a record cannot be written as JSON",
        )
        .caused_by(error)
    })
}

fn decode<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, Error> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    if value.len() > MAX_BYTES {
        let reason = format!(
            "it has {} bytes, and must have at most {MAX_BYTES}",
            value.len()
        );
        return Err(corrupt(key, &reason));
    }
    let broken = |error: serde_json::Error| corrupt(key, &error);
    let Version { version } = serde_json::from_slice(value).map_err(broken)?;
    if version > VERSION {
        let message = format!(
            "the value of key {} has version {version}; this software knows {VERSION}: upgrade it",
            shown(key)
        );
        return Err(Error::new(ErrorKind::Incompatible, "read", message));
    }
    serde_json::from_slice(value).map_err(broken)
}

pub(crate) fn corrupt(key: &[u8], reason: &dyn std::fmt::Display) -> Error {
    let message = format!(
        "the value of key {} is not what this software writes ({reason}); repair it, or remove \
         the keys of the repository",
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
    use super::*;

    fn entry(state: EntryState) -> Entry {
        Entry {
            run: "ns/run".parse().unwrap(),
            uid: "uid:1".parse().unwrap(),
            kind: RunKind::Ephemeral,
            priority: Priority::new(i32::MIN),
            ticket: Ticket::new(u64::MAX),
            state,
            queued: Moment::At(Timestamp::from_unix_millis(-1)),
            started: Moment::At(Timestamp::from_unix_millis(i64::MAX)),
            finished: Moment::Never,
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
            RunOutcome::Expired,
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
                head,
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
    fn fields_that_are_new_within_a_version_are_passed_over() {
        let value = br#"{"stamp":"00000000000000ab","version":1,"given_out":7,"more":"x"}"#;
        assert_eq!(decode_floor(b"k", value).unwrap(), (7, Stamp::new(0xab)));
    }

    #[test]
    fn broken_and_newer_values_are_told_apart_and_name_their_key() {
        for (value, kind) in [
            (&b""[..], ErrorKind::Corrupt),
            (b"\xff", ErrorKind::Corrupt),
            (b"{}", ErrorKind::Corrupt),
            (b"null", ErrorKind::Corrupt),
            (br#"{"version":1}"#, ErrorKind::Corrupt),
            (br#"{"version":1,"given_out":7}"#, ErrorKind::Corrupt),
            (
                br#"{"stamp":"1","version":1,"given_out":7}"#,
                ErrorKind::Corrupt,
            ),
            (
                br#"{"stamp":"x","version":1,"given_out":7}"#,
                ErrorKind::Corrupt,
            ),
            (br#"{"version":2}"#, ErrorKind::Incompatible),
            (br#"{"version":2,"given_out":"x"}"#, ErrorKind::Incompatible),
        ] {
            let error = decode_floor(b"/pac/v1/floor\n", value).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains("/pac/v1/floor\\n"), "{error}");
        }
    }
}
