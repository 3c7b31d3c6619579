//! Standard output and standard error: the one edge at which text reaches a terminal.
//!
//! What others wrote (servers, records, manifests, settings, names of files) moves no cursor and
//! forges no line. A text of others within a sentence or a cell of a table goes through
//! [`one_line`], which also bounds its length; what goes out here is escaped once more, as a
//! whole, so that no place can be forgotten.

use std::fmt;
use std::io::{self, BufWriter, Stdout, Write};

use pac_concurrency::text::{is_plain, lines, one_line};

use crate::exit::Failure;

/// Prints text for people that `write` writes. A reader that closes the pipe early is not a
/// failure.
pub(crate) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    print_as(Escapes::Text, write)
}

/// Prints JSON, or YAML whose strings are JSON's, that `write` writes. Every value stays what it
/// is.
pub(crate) fn print_json(
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Failure> {
    print_as(Escapes::Json, write)
}

fn print_as(
    escapes: Escapes,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), Failure> {
    let mut out = Plain::new(io::stdout(), escapes);
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Prints a note to stderr, on one line, apart from the command's output.
pub(crate) fn note(text: impl fmt::Display) {
    // If stderr is closed, the note is lost.
    let _ = writeln!(io::stderr().lock(), "pac: {}", one_line(&text.to_string()));
}

/// Prints why a command failed to stderr.
pub(crate) fn note_failure(failure: &Failure) {
    let _ = writeln!(io::stderr().lock(), "pac: {failure}");
}

/// Prints lines to stderr as they are.
pub(crate) fn note_lines(text: &str) {
    let _ = io::stderr().lock().write_all(lines(text).as_bytes());
}

/// How a character is written that a terminal would act on, or that is not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Escapes {
    /// As Rust writes it: `\u{1b}`.
    Text,
    /// As a string of JSON has it: `\u001b`. In JSON such characters are in strings alone.
    Json,
}

/// A writer of text to which nothing but plain characters and ends of lines get through. Buffered.
#[derive(Debug)]
pub(crate) struct Plain<W: Write = Stdout> {
    out: BufWriter<W>,
    escapes: Escapes,
    /// The beginning of a character whose end is yet to be written.
    begun: Vec<u8>,
}

impl<W: Write> Plain<W> {
    pub(crate) fn new(out: W, escapes: Escapes) -> Self {
        Self {
            out: BufWriter::new(out),
            escapes,
            begun: Vec::new(),
        }
    }

    fn text(&mut self, text: &str) -> io::Result<()> {
        for part in text.split_inclusive(is_escaped) {
            match part.chars().next_back().filter(|last| is_escaped(*last)) {
                None => self.out.write_all(part.as_bytes())?,
                Some(last) => {
                    let plain = part.len() - last.len_utf8();
                    let plain = part.get(..plain).unwrap_or_default();
                    self.out.write_all(plain.as_bytes())?;
                    self.escape(last)?;
                }
            }
        }
        Ok(())
    }

    fn escape(&mut self, character: char) -> io::Result<()> {
        match self.escapes {
            Escapes::Text => write!(self.out, "{}", character.escape_default()),
            Escapes::Json => {
                let mut units = [0; 2];
                for unit in character.encode_utf16(&mut units) {
                    write!(self.out, "\\u{unit:04x}")?;
                }
                Ok(())
            }
        }
    }
}

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let begun = std::mem::take(&mut self.begun);
        let all = [begun.as_slice(), bytes].concat();
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.text(chunk.valid())?;
            match chunk.invalid() {
                [] => {}
                // The rest of the character may come with the next bytes.
                cut if chunks.peek().is_none() && is_a_beginning(cut) => {
                    cut.clone_into(&mut self.begun);
                }
                _ => self.text("\u{fffd}")?,
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn is_escaped(character: char) -> bool {
    character != '\n' && !is_plain(character)
}

/// Whether more bytes could make a character of these.
fn is_a_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(escapes: Escapes, pieces: &[&[u8]]) -> String {
        let mut bytes = Vec::new();
        let mut out = Plain::new(&mut bytes, escapes);
        for piece in pieces {
            out.write_all(piece).unwrap();
        }
        out.flush().unwrap();
        drop(out);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn nothing_but_plain_text_and_ends_of_lines_gets_through() {
        let hostile = "│ ü\u{1b}[2J\u{202e}\r\n\tx\u{7f}\u{9b}".as_bytes();
        let shown = "│ ü\\u{1b}[2J\\u{202e}\\r\n\\tx\\u{7f}\\u{9b}";
        assert_eq!(written(Escapes::Text, &[hostile]), shown);
        let bytewise: Vec<_> = hostile.chunks(1).collect();
        assert_eq!(written(Escapes::Text, &bytewise), shown);
        assert_eq!(
            written(Escapes::Text, &[b"a\xffb\xc3", b"c"]),
            "a\u{fffd}b\u{fffd}c"
        );
    }

    #[test]
    fn values_in_json_stay_what_they_are() {
        let value = "\u{1b}\u{7f}\u{9b}\u{202e}\u{e0041} ü \"\\\n";
        let json = serde_json::to_string(value).unwrap();
        let printed = written(Escapes::Json, &[json.as_bytes(), b"\n"]);
        let line = printed.strip_suffix('\n').unwrap();
        assert!(line.chars().all(is_plain), "{line}");
        assert_eq!(serde_json::from_str::<String>(line).unwrap(), value);
    }
}
