//! Standard output.

use std::fmt;
use std::io::{self, BufWriter, Write};

use crate::exit::Failure;

/// Prints what `write` writes. A reader that closes the pipe early is not a failure.
pub(crate) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Prints a note to stderr, apart from the command's output.
pub(crate) fn note(text: impl fmt::Display) {
    // If stderr is closed, the note is lost.
    let _ = writeln!(io::stderr().lock(), "pac: {text}");
}
