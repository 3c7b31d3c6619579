//! The trace: read and checked as a whole before the replay starts.

mod fields;
#[cfg(test)]
mod fuzz;
mod row;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use pac_concurrency::text::one_line;
use pac_concurrency::{
    Group, Limit, PipelineRunKey, Priority, RepositoryKey, Supersedes, Timestamp, Weight,
};

/// Longest line, in bytes.
const MAX_LINE: usize = 1 << 20;
/// The most bad lines that are described; the rest is counted.
const MAX_PROBLEMS: usize = 20;

/// A checked trace.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Trace {
    /// Sorted by time; rows of the same moment keep the order of the file.
    pub(crate) rows: Vec<Row>,
}

/// One event of a trace.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// Its line in the file, from 1.
    pub(crate) line: usize,
    pub(crate) at: Timestamp,
    pub(crate) repository: RepositoryKey,
    pub(crate) event: Event,
}

/// The event of a row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// A run arrives, and the repository's limit is announced with it.
    Run {
        run: PipelineRunKey,
        limit: Limit,
        /// How long it runs once it started, in whole milliseconds.
        duration: Duration,
        priority: Priority,
        weight: Weight,
        group: Option<Group>,
        supersedes: Supersedes,
    },
    /// The repository's limit changes.
    SetLimit(Limit),
    /// A queued or running run ends. No row needs to have started it.
    Cancel(PipelineRunKey),
    /// Nothing is started from now on, or again.
    Pause(bool),
}

impl Event {
    /// Whether runs may wait because of it although slots are free and none runs.
    pub(crate) fn may_hold_up(&self) -> bool {
        match self {
            Self::Run { weight, .. } => *weight != Weight::ONE,
            Self::Pause(paused) => *paused,
            Self::SetLimit(_) | Self::Cancel(_) => false,
        }
    }
}

impl Trace {
    /// Reads the trace of this path; `-` is standard input.
    pub(crate) fn open(path: &Path) -> Result<Self, BadTrace> {
        let name = name(path);
        if path == Path::new("-") {
            return Self::read(&name, io::stdin().lock());
        }
        match File::open(path) {
            Ok(file) => Self::read(&name, BufReader::new(file)),
            Err(error) => Err(BadTrace::unreadable(&name, error)),
        }
    }

    /// Reads a trace; errors call it `name`.
    pub(crate) fn read(name: &str, mut input: impl BufRead) -> Result<Self, BadTrace> {
        let mut rows = Vec::new();
        let mut problems = Problems::default();
        let mut started = HashMap::new();
        let mut text = Vec::new();
        for line in 1.. {
            match next_line(&mut input, &mut text) {
                Ok(Line::End) => break,
                Ok(Line::Blank) => {}
                Ok(Line::TooLong) => problems.add(
                    line,
                    &format!(
                        "the line is longer than {MAX_LINE} bytes, the most that a row may have"
                    ),
                ),
                Ok(Line::Text) => {
                    let row = row::parse(line, &text)
                        .and_then(|row| starts_once(&mut started, &row).map(|()| row));
                    match row {
                        Ok(row) => rows.push(row),
                        Err(problem) => problems.add(line, &problem),
                    }
                }
                Err(error) => return Err(BadTrace::unreadable(name, error)),
            }
        }
        if problems.described.is_empty() {
            rows.sort_by_key(|row| row.at);
            Ok(Self { rows })
        } else {
            Err(BadTrace {
                trace: name.to_owned(),
                cause: Cause::Lines(problems),
            })
        }
    }

    /// The number of runs in the trace.
    pub(crate) fn runs(&self) -> usize {
        let is_run = |row: &&Row| matches!(row.event, Event::Run { .. });
        self.rows.iter().filter(is_run).count()
    }
}

/// The name of the trace at this path in messages.
pub(crate) fn name(path: &Path) -> String {
    if path == Path::new("-") {
        "stdin".to_owned()
    } else {
        one_line(&path.to_string_lossy()).into_owned()
    }
}

/// Why a trace cannot be replayed. Displays one problem per line, each with the trace's line.
#[derive(Debug)]
pub(crate) struct BadTrace {
    trace: String,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Unreadable(io::Error),
    Lines(Problems),
}

#[derive(Debug, Default)]
struct Problems {
    described: Vec<(usize, String)>,
    more: usize,
}

impl Problems {
    fn add(&mut self, line: usize, problem: &str) {
        if self.described.len() < MAX_PROBLEMS {
            self.described.push((line, one_line(problem).into_owned()));
        } else {
            self.more += 1;
        }
    }
}

impl BadTrace {
    fn unreadable(trace: &str, error: io::Error) -> Self {
        Self {
            trace: trace.to_owned(),
            cause: Cause::Unreadable(error),
        }
    }
}

impl fmt::Display for BadTrace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, cause } = self;
        match cause {
            Cause::Unreadable(error) => write!(f, "cannot read the trace {trace}: {error}"),
            Cause::Lines(Problems { described, more }) => {
                write!(f, "bad trace; nothing was replayed")?;
                for (line, problem) in described {
                    write!(f, "\n{trace}:{line}: {problem}")?;
                }
                if *more > 0 {
                    write!(f, "\nand {more} more")?;
                }
                Ok(())
            }
        }
    }
}

/// Refuses a second row that starts the same run.
fn starts_once(
    started: &mut HashMap<(RepositoryKey, PipelineRunKey), usize>,
    row: &Row,
) -> Result<(), String> {
    let Event::Run { run, .. } = &row.event else {
        return Ok(());
    };
    match started.entry((row.repository.clone(), run.clone())) {
        Entry::Vacant(first) => {
            first.insert(row.line);
            Ok(())
        }
        Entry::Occupied(first) => Err(format!(
            "run {run} of {} was already in line {}; a run arrives once, so give each its own name",
            row.repository,
            first.get()
        )),
    }
}

enum Line {
    End,
    Blank,
    TooLong,
    Text,
}

/// Reads the next line into `text`, at most [`MAX_LINE`] bytes of it.
fn next_line(input: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<Line> {
    text.clear();
    // One byte more, for the line break.
    let most = MAX_LINE as u64 + 1;
    if input.by_ref().take(most).read_until(b'\n', text)? == 0 {
        return Ok(Line::End);
    }
    if text.last() == Some(&b'\n') {
        text.pop();
    } else if text.len() > MAX_LINE {
        input.skip_until(b'\n')?;
        return Ok(Line::TooLong);
    }
    Ok(if text.trim_ascii().is_empty() {
        Line::Blank
    } else {
        Line::Text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Trace, String> {
        Trace::read("t", text).map_err(|error| error.to_string())
    }

    fn run(at: &str, run: &str) -> String {
        format!(
            r#"{{"at":"2026-06-01T{at}Z","repository":"ns/r","limit":2,"run":"ns/{run}","duration_s":1}}"#
        )
    }

    #[test]
    fn rows_are_sorted_by_time_and_equal_times_keep_the_order_of_the_file() {
        let text = [
            run("10:00:00", "c"),
            String::new(),
            run("09:00:00", "b"),
            "  \t\r".to_owned(),
            run("09:00:00", "a"),
        ];
        let trace = read(text.join("\n").as_bytes()).unwrap();
        let lines: Vec<_> = trace.rows.iter().map(|row| row.line).collect();
        assert_eq!(lines, [3, 5, 1]);
        assert_eq!(trace.runs(), 3);
    }

    #[test]
    fn line_ends_of_windows_and_none_at_all_are_fine() {
        let text = format!(
            "\u{feff}{}\r\n{}",
            run("10:00:00", "a"),
            run("10:00:00", "b")
        );
        assert_eq!(read(text.as_bytes()).unwrap().rows.len(), 2);
        assert_eq!(read(b"").unwrap().rows, []);
    }

    #[test]
    fn a_run_that_arrives_twice_is_an_error_that_names_both_lines() {
        let text = [
            run("10:00:00", "a"),
            run("11:00:00", "b"),
            run("12:00:00", "a"),
        ];
        let error = read(text.join("\n").as_bytes()).unwrap_err();
        assert!(
            error.contains("t:3: run ns/a of ns/r was already in line 1"),
            "{error}"
        );
        let elsewhere = run("12:00:00", "a").replace("ns/r", "ns/other");
        assert!(read([run("10:00:00", "a"), elsewhere].join("\n").as_bytes()).is_ok());
    }

    #[test]
    fn twenty_bad_lines_are_described_and_the_rest_counted() {
        let mut text = vec![run("10:00:00", "a")];
        text.extend((0..23).map(|_| "nonsense".to_owned()));
        let error = read(text.join("\n").as_bytes()).unwrap_err();
        assert!(
            error.contains("\nt:2: ") && error.contains("\nt:21: "),
            "{error}"
        );
        assert!(
            !error.contains("t:22:") && error.ends_with("\nand 3 more"),
            "{error}"
        );
    }

    #[test]
    fn a_line_too_long_is_skipped_and_the_next_one_read() {
        let pad = |length: usize| {
            let row = run("10:00:00", "a");
            format!("{row}{}", " ".repeat(length - row.len()))
        };
        assert!(read(pad(MAX_LINE).as_bytes()).is_ok());
        assert!(read(format!("{}\n", pad(MAX_LINE)).as_bytes()).is_ok());
        let error = read(format!("{}\n[]\n", pad(MAX_LINE + 1)).as_bytes()).unwrap_err();
        assert!(
            error.contains("t:1: the line is longer than 1048576 bytes"),
            "{error}"
        );
        assert!(error.contains("t:2: "), "{error}");
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let row = r#"{"at":"2026-06-01T10:00:00.5+02:00","repository":"ns/r","limit":2,"run":"ns/a","duration_s":1.5,"priority":-3}"#;
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            usize::try_from(random % below as u64).unwrap()
        };
        let pool = b"\0\n\"\\{}[]:,.+-eE019TZ/ \xff\xc3\xa9ntf";
        for _ in 0..20_000 {
            let mut bytes = row.as_bytes().to_vec();
            for _ in 0..=next(4) {
                let at = next(bytes.len());
                match next(4) {
                    0 => bytes[at] = pool[next(pool.len())],
                    1 => bytes.insert(at, pool[next(pool.len())]),
                    2 => bytes.truncate(at + 1),
                    _ => drop(bytes.remove(at)),
                }
                if bytes.is_empty() {
                    break;
                }
            }
            if let Err(error) = read(&bytes) {
                assert!(error.contains("t:"), "{error}");
            }
        }
    }
}
