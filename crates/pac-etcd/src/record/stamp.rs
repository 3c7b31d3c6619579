//! The stamps of heads and of the floor, and how a transaction compares them.

use pac_core::{Error, Stamp};
use serde::{Deserialize, Serialize};

use super::corrupt;
use crate::client::Compare;

/// A number in 16 hexadecimal digits: many readers of JSON round large ones.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Hex(pub(super) Stamp);

impl From<Hex> for String {
    fn from(hex: Hex) -> Self {
        hex.0.to_string()
    }
}

impl TryFrom<String> for Hex {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let stamp = u64::from_str_radix(&text, 16);
        stamp
            .map(|stamp| Self(Stamp::new(stamp)))
            .map_err(|_| "a stamp is written in hexadecimal digits")
    }
}

/// A new stamp: nobody else makes the same one.
pub(crate) fn new_stamp() -> Stamp {
    Stamp::new(fastrand::u64(1..))
}

/// The condition that the value of a key has this stamp: it comes after the first one and before
/// the second. etcd can compare whole values alone, and this compares the beginning of one: a value
/// begins with its stamp, and a comma follows.
pub(crate) fn is_stamped(key: &str, stamp: Stamp) -> [Compare; 2] {
    let start = stamped(stamp);
    // The character after the comma.
    let end = format!("{start}-");
    [
        Compare::ValueAfter(key.to_owned(), start.into_bytes()),
        Compare::ValueBefore(key.to_owned(), end.into_bytes()),
    ]
}

/// What a value with this stamp begins with.
fn stamped(stamp: Stamp) -> String {
    format!("{{\"stamp\":\"{stamp}\"")
}

/// # Errors
/// `Corrupt` for a value that does not begin with its stamp: no commit would find it as expected.
pub(super) fn check_beginning(key: &[u8], value: &[u8], stamp: Stamp) -> Result<(), Error> {
    if value.starts_with(stamped(stamp).as_bytes()) {
        Ok(())
    } else {
        Err(corrupt(key, &"it has to begin with its stamp"))
    }
}

#[cfg(test)]
mod tests {
    use pac_core::ErrorKind;

    use super::*;
    use crate::record::{decode_floor, encode_floor};

    #[test]
    fn a_stamp_is_found_at_the_beginning_of_its_value_alone() {
        let stamp = Stamp::new(0x0123_4567_89ab_cdef);
        let passes = |value: &[u8], stamp| {
            is_stamped("k", stamp).iter().all(|compare| match compare {
                Compare::ValueAfter(_, start) => value > start.as_slice(),
                Compare::ValueBefore(_, end) => value < end.as_slice(),
                other => panic!("{other:?}"),
            })
        };
        let value = encode_floor(u64::MAX, stamp).unwrap();
        assert!(passes(&value, stamp));
        for other in [0, 1, 0x0123_4567_89ab_cdee, 0x0123_4567_89ab_cdf0, u64::MAX] {
            assert!(!passes(&value, Stamp::new(other)), "{other:x}");
        }
        let moved = br#"{"version":1,"given_out":7,"stamp":"0123456789abcdef"}"#;
        assert!(!passes(moved, stamp));
        let error = decode_floor(b"k", moved).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}
