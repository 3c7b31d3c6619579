//! Records as JSON arrays: what writes and reads their fields, in one pass.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error as _, IgnoredAny, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{FORMAT, OF_REPOSITORY};
use crate::keys::hexadecimal;

/// A record that can be read, or an array in one.
pub(super) trait Record: Sized {
    /// What an error calls it.
    const NAME: &'static str;
    /// What to do about one that cannot be understood.
    const CURE: &'static str = OF_REPOSITORY;

    fn read<'de, A: SeqAccess<'de>>(fields: &mut Fields<A>) -> Result<Self, A::Error>;
}

/// A record of a known format, or of a newer one.
pub(super) enum Read<T> {
    Known(T),
    Newer(u64),
}

impl<'de, T: Record> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(OfRecord(PhantomData))
    }
}

struct OfRecord<T>(PhantomData<T>);

impl<'de, T: Record> Visitor<'de> for OfRecord<T> {
    type Value = Read<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the array of a {}", T::NAME)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields(seq);
        let read = match fields.next("format")? {
            0 => return Err(A::Error::invalid_value(Unexpected::Unsigned(0), &self)),
            FORMAT => Read::Known(T::read(&mut fields)?),
            newer => Read::Newer(newer),
        };
        fields.pass_over_the_rest()?;
        Ok(read)
    }
}

/// Reads an array in a record.
pub(super) fn array<'de, D: Deserializer<'de>, T: Record>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_seq(OfArray(PhantomData))
}

struct OfArray<T>(PhantomData<T>);

impl<'de, T: Record> Visitor<'de> for OfArray<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the array of a {}", T::NAME)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<T, A::Error> {
        let mut fields = Fields(seq);
        let read = T::read(&mut fields)?;
        fields.pass_over_the_rest()?;
        Ok(read)
    }
}

/// The fields of a record that is read.
pub(super) struct Fields<A>(A);

impl<'de, A: SeqAccess<'de>> Fields<A> {
    /// # Errors
    /// If the field is not there, or is something else.
    pub(super) fn next<T: Deserialize<'de>>(&mut self, name: &'static str) -> Result<T, A::Error> {
        let field = self.0.next_element()?;
        field.ok_or_else(|| A::Error::missing_field(name))
    }

    /// A field that is left out at the end of a record where it has its default.
    ///
    /// # Errors
    /// If the field is something else.
    pub(super) fn next_or_default<T>(&mut self) -> Result<T, A::Error>
    where
        T: Deserialize<'de> + Default,
    {
        Ok(self.0.next_element()?.unwrap_or_default())
    }

    /// Further fields of the same format are those of a newer software.
    fn pass_over_the_rest(&mut self) -> Result<(), A::Error> {
        while self.0.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// A record that is written.
pub(super) struct Writer {
    bytes: Vec<u8>,
    /// The length without the fields at the end that have their defaults.
    kept: usize,
}

impl Writer {
    /// A record of the current format.
    pub(super) fn new() -> Self {
        let mut bytes = Vec::with_capacity(160);
        bytes.extend_from_slice(format!("[{FORMAT}").as_bytes());
        Self {
            kept: bytes.len(),
            bytes,
        }
    }

    pub(super) fn field(mut self, value: &impl Serialize) -> Result<Self, serde_json::Error> {
        self.bytes.push(b',');
        serde_json::to_writer(&mut self.bytes, value)?;
        self.kept = self.bytes.len();
        Ok(self)
    }

    /// A field that is left out at the end of the record if it has its default.
    pub(super) fn field_or_default<T>(mut self, value: &T) -> Result<Self, serde_json::Error>
    where
        T: Serialize + Default + PartialEq,
    {
        if *value != T::default() {
            return self.field(value);
        }
        self.bytes.push(b',');
        serde_json::to_writer(&mut self.bytes, value)?;
        Ok(self)
    }

    /// A field that is left out at the end of the record if there is none.
    pub(super) fn field_or_null<T>(mut self, value: Option<&T>) -> Result<Self, serde_json::Error>
    where
        T: Serialize,
    {
        if let Some(value) = value {
            return self.field(value);
        }
        self.bytes.extend_from_slice(b",null");
        Ok(self)
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.bytes.truncate(self.kept);
        self.bytes.push(b']');
        self.bytes
    }
}

/// A number in 16 hexadecimal digits, as in the keys: many readers of JSON round large ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hex(pub(super) u64);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{:016x}", self.0))
    }
}

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(OfHex)
    }
}

struct OfHex;

impl Visitor<'_> for OfHex {
    type Value = Hex;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("16 hexadecimal digits, in lower case")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Hex, E> {
        let number = hexadecimal(text).map(Hex);
        number.ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}
