//! `cargo xtask miri`: runs the synchronous parts under Miri, which finds undefined behaviour in
//! their dependencies, and leaks.
//!
//! Not part of CI: it needs a nightly toolchain, and takes minutes.

use std::path::Path;

use anyhow::Result;

use crate::run::CommandLine;
use crate::tools;

/// The library tests of each crate to interpret, by the beginnings of their names. They use no
/// sockets, no threads that wait for real time, and no time of day.
const PARTS: [(&str, &[&str]); 2] = [
    (
        "pac-core",
        &["error::", "name::", "protocol::", "state::", "value::"],
    ),
    ("pac-memory", &["sessions::"]),
];

/// This test takes twenty thousand steps, too many for an interpreter.
const TOO_LONG: &str = "agrees_with_a_sorted_vector";

/// Runs Miri, or prints how to install it.
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
