//! Objects of the cluster out of files.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pac_concurrency::RepositoryKey;
use pac_pipelines::migration::ClusterObjects;

use crate::exit::{Exit, Failure};

/// Reads files, directories of YAML and JSON files with those below them, and standard input.
pub(crate) fn read(paths: &[PathBuf], global: &RepositoryKey) -> Result<ClusterObjects, Failure> {
    let mut objects = ClusterObjects::new(global.clone());
    for path in paths {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            let read = io::stdin().lock().read_to_string(&mut text);
            read.map_err(|error| unreadable(path, &error))?;
            objects.add_text("standard input", &text);
        } else {
            add(path, true, &mut objects).map_err(|(path, error)| unreadable(&path, &error))?;
        }
    }
    Ok(objects)
}

/// A file that was named is read whatever its name.
fn add(
    path: &Path,
    is_named: bool,
    objects: &mut ClusterObjects,
) -> Result<(), (PathBuf, io::Error)> {
    let failed = |error| (path.to_owned(), error);
    if path.is_dir() {
        let entries = fs::read_dir(path).map_err(failed)?;
        let entries: Result<Vec<_>, _> = entries.map(|entry| Ok(entry?.path())).collect();
        let mut entries = entries.map_err(failed)?;
        entries.sort();
        return entries
            .iter()
            .try_for_each(|entry| add(entry, false, objects));
    }
    let extension = path.extension().and_then(|extension| extension.to_str());
    if is_named || matches!(extension, Some("yaml" | "yml" | "json")) {
        let text = fs::read_to_string(path).map_err(failed)?;
        objects.add_text(&path.display().to_string(), &text);
    }
    Ok(())
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let message = format!("the manifests {} cannot be read: {error}", path.display());
    Failure::new(Exit::BadInput, message)
}
