//! `cargo xtask advisories`: looks for known vulnerabilities of the dependencies. It needs the
//! network and changes from day to day, so it runs on a schedule and is no stage of CI.

use std::path::Path;

use anyhow::Result;

use crate::run::CommandLine;
use crate::tools;

/// Fails where an advisory names a version that the lock file has, and where the list of them
/// cannot be had: not to know is no good news.
pub(crate) fn run(root: &Path) -> Result<()> {
    tools::ensure(root, &tools::CARGO_DENY)?;
    CommandLine::new("cargo deny check advisories").run(root)
}
