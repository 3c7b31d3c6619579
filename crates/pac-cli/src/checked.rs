//! What a list of checks came to: the output of `pac doctor` and of `pac kubernetes check`.

use serde::Serialize;

use crate::exit::Failure;
use crate::format::{Format, Printer, cell};

/// One check, as JSON and YAML have it.
#[derive(Debug, Serialize)]
pub(crate) struct Checked {
    check: &'static str,
    result: &'static str,
    detail: String,
}

impl Checked {
    pub(crate) fn ok(check: &'static str, detail: &str) -> Self {
        Self::new(check, "ok", cell(detail))
    }

    /// All works, and something should be seen to.
    pub(crate) fn warning(check: &'static str, what: &str) -> Self {
        Self::new(check, "warning", cell(what))
    }

    pub(crate) fn failed(check: &'static str, why: &Failure) -> Self {
        Self::new(check, "failed", why.to_string())
    }

    pub(crate) fn skipped(check: &'static str, why: &str) -> Self {
        Self::new(check, "skipped", cell(why))
    }

    fn new(check: &'static str, result: &'static str, detail: String) -> Self {
        Self {
            check,
            result,
            detail,
        }
    }

    fn line(&self) -> String {
        // Make failures stand out.
        let result = match self.result {
            "failed" => "FAILED",
            "warning" => "WARNING",
            result => result,
        };
        let detail = self.detail.trim_end().replace('\n', "\n         ");
        format!("{result:<8} {}: {detail}\n", self.check)
    }
}

/// Prints a line for each check, or a list of them.
pub(crate) fn print(
    format: Format,
    checks: impl IntoIterator<Item = Checked>,
) -> Result<(), Failure> {
    let mut printer = Printer::new(format);
    for check in checks {
        match format {
            Format::Table => printer.text(&check.line())?,
            Format::Json | Format::Yaml => printer.item(&check)?,
        }
    }
    match format {
        Format::Table => printer.flush(),
        Format::Json | Format::Yaml => printer.end_list(),
    }
}
