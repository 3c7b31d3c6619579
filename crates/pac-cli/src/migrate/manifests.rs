//! Objects of the cluster out of files.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pac_concurrency::RepositoryKey;
use pac_pipelines::migration::ClusterObjects;

use crate::exit::{Exit, Failure};
use crate::manifest_files;

/// Reads files, directories of YAML and JSON files with those below them, and standard input.
pub(crate) fn read(paths: &[PathBuf], global: &RepositoryKey) -> Result<ClusterObjects, Failure> {
    let mut objects = ClusterObjects::new(global.clone());
    for path in paths {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            let read = io::stdin().lock().read_to_string(&mut text);
            read.map_err(|error| unreadable(path, &format!("cannot be read: {error}")))?;
            objects.add_text("standard input", &text);
        } else {
            add(path, &mut objects)?;
        }
    }
    Ok(objects)
}

/// A file that was named is read whatever its name.
fn add(path: &Path, objects: &mut ClusterObjects) -> Result<(), Failure> {
    let mut failed = None;
    let mut take = |file: &Path, text: Result<String, String>| match text {
        Ok(text) => objects.add_text(&file.display().to_string(), &text),
        Err(reason) => failed = failed.take().or(Some(unreadable(file, &reason))),
    };
    if path.is_dir() {
        let entries = manifest_files::entries(path);
        let entries = entries.map_err(|reason| unreadable(path, &reason))?;
        manifest_files::each(entries, &mut take);
    } else {
        take(path, manifest_files::text(path));
    }
    failed.map_or(Ok(()), Err)
}

fn unreadable(path: &Path, reason: &str) -> Failure {
    let message = format!("the manifests {} {reason}", path.display());
    Failure::new(Exit::BadInput, message)
}
