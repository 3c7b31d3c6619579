//! The generated tables in `docs/testing.md`: compares them with what the tests find.

use std::path::PathBuf;
use std::{env, fs};

/// If this variable is set, the document is written instead of compared.
const WRITE: &str = "PAC_WRITE_MUTANTS";

/// Compares `found` with the part of the document of this name, or writes it there.
pub(crate) fn holds(part: &str, found: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/testing.md");
    let (begin, end) = (
        format!("<!-- {part}: begin -->\n"),
        format!("<!-- {part}: end -->"),
    );
    let document = fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(&begin).unwrap();
    let (written, after) = rest.split_once(&end).unwrap();
    if env::var_os(WRITE).is_some() {
        fs::write(&path, format!("{before}{begin}{found}{end}{after}")).unwrap();
        return;
    }
    let differs = |(written, now): (&str, &str)| (written != now).then(|| now.to_owned());
    let lines = written.lines().zip(found.lines());
    let changed: Vec<_> = lines.filter_map(differs).collect();
    assert!(
        written == found,
        "the part `{part}` of docs/testing.md is not what was found now; look at the difference, \
         and if it is right write it with `cargo xtask mutants --write`:\n{}",
        changed.join("\n")
    );
}
