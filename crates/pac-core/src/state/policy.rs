//! What a repository has beside a limit: who has set it, a pause, a bound of its queue.

use std::num::NonZeroU32;

use serde_json::Value;

use super::entry::Moment;
use super::json::{Reader, UnreadablePart, Writer};
use crate::name::{Reason, SlotName, SlotNames};
use crate::value::{Limit, Timestamp};

/// Who has set the limit of a repository, and the rules beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Owner {
    /// A caller that needed some limit: whoever else sets one replaces it.
    Proposed,
    /// A program, without a version.
    Set,
    /// A controller, in the version that it was announced with.
    Announced,
    /// An operator: it holds against everybody until it is unpinned.
    Pinned,
}

impl Owner {
    const ALL: [Self; 4] = [Self::Proposed, Self::Set, Self::Announced, Self::Pinned];

    /// One word: `proposed`, `set`, `announced` or `pinned`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Proposed => "proposed",
            Self::Set => "set",
            Self::Announced => "announced",
            Self::Pinned => "pinned",
        }
    }
}

/// The rules of a repository: its limit, and what is set, announced and pinned with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct Rules {
    /// How many slots there are.
    pub limit: Limit,
    /// How many runs may wait; any number where there is none.
    pub max_queued: Option<u32>,
    /// How many lighter runs may go before one that is the next and does not fit. None: the order is
    /// strict.
    pub backfill: Option<NonZeroU32>,
    /// The names of the slots, in the order of their numbers.
    pub slots: Option<SlotNames>,
}

impl Rules {
    /// A limit, and nothing else.
    #[must_use]
    pub fn limit(limit: Limit) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    fn write(&self, fields: &mut Writer) {
        let names = self.slots.as_deref().unwrap_or_default().iter();
        let names: Vec<_> = names.map(SlotName::as_str).collect();
        fields
            .field("max_queued", self.max_queued)
            .field("backfill", self.backfill.map(NonZeroU32::get))
            .field("slots", self.slots.is_some().then_some(names));
    }

    /// All but the limit, which the head has beside the policy.
    fn read(fields: &mut Reader) -> Result<Self, UnreadablePart> {
        let names = fields.take("slots", |value| {
            let name = |name: &Value| name.as_str()?.parse().ok();
            let names: Option<Vec<_>> = value.as_array()?.iter().map(name).collect();
            SlotNames::new(names?).ok()
        })?;
        let backfill = fields.take("backfill", |value| {
            NonZeroU32::new(u32::try_from(value.as_u64()?).ok()?)
        })?;
        Ok(Self {
            limit: Limit::UNLIMITED,
            max_queued: fields.take_number("max_queued")?,
            backfill,
            slots: names,
        })
    }
}

/// What is to become of the rules of a repository: a field that is `None` stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct RulesChange {
    /// See [`Rules::limit`].
    pub limit: Option<Limit>,
    /// See [`Rules::max_queued`].
    pub max_queued: Option<Option<u32>>,
    /// See [`Rules::backfill`].
    pub backfill: Option<Option<NonZeroU32>>,
    /// See [`Rules::slots`].
    pub slots: Option<Option<SlotNames>>,
}

impl RulesChange {
    /// Another limit.
    #[must_use]
    pub fn limit(limit: Limit) -> Self {
        Self {
            limit: Some(limit),
            ..Self::default()
        }
    }

    /// And how many runs may wait.
    #[must_use]
    pub fn with_max_queued(self, most: Option<u32>) -> Self {
        Self {
            max_queued: Some(most),
            ..self
        }
    }

    /// And how many lighter runs may go before one that does not fit.
    #[must_use]
    pub fn with_backfill(self, most: Option<NonZeroU32>) -> Self {
        Self {
            backfill: Some(most),
            ..self
        }
    }

    /// And the names of the slots.
    #[must_use]
    pub fn with_slots(self, names: Option<SlotNames>) -> Self {
        Self {
            slots: Some(names),
            ..self
        }
    }

    /// The rules that come of these.
    #[must_use]
    pub fn apply(&self, rules: &Rules) -> Rules {
        let slots = self.slots.as_ref().unwrap_or(&rules.slots);
        Rules {
            limit: self.limit.unwrap_or(rules.limit),
            max_queued: self.max_queued.unwrap_or(rules.max_queued),
            backfill: self.backfill.unwrap_or(rules.backfill),
            slots: slots.clone(),
        }
    }
}

/// Nothing is started while it lasts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Pause {
    /// Since when, by the store's clock.
    pub since: Moment,
    /// Why, for people to read.
    pub reason: Option<Reason>,
}

/// See the module. Most repositories have none; one that has it keeps it until it is removed, so
/// that a store can tell by the new head alone whether it has to be written.
///
/// A store keeps it as one JSON object beside the head's other fields. As in
/// [`Terms`](super::Terms), a field that is `null` has to become the time of the commit. Beside that,
/// a store has to know `paused`, `surplus` and `needs`, which decide whether a run can be started
/// ([`ListFilter::Startable`](crate::driver::ListFilter::Startable)), and `timed`
/// ([`ListFilter::Timed`](crate::driver::ListFilter::Timed)).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct Policy {
    /// Nothing is started at present.
    pub pause: Option<Pause>,
    /// Who has set the rules in force. `None`: whoever the other fields of the head speak of,
    /// [`Head::owner`](super::Head::owner).
    pub owner: Option<Owner>,
    /// The rules in force, but for the limit, which stands in the head; here it is always
    /// [`Limit::UNLIMITED`].
    pub rules: Rules,
    /// What is in force again once the limit is unpinned, and who has set it.
    pub beneath: Option<(Rules, Owner)>,
    /// How many slots the runs that hold some take beyond one each.
    pub surplus: u32,
    /// How many slots the first waiting run that can be started needs beyond one.
    pub needs: u32,
    /// How many runs that wait or hold slots may do so only for some time.
    pub timed: u32,
}

impl Policy {
    /// Replaces [`Moment::AT_COMMIT`] by the time of the commit.
    pub(super) fn stamp(&mut self, now: Timestamp) {
        if let Some(pause) = &mut self.pause {
            pause.since.stamp(now);
        }
    }

    /// As a JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut fields = Writer::default();
        if let Some(pause) = &self.pause {
            fields
                .moment("paused", pause.since)
                .field("reason", pause.reason.as_ref().map(Reason::as_str));
        }
        let beneath = self.beneath.as_ref().map(|(rules, owner)| {
            let mut fields = Writer::default();
            fields
                .field("limit", rules.limit.get())
                .field("owner", Some(owner.as_str()));
            rules.write(&mut fields);
            fields.end()
        });
        self.rules.write(&mut fields);
        fields
            .field("owner", self.owner.map(Owner::as_str))
            .field("beneath", beneath)
            .field("surplus", (self.surplus > 0).then_some(self.surplus))
            .field("needs", (self.needs > 0).then_some(self.needs))
            .field("timed", (self.timed > 0).then_some(self.timed));
        fields.end().to_string()
    }

    /// From [`Self::to_json`].
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn from_json(text: &str) -> Result<Self, UnreadablePart> {
        let mut fields = Reader::new(text)?;
        let since = fields.take_moment("paused")?;
        let reason = fields.take_text("reason")?;
        let beneath = fields
            .take_object("beneath")?
            .map(read_beneath)
            .transpose()?;
        let policy = Self {
            pause: (since != Moment::NEVER).then_some(Pause { since, reason }),
            owner: read_owner(&mut fields)?,
            rules: Rules::read(&mut fields)?,
            beneath,
            surplus: fields.take_number("surplus")?.unwrap_or(0),
            needs: fields.take_number("needs")?.unwrap_or(0),
            timed: fields.take_number("timed")?.unwrap_or(0),
        };
        fields.end()?;
        Ok(policy)
    }
}

fn read_owner(fields: &mut Reader) -> Result<Option<Owner>, UnreadablePart> {
    fields.take("owner", |value| {
        let word = value.as_str()?;
        Owner::ALL.into_iter().find(|owner| owner.as_str() == word)
    })
}

fn read_beneath(mut fields: Reader) -> Result<(Rules, Owner), UnreadablePart> {
    let rules = Rules {
        limit: Limit::new(fields.take_number("limit")?.unwrap_or(0)),
        ..Rules::read(&mut fields)?
    };
    let owner = read_owner(&mut fields)?;
    fields.end()?;
    Ok((rules, owner.unwrap_or(Owner::Set)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_policy_comes_back_as_it_was() {
        let all = Policy {
            pause: Some(Pause {
                since: Moment::of(Timestamp::from_unix_millis(7)),
                reason: Some("the store moves".parse().unwrap()),
            }),
            owner: Some(Owner::Pinned),
            rules: Rules {
                max_queued: Some(0),
                backfill: NonZeroU32::new(2),
                slots: Some("pixel-8".parse().unwrap()),
                ..Rules::default()
            },
            beneath: Some((Rules::limit(Limit::new(u32::MAX)), Owner::Announced)),
            surplus: u32::MAX,
            needs: 3,
            timed: 1,
        };
        let paused = Policy {
            pause: Some(Pause {
                since: Moment::AT_COMMIT,
                reason: None,
            }),
            ..Policy::default()
        };
        for (policy, json) in [
            (Policy::default(), "{}"),
            (paused, r#"{"paused":null}"#),
            (
                all,
                r#"{"backfill":2,"beneath":{"limit":4294967295,"owner":"announced"},"max_queued":0,"needs":3,"owner":"pinned","paused":7,"reason":"the store moves","slots":["pixel-8"],"surplus":4294967295,"timed":1}"#,
            ),
        ] {
            assert_eq!(policy.to_json(), json);
            assert_eq!(Policy::from_json(json).unwrap(), policy);
        }
    }

    #[test]
    fn what_is_broken_or_newer_is_told_apart() {
        for (text, kind) in [
            (r#"{"owner":"me"}"#, ErrorKind::Corrupt),
            (r#"{"max_queued":-1}"#, ErrorKind::Corrupt),
            (r#"{"beneath":7}"#, ErrorKind::Corrupt),
            (r#"{"backfill":0}"#, ErrorKind::Corrupt),
            (r#"{"slots":["a b"]}"#, ErrorKind::Corrupt),
            (r#"{"slots":["a","a"]}"#, ErrorKind::Corrupt),
            (r#"{"order":"backfill"}"#, ErrorKind::Incompatible),
            (r#"{"beneath":{"colour":1}}"#, ErrorKind::Incompatible),
        ] {
            assert_eq!(Policy::from_json(text).unwrap_err().kind(), kind, "{text}");
        }
    }
}
