//! The output of operator's commands: a table for people, JSON or YAML for programs.
//!
//! The shapes are described in `docs/json.md`.

use std::io::{self, Stdout, Write};

use clap::ValueEnum;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{ContentArrangement, Table};
use pac_concurrency::text::{is_plain, one_line};
use serde::Serialize;

use crate::exit::Failure;
use crate::output::{Escapes, Plain};

/// The option of every operator's command.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct FormatArg {
    /// How to print it
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub(crate) format: Format,
}

/// The output format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people; may change with any version
    Table,
    /// For programs, as docs/json.md describes
    Json,
    /// The same as YAML
    Yaml,
}

/// Standard output, written piece by piece. If the reader has closed it, the command ends
/// successfully, through a [`Failure`] without a message.
#[derive(Debug)]
pub(crate) struct Printer<W: Write = Stdout> {
    format: Format,
    out: Plain<W>,
    items: usize,
}

impl Printer {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            out: Plain::new(
                io::stdout(),
                match format {
                    Format::Table => Escapes::Text,
                    Format::Json | Format::Yaml => Escapes::Json,
                },
            ),
            items: 0,
        }
    }
}

impl<W: Write> Printer<W> {
    /// Prints text for people.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.out.write_all(text.as_bytes())?)
    }

    /// Prints the next item of a list, one per line in JSON. End the list with
    /// [`Self::end_list`].
    pub(crate) fn item(&mut self, item: &impl Serialize) -> Result<(), Failure> {
        match self.format {
            Format::Yaml => match plain_yaml(&[item])? {
                Some(text) => self.out.write_all(text.as_bytes())?,
                None => {
                    let json = serde_json::to_string(item).map_err(io::Error::from)?;
                    writeln!(self.out, "- {json}")?;
                }
            },
            Format::Table | Format::Json => {
                let before = if self.items == 0 { "[\n" } else { ",\n" };
                self.out.write_all(before.as_bytes())?;
                serde_json::to_writer(&mut self.out, item).map_err(io::Error::from)?;
            }
        }
        self.items += 1;
        Ok(())
    }

    /// Ends a list, which may be empty.
    pub(crate) fn end_list(&mut self) -> Result<(), Failure> {
        match (self.items, self.format) {
            (0, _) => self.out.write_all(b"[]\n")?,
            (_, Format::Yaml) => {}
            (_, Format::Table | Format::Json) => self.out.write_all(b"\n]\n")?,
        }
        self.flush()
    }

    /// Prints a document of its own, a line of JSON or a YAML document, and flushes it.
    pub(crate) fn document(&mut self, document: &impl Serialize) -> Result<(), Failure> {
        match self.format {
            Format::Yaml => {
                if self.items > 0 {
                    self.out.write_all(b"---\n")?;
                }
                self.out.write_all(yaml(document)?.as_bytes())?;
            }
            Format::Table | Format::Json => {
                serde_json::to_writer(&mut self.out, document).map_err(io::Error::from)?;
                self.out.write_all(b"\n")?;
            }
        }
        self.items += 1;
        self.flush()
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        Ok(self.out.flush()?)
    }
}

/// What others wrote, in a cell of a table: on one line, and of a bounded length.
pub(crate) fn cell(text: &str) -> String {
    one_line(text).into_owned()
}

/// Makes a table as wide as the terminal that it goes to, at most: long cells take several lines.
pub(crate) fn fit(table: &mut Table) {
    let terminal = console::Term::stdout();
    if let Some((_, columns)) = terminal.size_checked().filter(|_| terminal.is_term()) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(columns);
    }
}

/// A table with this header.
pub(crate) fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    table.set_header(header);
    table
}

/// Prints the result of a command: a sentence, or a document.
pub(crate) fn print_result(
    format: Format,
    sentence: &str,
    document: &impl Serialize,
) -> Result<(), Failure> {
    let mut printer = Printer::new(format);
    match format {
        Format::Table => {
            printer.text(&format!("{sentence}\n"))?;
            printer.flush()
        }
        Format::Json | Format::Yaml => printer.document(document),
    }
}

/// The value in YAML. One with characters that a terminal would act on is written as JSON, which
/// is YAML, too: in it they can be escaped wherever they are.
fn yaml(value: &impl Serialize) -> io::Result<String> {
    Ok(match plain_yaml(value)? {
        Some(text) => text,
        None => format!("{}\n", serde_json::to_string(value)?),
    })
}

/// The value in YAML; `None` if it has such characters.
fn plain_yaml(value: &impl Serialize) -> io::Result<Option<String>> {
    let mut text = serde_saphyr::to_string(value).map_err(io::Error::other)?;
    if !text.chars().all(|one| one == '\n' || is_plain(one)) {
        return Ok(None);
    }
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_in_yaml_stay_what_they_are_and_move_no_cursor() {
        let hostile = ["\u{1b}[2J", "a\u{202e}b", "\u{9b}\u{7f}", "\u{e0041}"];
        let values = ["plain: #1", "ü\nb"].into_iter().chain(hostile);
        let mut printed = Vec::new();
        let mut printer = Printer {
            format: Format::Yaml,
            out: Plain::new(&mut printed, Escapes::Json),
            items: 0,
        };
        for value in values.clone() {
            printer.item(&[value]).unwrap();
        }
        printer.end_list().unwrap();
        drop(printer);
        let printed = String::from_utf8(printed).unwrap();
        assert!(
            printed.chars().all(|one| one == '\n' || is_plain(one)),
            "{printed}"
        );
        let read: Vec<Vec<String>> = serde_saphyr::from_str(&printed).unwrap();
        assert!(
            read.iter().flatten().map(String::as_str).eq(values),
            "{printed}"
        );
        let whole: String = serde_saphyr::from_str(&yaml(&hostile[0]).unwrap()).unwrap();
        assert_eq!(whole, hostile[0]);
    }
}
