//! Transcripts in documents, which are what the tests have seen.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::Path;

/// The variable that has the documents written anew.
const REWRITE: &str = "PAC_WRITE_TRANSCRIPT";

/// Fails unless the transcript in a document of the repository is what happened, as far as `shape`
/// keeps it. Where [`REWRITE`] is set, writes what happened into the document instead.
pub(crate) fn holds<S: PartialEq>(
    document: &str,
    test: &str,
    shape: impl Fn(&str) -> S,
    happened: &str,
) {
    let begin =
        format!("<!-- transcript: written by crates/pac-cli/tests/{test}.rs -->\n```text\n");
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
