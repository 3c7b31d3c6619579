//! Files with manifests, for the commands that read some.

use std::path::{Path, PathBuf};
use std::{fs, io};

use pac_concurrency::file;

/// Ten times what the runs of a large cluster come to. Stops a wrong path from filling the memory.
const LARGEST: u64 = 1 << 30;

/// Reads a file whatever its name.
///
/// # Errors
/// A sentence without the file's name: that it is none, a pipe or a device, too large, or no text.
pub(crate) fn text(path: &Path) -> Result<String, String> {
    file::read(path, LARGEST)
}

/// The entries of a directory in the order of their names.
///
/// # Errors
/// A sentence without the directory's name.
pub(crate) fn entries(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let read = || {
        let entries = fs::read_dir(directory)?.map(|entry| Ok(entry?.path()));
        entries.collect::<io::Result<Vec<_>>>()
    };
    let mut paths = read().map_err(|error| format!("cannot be read: {error}"))?;
    paths.sort();
    Ok(paths)
}

/// Reads those of these files that are named as YAML or JSON, and those in the directories among these
/// and below. What cannot be read is given with the reason.
pub(crate) fn each(paths: Vec<PathBuf>, take: &mut impl FnMut(&Path, Result<String, String>)) {
    for path in paths {
        if path.is_dir() {
            // A link may lead back here.
            if path.is_symlink() || path.ends_with(".git") {
                continue;
            }
            match entries(&path) {
                Ok(entries) => each(entries, take),
                Err(reason) => take(&path, Err(reason)),
            }
        } else if is_manifest(&path) {
            take(&path, text(&path));
        }
    }
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| matches!(extension, "yaml" | "yml" | "json"))
}
