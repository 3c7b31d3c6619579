//! Reading of files that settings name, the same way for every driver.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

use crate::text::one_line;

/// Longer than any password; stops a wrong path from filling the memory.
const MAX_PASSWORD_BYTES: u64 = 64 * 1024;

/// What is shown in the place of a name that may be a secret.
const NOT_SHOWN: &str = "(not shown: there is no such file, and the name may be a secret)";

/// Reads a regular file of at most `most` bytes. Blocks for as long as the file system takes;
/// pipes and devices, which may have nothing to read for ever, are not waited for.
///
/// # Errors
/// A sentence that contains neither the file's name nor any of its content.
pub fn read(path: &Path, most: u64) -> Result<String, String> {
    let failed = |error: io::Error| format!("cannot be read: {error}");
    let file = open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(
            "is no regular file; a directory, a pipe or a device is not read, so write what is in \
             it to a file"
                .to_owned(),
        );
    }
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > most {
        return Err(format!("is longer than the {most} bytes that it may have"));
    }
    String::from_utf8(bytes).map_err(|_| "is not text (UTF-8)".to_owned())
}

/// Opens a file without waiting for the other end of a pipe.
fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        // The bits are those that the system's call takes, whose type is this one.
        options.custom_flags(flags.bits().cast_signed());
    }
    options.open(path)
}

/// Whether others than the owner and the group of a file may do anything with it: a private key
/// should be closed to them. False where the system has no such permissions, or tells nothing.
#[must_use]
pub fn is_open_to_others(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        path.metadata()
            .is_ok_and(|file| file.permissions().mode() & 0o007 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

/// The name of a file that a setting names, as it may be shown on one line. A person who writes a
/// password under the key of a file's name makes a file's name of it. So a name is shown only if
/// there is such a file, or a directory for it that the name tells (and that is not the root), or
/// if it looks as nothing but a path does: from the root, over two directories or more, in letters,
/// digits, dots, hyphens and underscores.
#[must_use]
pub fn shown(path: &Path) -> Cow<'_, str> {
    let directory = path
        .parent()
        .filter(|directory| directory.parent().is_some());
    let name = path.to_string_lossy();
    if path.exists() || directory.is_some_and(Path::is_dir) || looks_like_a_path(&name) {
        return Cow::Owned(one_line(&name).into_owned());
    }
    Cow::Borrowed(NOT_SHOWN)
}

fn looks_like_a_path(name: &str) -> bool {
    let plain = |part: &str| {
        let of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        !part.is_empty() && part.chars().all(of_a_name)
    };
    let mut parts = name.strip_prefix('/').unwrap_or_default().split('/');
    parts.clone().count() > 2 && parts.all(plain)
}

/// Reads the password in a file; see [`password`].
///
/// # Errors
/// A sentence that contains neither the file's name nor any of its content.
pub fn read_password(path: &Path) -> Result<String, String> {
    Ok(password(&read(path, MAX_PASSWORD_BYTES)?)?.to_owned())
}

/// Reads a text as a password: one line. One line break at its end is removed, since editors and
/// `echo` add one; every other character counts, white space too.
///
/// # Errors
/// A sentence that does not repeat the text.
pub fn password(text: &str) -> Result<&str, &'static str> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err("is empty");
    }
    if text.contains(['\n', '\r', '\0']) {
        return Err("has more than one line, or a NUL; a password is one line of text");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_text_of_a_bounded_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "four").unwrap();
        assert_eq!(read(&path, 4), Ok("four".to_owned()));
        assert!(read(&path, 3).unwrap_err().contains("3 bytes"));
        fs::write(&path, b"\xff").unwrap();
        assert!(read(&path, 4).unwrap_err().contains("not text"));
        assert!(
            read(directory.path(), 4)
                .unwrap_err()
                .contains("no regular file")
        );
        let gone = directory.path().join("gone");
        assert!(read(&gone, 4).unwrap_err().contains("cannot be read"));
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_or_a_device_is_refused_and_not_waited_for() {
        use std::sync::mpsc;
        use std::time::Duration;

        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        for path in [pipe, "/dev/zero".into(), "/dev/null".into()] {
            let (read_to_its_end, reason) = mpsc::channel();
            let named = path.clone();
            std::thread::spawn(move || read_to_its_end.send(read(&path, 4)));
            let reason = reason.recv_timeout(Duration::from_secs(30));
            let reason = reason.expect("it was waited for").unwrap_err();
            assert!(reason.contains("no regular file"), "{named:?}: {reason}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_may_read_is_open_to_them() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert!(!is_open_to_others(&path));
        fs::write(&path, "x").unwrap();
        for (mode, open) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_open_to_others(&path), open, "{mode:o}");
        }
    }

    #[test]
    fn a_name_is_shown_where_there_is_a_file_or_a_place_for_one() {
        let directory = tempfile::tempdir().unwrap();
        let (there, gone) = (
            directory.path().join("there"),
            directory.path().join("gone"),
        );
        fs::write(&there, "x").unwrap();
        for path in [
            Path::new("/etc/pac/not-mounted/ca.pem"),
            &there,
            &gone,
            Path::new("src/none.pem"),
            Path::new("Cargo.toml"),
        ] {
            assert_eq!(shown(path), path.display().to_string());
        }
        for secret in [
            "hunter2",
            "/hunter2",
            "/hunter2/b64==",
            "hunter2/b64==",
            "/b64/hunter2/x==",
            "/hunter2//",
            "",
            "-----BEGIN PRIVATE KEY-----\nhunter2\n",
        ] {
            assert_eq!(shown(Path::new(secret)), NOT_SHOWN);
        }
        let hostile = directory.path().join("\u{1b}[2J");
        assert!(!shown(&hostile).contains('\u{1b}'));
    }

    #[test]
    fn a_password_is_one_line_without_its_end() {
        for (text, expected) in [("a", "a"), (" a \n", " a "), ("a b\r\n", "a b")] {
            assert_eq!(password(text), Ok(expected));
        }
        for (text, rule) in [
            ("", "is empty"),
            ("\r\n", "is empty"),
            ("hunter2\n\n", "more than one line"),
            ("hunter2\rhunter3", "more than one line"),
            ("hunter2\0", "NUL"),
        ] {
            let reason = password(text).unwrap_err();
            assert!(reason.contains(rule), "{reason}");
        }
    }
}
