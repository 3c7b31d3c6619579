//! `cargo xtask miri`: the synchronous parts under Miri, which finds undefined
//! behaviour in what they depend on, and leaks.
//!
//! Not part of CI: it needs a nightly toolchain, and takes minutes.

use std::path::Path;

use anyhow::Result;

use crate::run::CommandLine;
use crate::tools;

/// What is interpreted: the library tests of a crate whose names begin so.
/// No sockets, no threads that wait for real time, no time of day.
const PARTS: [(&str, &[&str]); 2] = [
    (
        "pac-core",
        &["error::", "name::", "protocol::", "state::", "value::"],
    ),
    ("pac-memory", &["sessions::"]),
];

/// Twenty thousand steps are too many for an interpreter.
const TOO_LONG: &str = "agrees_with_a_sorted_vector";

/// Runs Miri, or says how to get it.
pub(crate) fn run(root: &Path) -> Result<()> {
    tools::ensure(root, &tools::MIRI)?;
    PARTS
        .iter()
        .try_for_each(|(package, tests)| command(package, tests).run(root))
}

fn command(package: &str, tests: &[&str]) -> CommandLine {
    let mut command = CommandLine::new("cargo +nightly miri test --locked --lib --package")
        .arg(package)
        .arg("--")
        .arg("--skip")
        .arg(TOO_LONG);
    for test in tests {
        command = command.arg(*test);
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_miri_can_run_is_run() {
        let [core, memory] = PARTS.map(|(package, tests)| command(package, tests).to_string());
        assert!(core.contains("miri test"), "{core}");
        assert!(core.ends_with("protocol:: state:: value::"), "{core}");
        assert!(!core.contains("manager::"), "{core}");
        assert!(memory.ends_with("sessions::"), "{memory}");
    }
}
