//! Values that are never shown.

use std::fmt;
use std::path::{Path, PathBuf};

use pac_core::{Error, ErrorKind, file};

/// A text that neither `Debug` nor an error ever shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for authentication.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// A password, or the file to read it from for each new connection: a mounted Secret or a secret
/// manager replaces the file's content when the password changes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Password {
    /// The password itself.
    Value(Secret),
    /// The file that contains it. One line break at the end does not count.
    File(PathBuf),
}

impl Password {
    /// The current password: reads the file, if it is in one.
    ///
    /// # Errors
    /// `Config` if the file cannot be read, or its content cannot be a password.
    pub fn read(&self) -> Result<Secret, Error> {
        match self {
            Self::Value(secret) => Ok(secret.clone()),
            Self::File(path) => read_file(path).map_err(|reason| {
                let message = format!("password file {}: {reason}", path.display());
                Error::new(ErrorKind::Config, "read password", message)
            }),
        }
    }
}

/// Reads a password from a file. The error is a sentence without the file's name.
pub(super) fn read_file(path: &Path) -> Result<Secret, String> {
    file::read_password(path).map(Secret::new)
}

/// Checks that a text can be a password. The error is a sentence that does not repeat it.
pub(super) fn check(text: &str) -> Result<Secret, String> {
    Ok(Secret::new(file::password(text)?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_secret_is_shown_by_nothing_but_expose() {
        let secret = Secret::new("hunter2");
        let password = Password::Value(secret.clone());
        assert!(!format!("{secret:?} {password:?} {password:#?}").contains("hunter2"));
        assert_eq!(password.read().unwrap().expose(), "hunter2");
    }

    #[test]
    fn a_password_file_is_read_anew_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let password = Password::File(path.clone());
        let missing = password.read().unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Config);
        assert!(missing.to_string().contains("password: cannot be read"));
        for (content, expected) in [("first\n", "first"), ("sec ond\r\n", "sec ond"), ("3", "3")] {
            fs::write(&path, content).unwrap();
            assert_eq!(password.read().unwrap().expose(), expected);
        }
    }

    #[test]
    fn what_cannot_be_a_password_is_refused_and_not_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let password = Password::File(path.clone());
        for (content, rule) in [
            (b"".to_vec(), "is empty"),
            (b"\n".to_vec(), "is empty"),
            (b"hunter2\nhunter3\n".to_vec(), "more than one line"),
            (b"hunter2\0".to_vec(), "NUL"),
            (b"hunter2\xff".to_vec(), "UTF-8"),
            (vec![b'h'; 70_000], "longer than"),
        ] {
            fs::write(&path, content).unwrap();
            let error = password.read().unwrap_err().to_string();
            assert!(error.contains(rule), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
