//! Fuzzing: no key and no value that another program has written makes a panic, or an error that a
//! terminal would act on; what is understood is written the same again.

use pac_core::text::is_plain;
use pac_core::{Error, Revision};

use crate::keys::{Keys, Place};
use crate::record::{
    StoredHead, decode_entry, decode_floor, decode_session, encode_entry, encode_floor,
    encode_session,
};

const KEY: &[u8] = b"/pac/v1/heads/ns/\x1b[2J";

#[test]
fn fuzz_records() {
    pac_fuzz::bytes(env!("CARGO_MANIFEST_DIR"), "records", |value| {
        let at = Revision::new(7);
        let head = |value: &[u8]| StoredHead::decode(KEY, value, at);
        again(value, head, |head| head.encode().unwrap());
        let run = "ns/run".parse().unwrap();
        let entry = |value: &[u8]| decode_entry(Clone::clone(&run), KEY, value, at);
        again(value, entry, |entry| encode_entry(entry).unwrap());
        let floor = |value: &[u8]| decode_floor(KEY, value);
        again(value, floor, |(given_out, stamp)| {
            encode_floor(*given_out, *stamp).unwrap()
        });
        let session = |value: &[u8]| decode_session(KEY, value);
        again(value, session, |(identity, opened_at)| {
            encode_session((1, 1), identity, *opened_at).unwrap()
        });
    });
}

/// A record that is understood is the same after it was written and read again.
fn again<T: std::fmt::Debug>(
    value: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, Error>,
    encode: impl Fn(&T) -> Vec<u8>,
) {
    match decode(value) {
        Ok(record) => {
            let read = decode(&encode(&record)).unwrap();
            assert_eq!(format!("{read:?}"), format!("{record:?}"));
        }
        Err(error) => {
            let shown = error.to_string();
            assert!(shown.chars().all(is_plain), "{shown:?}");
        }
    }
}

#[test]
fn fuzz_keys() {
    let keys = Keys::new("/pac/v1/").unwrap();
    pac_fuzz::bytes(env!("CARGO_MANIFEST_DIR"), "keys", move |key| {
        let Some(place) = keys.place(key) else {
            return;
        };
        let same = match &place {
            Place::Head(repository) => keys.head(repository),
            Place::Entry(repository, run) => keys.entry(repository, run),
            Place::Record(id) => keys.record(*id),
            Place::Alive(id) => keys.alive(*id),
            Place::Lease(id) => keys.lease(*id),
            Place::Sign(id) => keys.sign(*id),
            Place::Held(id, repository) => keys.held(*id, repository),
            Place::Removed(repository) => keys.removed(repository),
            Place::Floor => keys.floor(),
        };
        assert_eq!(same.as_bytes(), key, "{place:?}");
    });
}
