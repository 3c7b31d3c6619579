//! Standard output.

use std::fmt;
use std::io::{self, BufWriter, Write};

use crate::exit::Failure;

/// Prints what `write` writes. A reader that has seen what it wanted and closed the pipe is no
/// failure.
pub(crate) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Says something to whoever watches, beside what is printed.
pub(crate) fn note(text: impl fmt::Display) {
    // With stderr gone there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "pac: {text}");
}
