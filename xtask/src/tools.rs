//! External tools that the tasks use: installed when cargo can install them,
//! else named with the command that does.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::run::CommandLine;
use crate::servers::is_root;

/// A tool that is not part of this workspace.
#[derive(Debug)]
pub(crate) struct Tool {
    /// What a person calls it.
    name: &'static str,
    /// A command that succeeds where the tool is there and prints its version.
    probe: &'static str,
    /// How it gets there.
    install: Install,
}

#[derive(Debug)]
enum Install {
    /// From the registry, by us; the version is the one that CI trusts.
    Cargo { version: &'static str },
    /// From the system's packages, where we may; else the crate from the registry, kept below
    /// `target`, whose program then takes the place of the tool's.
    System {
        packages: &'static str,
        instead: &'static str,
    },
    /// By a person: it changes the machine or the toolchain.
    Person { command: &'static str },
}

/// The compiler that the client of etcd is built with, and the types that it comes with.
pub(crate) const PROTOC: Tool = Tool {
    name: "protoc",
    probe: "protoc --descriptor_set_out=/dev/null google/protobuf/any.proto",
    install: Install::System {
        packages: "protobuf-compiler libprotobuf-dev",
        instead: "protox",
    },
};

/// What builds have to be told of, because it is not the system's: the value for `PROTOC`.
pub(crate) fn own_protoc(root: &Path) -> Option<PathBuf> {
    let protoc = root.join("target/tools/bin/protox");
    protoc.is_file().then_some(protoc)
}

/// Policy on dependencies: bans, licenses, sources.
pub(crate) const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    probe: "cargo deny --version",
    install: Install::Cargo { version: "0.20.2" },
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

/// Makes sure that a tool can be used, or says what would make it so.
pub(crate) fn ensure(root: &Path, tool: &Tool) -> Result<()> {
    let found = CommandLine::new(tool.probe).probe(root);
    match (&tool.install, found) {
        (Install::Person { .. }, Some(_)) => Ok(()),
        (Install::Person { command }, None) => {
            bail!("{} is missing; install it with `{command}`", tool.name)
        }
        (Install::Cargo { version }, Some(found)) => {
            if !found.ends_with(&format!(" {version}")) {
                // A person's own tool is not replaced behind their back.
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
        (Install::Cargo { version }, None) => {
            println!(
                "{} is missing; installing it, which takes minutes",
                tool.name
            );
            CommandLine::new("cargo install --locked")
                .arg(tool.name)
                .arg("--version")
                .arg(*version)
                .run(root)
        }
    }
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
}
