//! The text of the transcript: commands and what they said, without what differs each time.

use std::fmt::Write as _;

use comfy_table::Table;
use comfy_table::presets::UTF8_BORDERS_ONLY;

use crate::cluster::Ran;

/// The columns whose values are times, or names that are new each time.
const DIFFERS: [&str; 5] = ["process", "for", "ended", "waited", "ran"];

/// What stands in their place.
const LEFT_OUT: &str = "…";

/// What was said so far.
#[derive(Default)]
pub(crate) struct Said {
    text: String,
    leaves_tokens_out: bool,
}

impl Said {
    /// A command and what it said; it has to end with this code.
    pub(crate) fn command(&mut self, ran: &Ran, code: i32) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let (stdout, stderr) = (text(&ran.output.stdout), text(&ran.output.stderr));
        let ended = ran.output.status.code();
        assert_eq!(ended, Some(code), "{}: {stdout}{stderr}", ran.command);
        self.line(&format!("$ {}", ran.command));
        self.text
            .push_str(&without_times(&stdout, self.leaves_tokens_out));
        self.text.push_str(&stderr);
        if code != 0 {
            self.line(&format!("(exit code {code})"));
        }
    }

    /// From here on the tokens differ each time: a run that another replica takes over gets a new one,
    /// and which those are is not the same each time.
    pub(crate) fn leave_tokens_out(&mut self) {
        self.leaves_tokens_out = true;
    }

    /// A command that the test stands in for, with its answer.
    pub(crate) fn shell(&mut self, command_and_answer: &str) {
        self.line(&format!("$ {command_and_answer}"));
    }

    /// What others do meanwhile.
    pub(crate) fn note(&mut self, note: &str) {
        self.line(&format!("# {note}"));
    }

    pub(crate) fn end(self) -> String {
        self.text
    }

    fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").unwrap();
    }
}

/// The text, its tables set anew without what differs each time.
fn without_times(text: &str, tokens_too: bool) -> String {
    let mut told = String::new();
    let mut rows: Vec<&str> = Vec::new();
    for line in text.lines() {
        match line.chars().next() {
            Some('│') => rows.push(line),
            Some('┌' | '╞') => {}
            Some('└') => writeln!(told, "{}", table(&rows, tokens_too)).unwrap(),
            _ => writeln!(told, "{line}").unwrap(),
        }
        if line.starts_with('└') {
            rows.clear();
        }
    }
    told
}

fn table(rows: &[&str], tokens_too: bool) -> Table {
    let header: Vec<char> = rows[0].chars().collect();
    let begins = |at: &usize| {
        let has_gap = header[at - 2..*at] == [' ', ' '] || header[at - 2] == '│';
        has_gap && header[*at] != ' '
    };
    let mut starts: Vec<usize> = (2..header.len() - 1).filter(begins).collect();
    starts.push(header.len() - 1);
    let cells = |row: &str| {
        let row: Vec<char> = row.chars().collect();
        let cell = |range: &[usize]| row[range[0]..range[1]].iter().collect::<String>();
        let cells = starts.windows(2).map(|range| cell(range).trim().to_owned());
        cells.collect::<Vec<_>>()
    };
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY);
    let names = cells(rows[0]);
    table.set_header(&names);
    for row in &rows[1..] {
        let cells = cells(row).into_iter().zip(&names);
        table.add_row(cells.map(|(cell, name)| {
            let differs = DIFFERS.contains(&name.as_str()) || (tokens_too && name == "token");
            let differs = differs && !cell.is_empty();
            if differs { LEFT_OUT.to_owned() } else { cell }
        }));
    }
    table
}
