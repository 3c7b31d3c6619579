//! Transcripts in documents, which are what the tests have seen.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The variable that has the documents written anew.
const REWRITE: &str = "PAC_WRITE_TRANSCRIPT";

/// Fails unless the transcript in a document of the repository is what happened, as far as `shape`
/// keeps it. Where [`REWRITE`] is set, writes what happened into the document instead. A test with
/// several transcripts names each after itself: `queues.rs, nested`.
pub(crate) fn holds<S: PartialEq>(
    document: &str,
    test: &str,
    shape: impl Fn(&str) -> S,
    happened: &str,
) {
    // Others must not read or write a part of what is being written.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let begin = format!("<!-- transcript: written by crates/pac-cli/tests/{test} -->\n```text\n");
    let end = "```\n<!-- transcript: end -->";
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join(document);
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text
        .split_once(&begin)
        .unwrap_or_else(|| panic!("{document} has no line {begin:?}"));
    let (written, after) = rest.split_once(end).expect("the transcript ends");
    if std::env::var_os(REWRITE).is_some() {
        std::fs::write(&path, format!("{before}{begin}{happened}{end}{after}")).unwrap();
        return;
    }
    assert!(
        shape(written) == shape(happened),
        "the transcript in {document} is out of date; write it anew with\n    {REWRITE}=1 cargo \
         xtask test -- transcript\nThis is what happened:\n{happened}"
    );
}

/// The text without what differs each time: numbers, times, durations, processes behind a `#`, and
/// the widths that follow.
#[allow(dead_code, reason = "each test program uses its part of this")]
pub(crate) fn shape(text: &str) -> Vec<String> {
    let word = |word: &str| {
        let number = word.starts_with(|c: char| c.is_ascii_digit());
        let rule = word.starts_with(['─', '═', '┌', '└', '╞']);
        match (number, rule) {
            (true, _) => "0".to_owned(),
            (_, true) => "-".to_owned(),
            _ => match word.rsplit_once('#') {
                // A sentence may go on behind the pid.
                Some((before, after)) => match after.trim_end_matches([':', ',', ';']) {
                    pid if pid.parse::<u64>().is_ok() => {
                        format!("{before}#{}", after.replacen(pid, "0", 1))
                    }
                    _ => word.to_owned(),
                },
                None => word.to_owned(),
            },
        }
    };
    let line = |line: &str| {
        line.split_whitespace()
            .map(word)
            .collect::<Vec<_>>()
            .join(" ")
    };
    text.lines().map(line).collect()
}
