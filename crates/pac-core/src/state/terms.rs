//! What a run asked for beyond a slot, and what was asked of it since.

use std::fmt;
use std::num::NonZeroU16;
use std::time::Duration;

use serde_json::Value;

use super::entry::Moment;
use super::json::{Reader, UnreadablePart, Writer};
use crate::name::Group;
use crate::value::{Priority, Timestamp};

/// How many slots a run takes: from 1 to 65,535. It gets all of them in one step, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(NonZeroU16);

impl Weight {
    /// One slot, as nearly all runs take.
    pub const ONE: Self = Self(NonZeroU16::MIN);

    /// So many slots; `None` for 0.
    #[must_use]
    pub const fn new(slots: u16) -> Option<Self> {
        match NonZeroU16::new(slots) {
            Some(slots) => Some(Self(slots)),
            None => None,
        }
    }

    /// How many slots.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// How many slots beyond the one that every run takes.
    #[must_use]
    pub(crate) fn surplus(self) -> u32 {
        u32::from(self.get() - 1)
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self::ONE
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// See the module. Most runs have none.
///
/// A store keeps it as one JSON object beside the run's other fields, and need not know what is in
/// it, with two exceptions: a field that is `null` is [`Moment::AT_COMMIT`], and has to become the
/// time of the commit in milliseconds since 1970; and a guard that counts slots adds up `weight`,
/// which is 1 where it is missing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Terms {
    /// How many slots it takes.
    pub weight: Weight,
    /// The group that it belongs to.
    pub group: Option<Group>,
    /// When it was asked to end, while it ran.
    pub asked: Moment,
    /// The priority that its owner admits it with, where an operator has given it another one.
    pub admitted_as: Option<Priority>,
    /// How long it may wait, in whole milliseconds, from when it was queued.
    pub max_wait: Option<Duration>,
    /// How long it may hold its slots, in whole milliseconds, from when it was started.
    pub max_hold: Option<Duration>,
    /// It is to be told which slots it has.
    pub numbered: bool,
    /// The numbers of the slots that it has, from 0 on, while it holds some; empty unless `numbered`.
    pub slots: Vec<u32>,
    /// How many lighter runs have gone before it while it was the next one, and did not fit.
    pub passed: u32,
}

impl Terms {
    /// Of a run that asks for one slot and nothing else.
    pub const NONE: Self = Self {
        weight: Weight::ONE,
        group: None,
        asked: Moment::NEVER,
        admitted_as: None,
        max_wait: None,
        max_hold: None,
        numbered: false,
        slots: Vec::new(),
        passed: 0,
    };

    /// As an entry keeps them; `None` where nothing is asked for.
    pub(crate) fn to_be_kept(&self) -> Option<Box<Self>> {
        (*self != Self::NONE).then(|| Box::new(self.clone()))
    }

    /// These, or none.
    pub(crate) fn or_none(terms: Option<&Self>) -> &Self {
        static NONE: Terms = Terms::NONE;
        terms.unwrap_or(&NONE)
    }

    /// As they were asked for: without what has become of the run since.
    pub(crate) fn as_asked(&self) -> Self {
        Self {
            asked: Moment::NEVER,
            admitted_as: None,
            slots: Vec::new(),
            passed: 0,
            ..self.clone()
        }
    }

    /// Whether it may wait, or hold its slots, only for some time.
    #[must_use]
    pub fn is_timed(&self) -> bool {
        self.max_wait.is_some() || self.max_hold.is_some()
    }

    /// Replaces [`Moment::AT_COMMIT`] by the time of the commit.
    pub(super) fn stamp(&mut self, now: Timestamp) {
        self.asked.stamp(now);
    }

    /// As a JSON object.
    #[must_use]
    pub fn to_json(&self) -> String {
        let weight = (self.weight != Weight::ONE).then_some(self.weight.get());
        let mut fields = Writer::default();
        fields
            .field("weight", weight)
            .field("group", self.group.as_ref().map(Group::as_str))
            .moment("asked", self.asked)
            .field("admitted_as", self.admitted_as.map(Priority::get))
            .field("max_wait", self.max_wait.map(in_millis))
            .field("max_hold", self.max_hold.map(in_millis))
            .field("slots", self.numbered.then(|| self.slots.clone()))
            .field("passed", (self.passed > 0).then_some(self.passed));
        fields.end().to_string()
    }

    /// From [`Self::to_json`].
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn from_json(text: &str) -> Result<Self, UnreadablePart> {
        let mut fields = Reader::new(text)?;
        let weight = fields.take("weight", |value| {
            Weight::new(u16::try_from(value.as_u64()?).ok()?)
        })?;
        let slots = fields.take("slots", |value| {
            let number = |slot: &Value| u32::try_from(slot.as_u64()?).ok();
            value.as_array()?.iter().map(number).collect::<Option<_>>()
        })?;
        let terms = Self {
            weight: weight.unwrap_or_default(),
            group: fields.take_text("group")?,
            asked: fields.take_moment("asked")?,
            admitted_as: fields.take_number("admitted_as")?.map(Priority::new),
            max_wait: fields.take("max_wait", of_millis)?,
            max_hold: fields.take("max_hold", of_millis)?,
            numbered: slots.is_some(),
            slots: slots.unwrap_or_default(),
            passed: fields.take_number("passed")?.unwrap_or(0),
        };
        fields.end()?;
        Ok(terms)
    }
}

fn in_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn of_millis(value: &Value) -> Option<Duration> {
    value.as_u64().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn terms_come_back_as_they_were() {
        let all = Terms {
            weight: Weight::new(u16::MAX).unwrap(),
            group: Some("pull/7 \"ü\"".parse().unwrap()),
            asked: Moment::of(Timestamp::from_unix_millis(1_796_034_501_199)),
            admitted_as: Some(Priority::new(i32::MIN)),
            max_wait: Some(Duration::from_millis(1)),
            max_hold: Some(Duration::from_secs(3_600)),
            numbered: true,
            slots: vec![0, 7],
            passed: 3,
        };
        let waiting = Terms {
            asked: Moment::AT_COMMIT,
            ..Terms::NONE
        };
        for (terms, json) in [
            (Terms::NONE, "{}"),
            (waiting, r#"{"asked":null}"#),
            (
                all,
                r#"{"admitted_as":-2147483648,"asked":1796034501199,"group":"pull/7 \"ü\"","max_hold":3600000,"max_wait":1,"passed":3,"slots":[0,7],"weight":65535}"#,
            ),
        ] {
            assert_eq!(terms.to_json(), json);
            assert_eq!(Terms::from_json(json).unwrap(), terms);
        }
    }

    #[test]
    fn what_is_broken_or_newer_is_told_apart() {
        for (text, kind) in [
            ("", ErrorKind::Corrupt),
            ("[]", ErrorKind::Corrupt),
            (r#"{"weight":0}"#, ErrorKind::Corrupt),
            (r#"{"weight":65536}"#, ErrorKind::Corrupt),
            (r#"{"weight":"2"}"#, ErrorKind::Corrupt),
            (r#"{"group":""}"#, ErrorKind::Corrupt),
            (r#"{"asked":"soon"}"#, ErrorKind::Corrupt),
            (r#"{"max_wait":-1}"#, ErrorKind::Corrupt),
            (r#"{"slots":[-1]}"#, ErrorKind::Corrupt),
            (r#"{"weight":2,"colour":"red"}"#, ErrorKind::Incompatible),
        ] {
            assert_eq!(Terms::from_json(text).unwrap_err().kind(), kind, "{text}");
        }
    }
}
