//! Standard output.

use std::io::{self, BufWriter, Write};

use crate::exit::{Exit, Failure};

/// Prints what `write` writes. A reader that has seen what it wanted and closed the pipe is no
/// failure.
pub(crate) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| {
            let message = format!("standard output: cannot write: {error}");
            Failure::new(Exit::Output, message)
        }),
    }
}
