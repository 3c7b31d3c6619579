//! `cargo xtask dist`: builds the files to distribute: the binary, shell completions, manual
//! pages.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::run::CommandLine;

/// The output directory, below the root.
const DIRECTORY: &str = "target/dist";

/// Builds the binary to distribute, and generates its completions and manual pages.
pub(crate) fn run(root: &Path) -> Result<()> {
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
    CommandLine::new("cargo build --locked --release -p pac-cli --features etcd").run(root)?;
    let binary = format!("pac{}", std::env::consts::EXE_SUFFIX);
    let built = root.join("target/release").join(&binary);
    fs::copy(&built, directory.join(&binary))
        .with_context(|| format!("no binary at {}", built.display()))?;
    println!("\nin {DIRECTORY}: pac, completions/, man/");
    Ok(())
}
