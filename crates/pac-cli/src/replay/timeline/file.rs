//! Writes the picture so that the file is either the old one or the new one, never half of it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// Checks that [`write()`] could write to this path, without changing anything.
pub(crate) fn check(path: &Path) -> Result<(), String> {
    Target::of(path)
        .and_then(|target| match target {
            Target::Device => Ok(()),
            Target::File(file) => temporary_beside(&file).map(drop),
        })
        .map_err(|error| describe(path, &error))
}

/// Writes `text` to a temporary file beside `path`, then renames it.
pub(crate) fn write(path: &Path, text: &impl ToString) -> Result<(), String> {
    let text = text.to_string();
    Target::of(path)
        .and_then(|target| match target {
            Target::Device => fs::write(path, &text),
            Target::File(file) => replace(&file, &text),
        })
        .map_err(|error| describe(path, &error))
}

enum Target {
    /// A terminal, a pipe, `/dev/null`: nothing to rename over.
    Device,
    /// The file to replace; for a symbolic link, its target.
    File(PathBuf),
}

impl Target {
    fn of(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(metadata) if metadata.is_file() => {
                // The rename would ignore the write protection of the file itself.
                OpenOptions::new().write(true).open(path)?;
                path.canonicalize().map(Self::File)
            }
            Ok(_) => Ok(Self::Device),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Self::File(path.to_owned()))
            }
            Err(error) => Err(error),
        }
    }
}

fn replace(file: &Path, text: &str) -> io::Result<()> {
    let mut temporary = temporary_beside(file)?;
    temporary.write_all(text.as_bytes())?;
    if let Ok(metadata) = fs::metadata(file) {
        temporary
            .as_file()
            .set_permissions(metadata.permissions())?;
    }
    temporary.persist(file)?;
    Ok(())
}

fn temporary_beside(file: &Path) -> io::Result<NamedTempFile> {
    let Some(name) = file.file_name() else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    let folder = match file.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let mut prefix = std::ffi::OsString::from(".");
    prefix.push(name);
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(".tmp");
    // The permissions of a newly created file, less the umask; a temporary file's would be its
    // owner's only.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

fn describe(path: &Path, error: &io::Error) -> String {
    format!("timeline {}: cannot write: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn checking_leaves_nothing_behind_and_writing_only_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.svg");
        check(&file).unwrap();
        assert!(names(folder.path()).is_empty());
        write(&file, &"one").unwrap();
        write(&file, &"two").unwrap();
        assert_eq!(names(folder.path()), ["a.svg"]);
        assert_eq!(fs::read_to_string(&file).unwrap(), "two");
    }

    #[test]
    fn what_cannot_be_written_is_known_before() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.svg");
        fs::write(&file, "x").unwrap();
        for bad in [
            folder.path().to_owned(),
            folder.path().join("none/a.svg"),
            file.join("b.svg"),
            PathBuf::new(),
            folder.path().join("x".repeat(300)),
        ] {
            let error = check(&bad).unwrap_err();
            assert!(
                error.starts_with("timeline ") && error.contains("cannot write"),
                "{error}"
            );
            assert!(write(&bad, &"x").is_err());
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_devices_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("a.svg"), folder.path().join("link"));
        fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write(&link, &"new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        check(Path::new("/dev/null")).unwrap();
        write(Path::new("/dev/null"), &"x").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
