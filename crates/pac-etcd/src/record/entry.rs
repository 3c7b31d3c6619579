//! The records of runs.

use pac_core::state::{Entry, EntryState, Moment, RunKind, RunOutcome, Terms};
use pac_core::{
    Error, FencingToken, PipelineRunKey, Priority, Revision, SessionId, Ticket, Timestamp,
};
use serde::de::SeqAccess;
use serde::{Deserialize, Deserializer, Serialize};

use super::fields::{Fields, Hex, Record, Writer, array};
use super::part::Part;
use super::{corrupt, decode, encoded};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StateRecord {
    Queued(Option<Hex>),
    Started(Slot),
    Orphaned(Slot),
    Completed(End),
    Failed(End),
    Cancelled(End),
    #[serde(rename = "lease-lost")]
    LeaseLost(End),
    Superseded(End),
    #[serde(rename = "timed-out")]
    TimedOut(End),
    #[serde(rename = "queue-full")]
    QueueFull(End),
}

/// The token of a run that has started, and the session that it belongs to.
#[derive(Serialize)]
struct Slot(u64, Hex);

impl Record for Slot {
    const NAME: &'static str = "run that has started";

    fn read<'de, A: SeqAccess<'de>>(fields: &mut Fields<A>) -> Result<Self, A::Error> {
        Ok(Self(fields.next("token")?, fields.next("session")?))
    }
}

impl<'de> Deserialize<'de> for Slot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        array(deserializer)
    }
}

/// The token of a run that has ended, and whether its asker gave it up.
#[derive(Serialize)]
struct End(
    Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")] bool,
);

impl Record for End {
    const NAME: &'static str = "run that has ended";

    fn read<'de, A: SeqAccess<'de>>(fields: &mut Fields<A>) -> Result<Self, A::Error> {
        Ok(Self(fields.next("token")?, fields.next_or_default()?))
    }
}

impl<'de> Deserialize<'de> for End {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        array(deserializer)
    }
}

impl StateRecord {
    fn of(state: EntryState) -> Self {
        match state {
            EntryState::Queued { owner } => Self::Queued(owner.map(|owner| Hex(owner.get()))),
            EntryState::Started {
                token,
                session,
                orphaned,
            } => {
                let slot = Slot(token.get(), Hex(session.get()));
                if orphaned {
                    Self::Orphaned(slot)
                } else {
                    Self::Started(slot)
                }
            }
            EntryState::Finished {
                outcome,
                token,
                abandoned,
            } => {
                let end = End(token.map(FencingToken::get), abandoned);
                match outcome {
                    RunOutcome::Completed => Self::Completed(end),
                    RunOutcome::Failed => Self::Failed(end),
                    RunOutcome::Cancelled => Self::Cancelled(end),
                    RunOutcome::LeaseLost => Self::LeaseLost(end),
                    RunOutcome::Superseded => Self::Superseded(end),
                    RunOutcome::TimedOut => Self::TimedOut(end),
                    RunOutcome::QueueFull => Self::QueueFull(end),
                }
            }
        }
    }

    fn state(self) -> EntryState {
        let started = |Slot(token, session), orphaned| EntryState::Started {
            token: FencingToken::new(token),
            session: SessionId::new(session.0),
            orphaned,
        };
        let finished = |outcome, End(token, abandoned)| EntryState::Finished {
            outcome,
            token: token.map(FencingToken::new),
            abandoned,
        };
        match self {
            Self::Queued(owner) => EntryState::Queued {
                owner: owner.map(|owner| SessionId::new(owner.0)),
            },
            Self::Started(slot) => started(slot, false),
            Self::Orphaned(slot) => started(slot, true),
            Self::Completed(end) => finished(RunOutcome::Completed, end),
            Self::Failed(end) => finished(RunOutcome::Failed, end),
            Self::Cancelled(end) => finished(RunOutcome::Cancelled, end),
            Self::LeaseLost(end) => finished(RunOutcome::LeaseLost, end),
            Self::Superseded(end) => finished(RunOutcome::Superseded, end),
            Self::TimedOut(end) => finished(RunOutcome::TimedOut, end),
            Self::QueueFull(end) => finished(RunOutcome::QueueFull, end),
        }
    }
}

pub(crate) fn encode_entry(entry: &Entry) -> Result<Vec<u8>, Error> {
    let at = |moment: Moment| moment.at().map(Timestamp::as_unix_millis);
    let queued = at(entry.queued);
    // Whatever the times are: the difference is taken off in the same way.
    let since = |moment| at(moment).map(|at| at.wrapping_sub(queued.unwrap_or(0)));
    let write = || {
        let record = Writer::new()
            .field(&entry.uid.as_str())?
            .field(&StateRecord::of(entry.state))?
            .field(&entry.ticket.get())?
            .field_or_default(&queued)?
            .field_or_default(&since(entry.started))?
            .field_or_default(&since(entry.finished))?
            .field_or_default(&entry.priority.get())?
            .field_or_default(&(entry.kind == RunKind::Ephemeral))?
            .field_or_null(Part::of(entry.terms.as_deref().map(Terms::to_json))?.as_ref())?;
        Ok(record.end())
    };
    encoded(write())
}

struct EntryRecord {
    uid: String,
    state: StateRecord,
    ticket: u64,
    queued: Option<i64>,
    started: Option<i64>,
    finished: Option<i64>,
    priority: i32,
    is_ephemeral: bool,
    terms: Option<Part>,
}

impl Record for EntryRecord {
    const NAME: &'static str = "run";

    fn read<'de, A: SeqAccess<'de>>(fields: &mut Fields<A>) -> Result<Self, A::Error> {
        Ok(Self {
            uid: fields.next("uid")?,
            state: fields.next("state")?,
            ticket: fields.next("ticket")?,
            queued: fields.next_or_default()?,
            started: fields.next_or_default()?,
            finished: fields.next_or_default()?,
            priority: fields.next_or_default()?,
            is_ephemeral: fields.next_or_default()?,
            terms: fields.next_or_default()?,
        })
    }
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
        Some(at) => Moment::of(Timestamp::from_unix_millis(at)),
        None => Moment::NEVER,
    };
    let terms = record.terms;
    let terms = terms.map(|part| part.read(key, "terms", Terms::from_json));
    let queued = record.queued.unwrap_or(0);
    let since = |at: Option<i64>| moment(at.map(|at| at.wrapping_add(queued)));
    Ok(Entry {
        run,
        uid: record.uid.parse().map_err(|error| corrupt(key, &error))?,
        kind: if record.is_ephemeral {
            RunKind::Ephemeral
        } else {
            RunKind::Durable
        },
        priority: Priority::new(record.priority),
        ticket: Ticket::new(record.ticket),
        state: record.state.state(),
        queued: moment(record.queued),
        started: since(record.started),
        finished: since(record.finished),
        terms: terms.transpose()?.map(Box::new),
        revision,
    })
}
