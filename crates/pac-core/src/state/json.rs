//! The JSON objects in which a record holds what most records have none of.
//!
//! A field that is not known is one of a newer version of this software, and what it says may decide
//! who may run: whoever does not know it must not act on the record, nor write it back without it.

use std::fmt;
use std::num::TryFromIntError;

use serde_json::{Map, Value};

use super::entry::Moment;
use crate::error::{Error, ErrorKind};
use crate::value::Timestamp;

/// A part of a record that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnreadablePart {
    /// It has a field of a newer version of this software.
    #[error("it has a field {0:?} of a newer version: update this software")]
    Newer(String),
    /// No version of this software writes this.
    #[error("{0}")]
    Broken(String),
}

impl UnreadablePart {
    /// The kind of the error that a driver returns for it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Newer(_) => ErrorKind::Incompatible,
            Self::Broken(_) => ErrorKind::Corrupt,
        }
    }

    /// The error that a driver returns for it, with what the driver says of the place.
    #[must_use]
    pub fn error(&self, operation: &'static str, place: impl fmt::Display) -> Error {
        Error::new(self.kind(), operation, format!("{place}: {self}"))
    }
}

/// An object that is read field by field.
pub(super) struct Reader(Map<String, Value>);

impl Reader {
    pub(super) fn new(text: &str) -> Result<Self, UnreadablePart> {
        match serde_json::from_str(text) {
            Ok(Value::Object(fields)) => Ok(Self(fields)),
            Ok(_) => Err(UnreadablePart::Broken("it is no JSON object".to_owned())),
            Err(error) => Err(UnreadablePart::Broken(format!("it is no JSON: {error}"))),
        }
    }

    pub(super) fn of(value: Value) -> Result<Self, UnreadablePart> {
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            other => Err(UnreadablePart::Broken(format!("{other} is no JSON object"))),
        }
    }

    /// Takes a field; `None` if it is not there.
    pub(super) fn take<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, UnreadablePart> {
        let Some(value) = self.0.remove(name) else {
            return Ok(None);
        };
        let read = read(&value).ok_or_else(|| {
            UnreadablePart::Broken(format!("the field {name:?} must not be {value}"))
        })?;
        Ok(Some(read))
    }

    pub(super) fn take_number<T>(&mut self, name: &str) -> Result<Option<T>, UnreadablePart>
    where
        T: TryFrom<i64, Error = TryFromIntError>,
    {
        self.take(name, |value| T::try_from(value.as_i64()?).ok())
    }

    pub(super) fn take_text<T: std::str::FromStr>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, UnreadablePart> {
        self.take(name, |value| value.as_str()?.parse().ok())
    }

    /// A time; [`Moment::AT_COMMIT`] stands as `null`, until it is stamped.
    pub(super) fn take_moment(&mut self, name: &str) -> Result<Moment, UnreadablePart> {
        let moment = self.take(name, |value| match value {
            Value::Null => Some(Moment::AT_COMMIT),
            at => Some(Moment::of(Timestamp::from_unix_millis(at.as_i64()?))),
        })?;
        Ok(moment.unwrap_or(Moment::NEVER))
    }

    pub(super) fn take_object(&mut self, name: &str) -> Result<Option<Self>, UnreadablePart> {
        self.0.remove(name).map(Self::of).transpose()
    }

    /// All fields that are known were taken.
    pub(super) fn end(self) -> Result<(), UnreadablePart> {
        match self.0.into_iter().next() {
            None => Ok(()),
            Some((field, _)) => Err(UnreadablePart::Newer(field)),
        }
    }
}

/// An object that is written. Fields that have their defaults are left out.
#[derive(Default)]
pub(super) struct Writer(Map<String, Value>);

impl Writer {
    pub(super) fn field(&mut self, name: &str, value: Option<impl Into<Value>>) -> &mut Self {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value.into());
        }
        self
    }

    pub(super) fn moment(&mut self, name: &str, moment: Moment) -> &mut Self {
        let at = moment.at().map(Timestamp::as_unix_millis);
        self.field(name, (moment != Moment::NEVER).then(|| Value::from(at)))
    }

    pub(super) fn end(&mut self) -> Value {
        Value::Object(std::mem::take(&mut self.0))
    }
}
