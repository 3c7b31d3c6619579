//! Sealed hints: what processes of a store send each other, and nobody else can read or make.
//!
//! Any role that may connect to the database can send notifications on any channel, and hears those
//! of others. So a payload is encrypted and authenticated with a key out of a table that only roles of
//! the store can read, and holds the sender's number and how many it has sent: a copy that is sent
//! again counts for nothing.

use std::collections::HashMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

/// Most bytes of a payload: PostgreSQL takes less than 8000.
const PAYLOAD: usize = 7_999;
/// The number of the sender, and that of the payload.
const NUMBERS: usize = 16;
/// What the cipher adds at the end.
const TAG: usize = 16;
/// Most bytes of a text that fits into a payload, of which base64 makes four of each three.
pub(super) const MOST: usize = PAYLOAD / 4 * 3 - NONCE_LEN - NUMBERS - TAG;
/// Most senders that are remembered; with more, remembering starts anew, and an old copy of what each
/// sent last may count once more.
const SENDERS: usize = 10_000;

/// Seals texts, and opens those of other processes.
pub(super) struct Seal {
    key: LessSafeKey,
    random: SystemRandom,
    sender: u64,
    /// How many this process has sealed.
    sealed: u64,
    /// The last payload that was opened, of each sender.
    opened: HashMap<u64, u64>,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").finish_non_exhaustive()
    }
}

impl Seal {
    /// With the key of the store; `None` if it has another length than 32 bytes, or the system has no
    /// random bytes.
    pub(super) fn new(key: &[u8]) -> Option<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key).ok()?;
        let random = SystemRandom::new();
        // Two senders of one number would drop each other's payloads.
        let mut sender = [0; 8];
        random.fill(&mut sender).ok()?;
        Some(Self {
            key: LessSafeKey::new(key),
            random,
            sender: u64::from_be_bytes(sender),
            sealed: 0,
            opened: HashMap::new(),
        })
    }

    /// Takes another key, which the store has been given. What was opened before stays known.
    pub(super) fn renew(&mut self, key: &[u8]) -> Option<()> {
        self.key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).ok()?);
        Some(())
    }

    /// The payload for a text of at most [`MOST`] bytes. `None` if the system has no random bytes.
    pub(super) fn seal(&mut self, text: &str) -> Option<String> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        self.sealed += 1;
        let mut body = Vec::with_capacity(NUMBERS + text.len() + TAG);
        body.extend(self.sender.to_be_bytes());
        body.extend(self.sealed.to_be_bytes());
        body.extend(text.as_bytes());
        let once = Nonce::assume_unique_for_key(nonce);
        self.key
            .seal_in_place_append_tag(once, Aad::empty(), &mut body)
            .ok()?;
        let whole = [nonce.as_slice(), &body].concat();
        Some(STANDARD_NO_PAD.encode(whole))
    }

    /// The text in a payload. `None` if no process of this store has sealed it, or it is a copy of one
    /// that was opened before, or older than that.
    pub(super) fn open(&mut self, payload: &str) -> Option<String> {
        if payload.len() > PAYLOAD {
            return None;
        }
        let mut whole = STANDARD_NO_PAD.decode(payload).ok()?;
        let (nonce, body) = whole.split_first_chunk_mut::<NONCE_LEN>()?;
        let once = Nonce::assume_unique_for_key(*nonce);
        let body = self.key.open_in_place(once, Aad::empty(), body).ok()?;
        let (sender, rest) = body.split_first_chunk()?;
        let (number, text) = rest.split_first_chunk()?;
        let (sender, number) = (u64::from_be_bytes(*sender), u64::from_be_bytes(*number));
        let last = self.opened.get(&sender).copied().unwrap_or(0);
        if number <= last {
            return None;
        }
        if self.opened.len() >= SENDERS && last == 0 {
            self.opened.clear();
        }
        self.opened.insert(sender, number);
        String::from_utf8(text.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    #[test]
    fn only_processes_with_the_key_read_a_text_and_each_reads_it_once() {
        let mut sender = Seal::new(&KEY).unwrap();
        let mut receiver = Seal::new(&KEY).unwrap();
        let mut stranger = Seal::new(&[8; 32]).unwrap();
        let text = "s7:3:ns/web ".repeat(MOST / 12);
        let payload = sender.seal(&text).unwrap();
        assert!(payload.len() < 8_000 && !payload.contains("web"));
        assert_eq!(stranger.open(&payload), None);
        assert_eq!(receiver.open(&payload), Some(text));
        assert_eq!(receiver.open(&payload), None, "a copy");
        let [second, third] = ["d", "m"].map(|text| sender.seal(text).unwrap());
        assert_eq!(receiver.open(&third).as_deref(), Some("m"));
        assert_eq!(receiver.open(&second), None, "older than what was opened");
        // Another process counts by itself.
        let other = Seal::new(&KEY).unwrap().seal("d").unwrap();
        assert_eq!(receiver.open(&other).as_deref(), Some("d"));
    }

    #[test]
    fn a_changed_or_foreign_payload_is_none() {
        let mut seal = Seal::new(&KEY).unwrap();
        let payload = seal.seal("d").unwrap();
        for at in 0..payload.len() {
            let mut bytes = payload.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(seal.open(&String::from_utf8(bytes).unwrap()), None, "{at}");
        }
        for text in ["", "d", "m", "c1:2:ns/a", "\u{202e}", &"A".repeat(100_000)] {
            assert_eq!(seal.open(text), None);
        }
        assert!(Seal::new(b"short").is_none());
        assert!(!format!("{seal:?}").contains('7'));
    }

    #[test]
    fn a_flood_of_senders_takes_no_more_room_than_it_may() {
        let mut receiver = Seal::new(&KEY).unwrap();
        for _ in 0..=SENDERS {
            let payload = Seal::new(&KEY).unwrap().seal("d").unwrap();
            assert!(receiver.open(&payload).is_some());
        }
        assert!(receiver.opened.len() <= SENDERS);
    }
}
