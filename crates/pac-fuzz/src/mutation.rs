//! Changes to an input of the corpus.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::prop_oneof;
use proptest::sample::{Index, select};
use proptest::strategy::{BoxedStrategy, Strategy};

/// What parsers of text stumble over: ends of lines and of strings, escape sequences, marks that
/// are not seen, numbers at and beyond the ends of their types, brackets without an end.
const TOKENS: [&[u8]; 46] = [
    b"\0",
    b"\t",
    b"\n",
    b"\r\n",
    b"\x1b[2J",
    b"\x7f",
    b"\xc2\x9b",
    b"\xff",
    b"\xc0\x80",
    "\u{202e}".as_bytes(),
    "\u{200f}".as_bytes(),
    "\u{2028}".as_bytes(),
    "\u{feff}".as_bytes(),
    "é".as_bytes(),
    "\u{1f600}".as_bytes(),
    b" ",
    b"\"",
    b"'",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"%00",
    b"%ff",
    b"/",
    b"../",
    b":",
    b",",
    b"=",
    b"@",
    b"-",
    b".",
    b"{",
    b"}",
    b"[",
    b"]",
    b"0",
    b"-1",
    b"1e999",
    b"NaN",
    b"4294967296",
    b"4611686018427387905",
    b"9223372036854775807",
    b"18446744073709551615",
    b"18446744073709551616",
    b"99999999999h",
    b"null",
];

/// No input grows beyond so many bytes: longer ones find nothing that these do not, and take long.
const LONGEST: usize = 64 * 1024;

/// The most that one change repeats a part.
const TIMES: usize = 64;

#[derive(Debug, Clone)]
enum Mutation {
    Flip(Index, u8),
    Insert(Index, &'static [u8]),
    Remove(Index, Index),
    Repeat(Index, Index, usize),
    /// A part of another input of the corpus.
    Splice(Index, Vec<u8>, Index, Index),
}

/// Inputs of the corpus after one or more changes. They shrink towards fewer changes.
pub(crate) fn inputs(corpus: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let mutations = vec(mutation(corpus.clone()), 1..12);
    (select(corpus), mutations).prop_map(|(input, mutations)| {
        mutations.iter().fold(input, |mut input, mutation| {
            mutation.change(&mut input);
            input
        })
    })
}

fn mutation(corpus: Vec<Vec<u8>>) -> BoxedStrategy<Mutation> {
    let at = any::<Index>;
    prop_oneof![
        3 => (at(), 0_u8..8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        4 => (at(), select(TOKENS.to_vec())).prop_map(|(at, token)| Mutation::Insert(at, token)),
        2 => (at(), at()).prop_map(|(from, to)| Mutation::Remove(from, to)),
        1 => (at(), at(), 2..TIMES).prop_map(|(from, to, times)| Mutation::Repeat(from, to, times)),
        2 => (at(), select(corpus), at(), at())
            .prop_map(|(at, other, from, to)| Mutation::Splice(at, other, from, to)),
    ]
    .boxed()
}

impl Mutation {
    fn change(&self, input: &mut Vec<u8>) {
        match self {
            Self::Flip(at, bit) => {
                let at = place(*at, input.len().saturating_sub(1));
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            Self::Insert(at, token) => insert(input, *at, token),
            Self::Remove(from, to) => drop(input.drain(part(*from, *to, input.len()))),
            Self::Repeat(from, to, times) => {
                let range = part(*from, *to, input.len());
                let repeated = input.get(range).unwrap_or_default().repeat(*times);
                insert(input, *to, &repeated);
            }
            Self::Splice(at, other, from, to) => {
                let range = part(*from, *to, other.len());
                insert(input, *at, other.get(range).unwrap_or_default());
            }
        }
    }
}

fn insert(input: &mut Vec<u8>, at: Index, bytes: &[u8]) {
    if input.len() + bytes.len() <= LONGEST {
        let at = place(at, input.len());
        input.splice(at..at, bytes.iter().copied());
    }
}

/// A place from 0 to `most`.
fn place(at: Index, most: usize) -> usize {
    at.index(most + 1)
}

/// The part between two places, whichever comes first.
fn part(one: Index, other: Index, length: usize) -> Range<usize> {
    let (one, other) = (place(one, length), place(other, length));
    one.min(other)..one.max(other)
}
