//! `cargo xtask dist`: what is handed out: the binary, shell completions, manual pages.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::run::CommandLine;

/// Below the root.
const DIRECTORY: &str = "target/dist";

/// Builds `pac` as it is handed out, and has it describe itself.
pub(crate) fn run(root: &Path) -> Result<()> {
    let directory = root.join(DIRECTORY);
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("cannot empty {DIRECTORY}"))?;
    }
    fs::create_dir_all(&directory)?;
    // Only what describes the command line has the means to: the binary handed out has not.
    CommandLine::new("cargo run --quiet --locked -p pac-cli --features dist -- dist-files")
        .arg(DIRECTORY)
        .run(root)?;
    CommandLine::new("cargo build --locked --release -p pac-cli --features etcd").run(root)?;
    let binary = format!("pac{}", std::env::consts::EXE_SUFFIX);
    let built = root.join("target/release").join(&binary);
    fs::copy(&built, directory.join(&binary))
        .with_context(|| format!("no binary at {}", built.display()))?;
    println!("\nin {DIRECTORY}: pac, completions/, man/");
    Ok(())
}
