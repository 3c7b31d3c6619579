//! `cargo xtask dist`: builds the files to distribute: the binary, which carries the list of its
//! dependencies, their licenses, shell completions, manual pages.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::run::CommandLine;
use crate::tools;

/// The output directory, below the root.
const DIRECTORY: &str = "target/dist";
/// The licenses of all that the binary is built from.
const LICENSES: &str = "THIRD-PARTY-LICENSES.txt";

/// Builds the binary to distribute, and generates its completions, manual pages and licenses.
pub(crate) fn run(root: &Path) -> Result<()> {
    for tool in [&tools::PROTOC, &tools::CARGO_AUDITABLE, &tools::CARGO_ABOUT] {
        tools::ensure(root, tool)?;
    }
    let directory = root.join(DIRECTORY);
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("cannot empty {DIRECTORY}"))?;
    }
    fs::create_dir_all(&directory)?;
    // Only a build with the feature `dist` can generate them; the distributed binary has no such
    // command.
    CommandLine::new("cargo run --quiet --locked -p pac-cli --features dist -- dist-files")
        .arg(DIRECTORY)
        .run(root)?;
    CommandLine::new("cargo auditable build --locked --release -p pac-cli --features etcd")
        .run(root)?;
    let binary = format!("pac{}", std::env::consts::EXE_SUFFIX);
    let metadata = CommandLine::new("cargo metadata --format-version 1 --no-deps --locked");
    let target = target_directory(&metadata.output(root)?)?;
    let built = target.join("release").join(&binary);
    fs::copy(&built, directory.join(&binary))
        .with_context(|| format!("no binary at {}", built.display()))?;
    CommandLine::new("cargo about generate --locked --fail --features etcd")
        .arg("--manifest-path=crates/pac-cli/Cargo.toml")
        .arg("--config=xtask/about.toml")
        .arg(format!("--output-file={DIRECTORY}/{LICENSES}"))
        .arg("xtask/about.hbs")
        .run(root)?;
    fs::copy(root.join("LICENSE"), directory.join("LICENSE")).context("no LICENSE")?;
    println!("\nin {DIRECTORY}: pac, completions/, man/, LICENSE, {LICENSES}");
    Ok(())
}

/// Where cargo builds: a person may have another place than `target`.
fn target_directory(metadata: &str) -> Result<PathBuf> {
    let metadata: Value = serde_json::from_str(metadata).context("cargo metadata")?;
    let directory = metadata.get("target_directory").and_then(Value::as_str);
    Ok(directory.context("cargo metadata names no target")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_looked_for_where_cargo_builds() {
        let metadata = r#"{"packages": [], "target_directory": "/elsewhere", "version": 1}"#;
        assert_eq!(target_directory(metadata).unwrap(), Path::new("/elsewhere"));
        assert!(target_directory("{}").is_err());
    }
}
