//! Fuzzing: no row that another program has written makes a panic, or an error that a terminal would act
//! on; what is understood is written the same again.

use std::fmt;

use pac_core::state::{Entry, Head};
use pac_core::text::is_plain;
use pac_core::{Error, ErrorKind};

use super::{Cells, broken, entry, head};
use crate::client::{FromSql, Type};
use crate::store::batch::{Columns, HeadColumns};

/// The columns of a head, in the order in which [`head`] reads them.
static HEAD: [(&str, Type); super::HEAD_COLUMNS] = [
    ("format", Type::INT2),
    ("revision", Type::INT8),
    ("stamp", Type::INT8),
    ("run_limit", Type::INT8),
    ("limit_version", Type::INT8),
    ("last_ticket", Type::INT8),
    ("last_token", Type::INT8),
    ("queued", Type::INT8),
    ("started", Type::INT8),
    ("policy", Type::TEXT),
];

/// Those of an entry.
static ENTRY: [(&str, Type); 17] = [
    ("run_format", Type::INT2),
    ("run", Type::TEXT),
    ("uid", Type::TEXT),
    ("kind", Type::INT2),
    ("priority", Type::INT4),
    ("ticket", Type::INT8),
    ("state", Type::INT2),
    ("token", Type::INT8),
    ("session", Type::INT8),
    ("orphaned", Type::BOOL),
    ("outcome", Type::INT2),
    ("abandoned", Type::BOOL),
    ("queued_at", Type::INT8),
    ("started_at", Type::INT8),
    ("finished_at", Type::INT8),
    ("changed", Type::INT8),
    ("terms", Type::TEXT),
];

/// A row whose cells are lines of a text, and nulls where there is an empty one or none.
#[test]
fn fuzz_rows() {
    pac_fuzz::text(env!("CARGO_MANIFEST_DIR"), "rows", |text| {
        again(&HEAD, text, head, head_cells);
        again(&ENTRY, text, entry, entry_cells);
    });
}

/// A row that is understood is the same after it was written and read again; an error names a column.
fn again<T: fmt::Debug + PartialEq>(
    columns: &'static [(&'static str, Type)],
    text: &str,
    decode: impl Fn(&Line, usize) -> Result<T, Error>,
    encode: impl Fn(&T) -> String,
) {
    match decode(&Line::of(columns, text), 0) {
        Ok(record) => {
            let written = encode(&record);
            let read = decode(&Line::of(columns, &written), 0);
            assert_eq!(read.unwrap(), record, "{written:?}");
        }
        Err(error) => {
            let kinds = [ErrorKind::Corrupt, ErrorKind::Incompatible];
            assert!(kinds.contains(&error.kind()), "{error:?}");
            let shown = error.to_string();
            assert!(shown.chars().all(is_plain), "{shown:?}");
            // Beside the columns there is the format of a record.
            let mut names = columns.iter().map(|(name, _)| *name).chain(["format"]);
            assert!(names.any(|name| shown.contains(name)), "{shown}");
        }
    }
}

/// Cells as the server sends them.
struct Line {
    columns: &'static [(&'static str, Type)],
    cells: Vec<Option<Vec<u8>>>,
}

impl Line {
    fn of(columns: &'static [(&'static str, Type)], text: &str) -> Self {
        let mut lines = text.lines();
        let cells = columns.iter().map(|(_, of)| {
            let line = lines.next().filter(|line| !line.is_empty())?;
            Some(sent(of, line).unwrap_or_else(|| line.as_bytes().to_vec()))
        });
        Self {
            columns,
            cells: cells.collect(),
        }
    }
}

/// A value of a type; `None` for what is none, which is sent as it is.
fn sent(of: &Type, text: &str) -> Option<Vec<u8>> {
    match *of {
        Type::INT2 => Some(text.parse::<i16>().ok()?.to_be_bytes().to_vec()),
        Type::INT4 => Some(text.parse::<i32>().ok()?.to_be_bytes().to_vec()),
        Type::INT8 => Some(text.parse::<i64>().ok()?.to_be_bytes().to_vec()),
        Type::BOOL => Some(vec![u8::from(text.parse::<bool>().ok()?)]),
        _ => None,
    }
}

impl Cells for Line {
    fn value<'a, T: FromSql<'a>>(&'a self, at: usize) -> Result<T, Error> {
        let of = &self.columns[at].1;
        assert!(T::accepts(of), "{of}");
        let cell = self.cells[at].as_deref();
        T::from_sql_nullable(of, cell).map_err(|error| broken(self.name(at), error))
    }

    fn name(&self, at: usize) -> &str {
        self.columns[at].0
    }
}

/// A commit writes a head without its version, which the server gives it.
fn head_cells(head: &Head) -> String {
    let columns = HeadColumns::of(head, head.policy.as_deref());
    [
        super::FORMAT.to_string(),
        head.revision.to_string(),
        head.stamp.get().to_string(),
        columns.limit.to_string(),
        or_null(columns.limit_version),
        columns.last_ticket.to_string(),
        columns.last_token.to_string(),
        columns.queued.to_string(),
        columns.started.to_string(),
        or_null(columns.policy),
    ]
    .join("\n")
}

fn entry_cells(entry: &Entry) -> String {
    let columns = Columns::of_entry(entry, false);
    [
        super::FORMAT.to_string(),
        columns.run.to_owned(),
        columns.uid.to_owned(),
        columns.kind.to_string(),
        columns.priority.to_string(),
        columns.ticket.to_string(),
        columns.state.to_string(),
        or_null(columns.token),
        or_null(columns.session),
        columns.orphaned.to_string(),
        or_null(columns.outcome),
        columns.abandoned.to_string(),
        or_null(columns.queued_at),
        or_null(columns.started_at),
        or_null(columns.finished_at),
        columns.was.to_string(),
        or_null(columns.terms),
    ]
    .join("\n")
}

fn or_null(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}
