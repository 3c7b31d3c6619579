//! What a server says until it has let this process in, as far as the client library would trust it
//! blindly: how long its messages are, and in which way it asks for the password.

use crate::options::Authentication;

/// The longest message that is taken before the server has let this process in. libpq takes as much
/// of an error, and less of all others.
const LONGEST: u32 = 30_000;
/// The most that is taken of all messages together. A server has some thirty settings to tell.
const MOST: usize = 256 * 1024;

/// The kind of message in which a server asks for a password, or says that none is needed.
const AUTHENTICATION: u8 = b'R';
/// The kind of message with which a server has let this process in.
const READY: u8 = b'Z';
/// The ways to ask in a message of the kind [`AUTHENTICATION`].
const CLEAR_TEXT: u32 = 3;
const MD5: u32 = 5;

/// The kind of a message, its length without the kind, and in a message of the kind
/// [`AUTHENTICATION`] the way to ask.
const HEADER: usize = 5;
const HEADER_WITH_WAY: usize = HEADER + 4;

/// Why this process does not go on with a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// The server asks for the password itself.
    #[error("it asks for the password in clear text")]
    ClearText,
    /// The server asks for a digest from which the password can be had.
    #[error("it asks for the password as MD5")]
    Md5,
    /// The server announces a message of so many bytes.
    #[error(
        "it announces a message of {0} bytes, and {LONGEST} are the most before it lets a client in"
    )]
    Long(u32),
    /// The server goes on and on.
    #[error("it sends more than {MOST} bytes before it lets a client in")]
    Endless,
    /// The server sends what is no message of PostgreSQL.
    #[error("it sends what is no message of PostgreSQL")]
    Foreign,
}

/// Follows the messages of a server, piece by piece as they come, until it has let this process in.
#[derive(Debug)]
pub(super) struct Startup {
    demanded: Authentication,
    /// The beginning of the message that is being received.
    header: Vec<u8>,
    /// How much of that message is still to come, once its header is there.
    rest: usize,
    received: usize,
    ready: bool,
}

impl Startup {
    pub(super) fn new(demanded: Authentication) -> Self {
        Self {
            demanded,
            header: Vec::with_capacity(HEADER_WITH_WAY),
            rest: 0,
            received: 0,
            ready: false,
        }
    }

    /// Whether the server has let this process in. What follows is not looked at.
    pub(super) fn is_over(&self) -> bool {
        self.ready && self.rest == 0
    }

    /// Takes what the server has sent, before the client library gets it. After a refusal the
    /// library must get none of it.
    pub(super) fn receive(&mut self, mut bytes: &[u8]) -> Result<(), Refusal> {
        while !self.is_over()
            && let Some((first, others)) = bytes.split_first()
        {
            if self.rest > 0 {
                let passed = self.rest.min(bytes.len());
                bytes = bytes.get(passed..).unwrap_or_default();
                self.rest -= passed;
                self.count(passed)?;
                continue;
            }
            self.header.push(*first);
            bytes = others;
            self.count(1)?;
            self.read_header()?;
        }
        Ok(())
    }

    fn count(&mut self, more: usize) -> Result<(), Refusal> {
        self.received = self.received.saturating_add(more);
        if self.received > MOST {
            return Err(Refusal::Endless);
        }
        Ok(())
    }

    /// Acts on the header, if it is all there.
    fn read_header(&mut self) -> Result<(), Refusal> {
        let Some(([kind, length @ ..], way)) = self.header.split_first_chunk::<HEADER>() else {
            return Ok(());
        };
        // The length counts itself.
        let length = u32::from_be_bytes(*length);
        if length > LONGEST {
            return Err(Refusal::Long(length));
        }
        let body = length.checked_sub(4).ok_or(Refusal::Foreign)?;
        let mut read = 0;
        if *kind == AUTHENTICATION {
            if body < 4 {
                return Err(Refusal::Foreign);
            }
            let Some(way) = way.first_chunk::<4>() else {
                return Ok(());
            };
            let is_refused = self.demanded != Authentication::Any;
            match u32::from_be_bytes(*way) {
                CLEAR_TEXT if is_refused => return Err(Refusal::ClearText),
                MD5 if is_refused => return Err(Refusal::Md5),
                _ => read = 4,
            }
        }
        self.ready = *kind == READY;
        self.rest = usize::try_from(body - read).unwrap_or(usize::MAX);
        self.header.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len()).unwrap() + 4;
        let mut message = vec![kind];
        message.extend(length.to_be_bytes());
        message.extend(body);
        message
    }

    fn asks(way: u32) -> Vec<u8> {
        message(AUTHENTICATION, &[&way.to_be_bytes()[..], b"salt"].concat())
    }

    /// In pieces of one size after the other.
    fn receive(demanded: Authentication, bytes: &[u8], size: usize) -> Result<bool, Refusal> {
        let mut startup = Startup::new(demanded);
        for piece in bytes.chunks(size) {
            startup.receive(piece)?;
        }
        Ok(startup.is_over())
    }

    #[test]
    fn the_password_is_kept_from_those_who_ask_for_it_however_the_request_is_cut() {
        for size in 1..20 {
            for (way, refusal) in [(CLEAR_TEXT, Refusal::ClearText), (MD5, Refusal::Md5)] {
                // Also after other messages.
                for before in [
                    Vec::new(),
                    asks(0),
                    message(b'N', b"notice"),
                    message(b'S', b""),
                ] {
                    let bytes = [before, asks(way)].concat();
                    for demanded in [Authentication::Scram, Authentication::ChannelBinding] {
                        assert_eq!(receive(demanded, &bytes, size), Err(refusal));
                    }
                    assert_eq!(receive(Authentication::Any, &bytes, size), Ok(false));
                }
            }
        }
    }

    #[test]
    fn a_server_that_lets_a_client_in_is_followed_no_further() {
        let start = [
            asks(10),
            asks(11),
            asks(12),
            asks(0),
            message(b'S', b"a\0b\0"),
        ]
        .concat();
        let ready = [start.clone(), message(READY, b"I")].concat();
        for size in 1..40 {
            assert_eq!(receive(Authentication::Scram, &start, size), Ok(false));
            assert_eq!(receive(Authentication::Scram, &ready, size), Ok(true));
            let later = [ready.clone(), asks(CLEAR_TEXT), vec![0xff; 1_000]].concat();
            assert_eq!(receive(Authentication::Scram, &later, size), Ok(true));
        }
    }

    #[test]
    fn what_would_fill_the_memory_is_refused_when_it_is_announced() {
        let any = Authentication::Any;
        for length in [LONGEST + 1, 0x7fff_ffff, u32::MAX] {
            let bytes = [vec![b'E'], length.to_be_bytes().to_vec()].concat();
            assert_eq!(receive(any, &bytes, 3), Err(Refusal::Long(length)));
        }
        let notice = message(b'N', &[0; 20_000]);
        assert_eq!(receive(any, &notice, 4_096), Ok(false));
        let endless = notice.repeat(14);
        assert_eq!(receive(any, &endless, 4_096), Err(Refusal::Endless));
    }

    #[test]
    fn whatever_comes_and_however_it_is_cut_the_answer_is_the_same() {
        let likely = [b'R', b'S', b'Z', b'E', 0, 0, 0, 0, 3, 4, 5, 8, 12, 0xff];
        for seed in 0..5_000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let length = random.usize(1..80);
            let bytes: Vec<u8> = (0..length).filter_map(|_| random.choice(likely)).collect();
            let whole = receive(Authentication::Scram, &bytes, length);
            let size = random.usize(1..8);
            assert_eq!(
                receive(Authentication::Scram, &bytes, size),
                whole,
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bytes in [
            [b'R', 0, 0, 0, 3].as_slice(),
            &[b'R', 0, 0, 0, 7, 0, 0, 0],
            &[b'S', 0, 0, 0, 0],
        ] {
            let refusal = receive(Authentication::Any, bytes, 2);
            assert_eq!(refusal, Err(Refusal::Foreign));
        }
    }
}
