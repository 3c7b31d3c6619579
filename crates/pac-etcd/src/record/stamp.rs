//! The stamps of heads and of the floor, and how a transaction compares them.

use pac_core::{Error, Stamp};

use super::fields::Record;
use super::{FORMAT, corrupt_record};
use crate::client::Compare;

/// A new stamp: nobody else makes the same one.
pub(crate) fn new_stamp() -> Stamp {
    Stamp::new(fastrand::u64(1..))
}

/// The condition that the value of a key has this stamp: it comes after the first one and before
/// the second. etcd can compare whole values alone, and this compares the beginning of one: the stamp
/// is the first field after the format, and a comma follows.
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
    format!("[{FORMAT},\"{stamp}\"")
}

/// # Errors
/// `Corrupt` for a value that does not begin with its format and its stamp, as they are written: no
/// commit would find it as expected.
pub(super) fn check_beginning<T: Record>(
    key: &[u8],
    value: &[u8],
    stamp: Stamp,
) -> Result<(), Error> {
    if value.starts_with(stamped(stamp).as_bytes()) {
        Ok(())
    } else {
        Err(corrupt_record::<T>(
            key,
            &"it has to begin with its format and its stamp, without spaces",
        ))
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
        let moved = br#"[ 1,"0123456789abcdef",7]"#;
        assert!(!passes(moved, stamp));
        let error = decode_floor(b"k", moved).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}
