//! Reading of files that settings name, the same way for every driver.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Longer than any password; stops a wrong path from filling the memory.
const MAX_PASSWORD_BYTES: u64 = 64 * 1024;

/// Reads a file of at most `most` bytes.
///
/// # Errors
/// A sentence that contains neither the file's name nor any of its content.
pub fn read(path: &Path, most: u64) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(most.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > most {
        return Err(format!("is longer than the {most} bytes that it may have"));
    }
    String::from_utf8(bytes).map_err(|_| "is not text (UTF-8)".to_owned())
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
                .contains("cannot be read")
        );
        let gone = directory.path().join("gone");
        assert!(read(&gone, 4).unwrap_err().contains("cannot be read"));
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
