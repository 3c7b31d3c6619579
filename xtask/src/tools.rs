//! External tools that the tasks use. cargo installs those that it can; for the others, an error
//! names the command that does.

use std::env;
use std::path::Path;

use anyhow::{Result, bail};

use crate::run::{CommandLine, own_protoc};
use crate::user::is_root;

/// A tool that is not part of this workspace.
#[derive(Debug)]
pub(crate) struct Tool {
    /// Its usual name.
    name: &'static str,
    /// A command that prints the tool's version, and fails if the tool is missing.
    probe: &'static str,
    /// How it is installed.
    install: Install,
}

#[derive(Debug)]
enum Install {
    /// Installed by this program from the registry, in the version that CI uses, and with these arguments
    /// of `cargo install`.
    Cargo {
        version: &'static str,
        args: &'static [&'static str],
    },
    /// Installed from the system's packages if this runs as root; otherwise the crate from the
    /// registry is built below `target`, and its program is used in place of the tool.
    System {
        packages: &'static str,
        instead: &'static str,
    },
    /// Installed by a person, since that changes the machine or the toolchain.
    Person { command: &'static str },
}

/// The compiler that building the etcd client needs, and the types that come with it.
pub(crate) const PROTOC: Tool = Tool {
    name: "protoc",
    probe: "protoc --descriptor_set_out=/dev/null google/protobuf/any.proto",
    install: Install::System {
        packages: "protobuf-compiler libprotobuf-dev",
        instead: "protox",
    },
};

/// Checks the dependencies: bans, licenses, sources, known vulnerabilities.
pub(crate) const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    probe: "cargo deny --version",
    install: Install::Cargo {
        version: "0.20.2",
        // To optimise it takes minutes, and it runs for seconds.
        args: &["--debug"],
    },
};

/// Builds programs that carry the list of their dependencies, for scanners of vulnerabilities.
pub(crate) const CARGO_AUDITABLE: Tool = Tool {
    name: "cargo-auditable",
    probe: "cargo auditable --version",
    install: Install::Cargo {
        version: "0.7.7",
        args: &[],
    },
};

/// Collects the licenses of the dependencies.
pub(crate) const CARGO_ABOUT: Tool = Tool {
    name: "cargo-about",
    probe: "cargo about --version",
    install: Install::Cargo {
        version: "0.9.3",
        args: &["--features", "cli"],
    },
};

/// Lists the files of the repository.
pub(crate) const GIT: Tool = Tool {
    name: "git",
    probe: "git --version",
    install: Install::Person {
        command: "apt-get install git",
    },
};

/// Formatting.
pub(crate) const RUSTFMT: Tool = Tool {
    name: "rustfmt",
    probe: "cargo fmt --version",
    install: Install::Person {
        command: "rustup component add rustfmt",
    },
};

/// Lints.
pub(crate) const CLIPPY: Tool = Tool {
    name: "clippy",
    probe: "cargo clippy --version",
    install: Install::Person {
        command: "rustup component add clippy",
    },
};

/// Interprets tests and finds undefined behaviour.
pub(crate) const MIRI: Tool = Tool {
    name: "Miri",
    probe: "cargo +nightly miri --version",
    install: Install::Person {
        command: "rustup toolchain install nightly --component miri",
    },
};

/// Checks that a tool can be used, and installs it or names the command that does.
pub(crate) fn ensure(root: &Path, tool: &Tool) -> Result<()> {
    let found = CommandLine::new(tool.probe).probe(root);
    match (&tool.install, found) {
        (Install::Person { .. }, Some(_)) => Ok(()),
        (Install::Person { command }, None) => {
            bail!("{} is missing; install it with `{command}`", tool.name)
        }
        (Install::Cargo { version, .. }, Some(found)) => {
            if is_another(tool.name, &found, version) {
                // Do not replace a tool that a person installed.
                println!("note: found {found}; the version that counts is {version}");
            }
            Ok(())
        }
        (Install::System { .. }, Some(_)) => Ok(()),
        (Install::System { packages, instead }, None) => {
            if env::var_os("PROTOC").is_some() || own_protoc(root).is_some() {
                return Ok(());
            }
            println!("{} is missing; installing it", tool.name);
            let install = CommandLine::new("apt-get install --yes --no-install-recommends");
            let packages = packages.split(' ');
            let install = packages.fold(install, CommandLine::arg);
            if is_root() && install.run(root).is_ok() {
                return Ok(());
            }
            CommandLine::new("cargo install --locked --features bin --root target/tools")
                .arg(*instead)
                .run(root)
        }
        (Install::Cargo { version, args }, None) => {
            println!(
                "{} is missing; installing it, which takes minutes",
                tool.name
            );
            from_the_registry(tool.name, version, args).run(root)
        }
    }
}

/// Whether a tool says that it is of another version. Some hand the question on to cargo.
fn is_another(name: &str, found: &str, version: &str) -> bool {
    let own = found.strip_prefix(name);
    own.is_some_and(|own| own.trim() != version)
}

fn from_the_registry(name: &str, version: &str, args: &[&str]) -> CommandLine {
    let install = CommandLine::new("cargo install --locked")
        .arg(name)
        .arg("--version")
        .arg(version);
    let args = args.iter();
    args.fold(install, |install, arg| install.arg(*arg))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named_with_its_cure() {
        let tool = Tool {
            name: "frobnicator",
            probe: "no-such-program-here --version",
            install: Install::Person {
                command: "apt-get install frobnicator",
            },
        };
        let error = ensure(Path::new("."), &tool).unwrap_err();
        assert_eq!(
            error.to_string(),
            "frobnicator is missing; install it with `apt-get install frobnicator`"
        );
    }

    #[test]
    fn a_crate_is_installed_in_its_version_and_with_what_its_program_needs() {
        for (args, line) in [
            (&[][..], "cargo install --locked a --version 1.2.3"),
            (
                &["--features", "cli"],
                "cargo install --locked a --version 1.2.3 --features cli",
            ),
        ] {
            assert_eq!(from_the_registry("a", "1.2.3", args).to_string(), line);
        }
    }

    #[test]
    fn another_version_is_told_from_the_one_that_counts_and_from_that_of_cargo() {
        for (found, another) in [
            ("cargo-deny 1.2.3", false),
            ("cargo-deny 1.2.30", true),
            ("cargo 1.95.0 (f2d3ce0bd 2026-03-21)", false),
        ] {
            assert_eq!(is_another("cargo-deny", found, "1.2.3"), another, "{found}");
        }
    }
}
