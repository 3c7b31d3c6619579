//! Passwords as settings name them, the same way for every driver. No secret is ever shown.

use std::fmt;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use crate::error::{Error, ErrorKind};
use crate::file;

/// A text that neither `Debug` nor an error ever shows. Its memory is overwritten when it is
/// dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The text itself, for authentication.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

/// A password, the file that holds it, or none. `Debug` does not show the password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password(Source);

#[derive(Clone, Default, PartialEq, Eq)]
enum Source {
    #[default]
    None,
    Text(Secret),
    File(PathBuf),
}

impl Password {
    /// This password itself.
    #[must_use]
    pub fn new(password: impl Into<String>) -> Self {
        Self(Source::Text(Secret::new(password)))
    }

    /// The password in a file of one line. It is read for each new connection, so that it can
    /// change.
    #[must_use]
    pub fn in_file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(path.into()))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.0 == Source::None
    }

    /// The file that holds it, if one does.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        match &self.0 {
            Source::File(path) => Some(path),
            Source::None | Source::Text(_) => None,
        }
    }

    /// The password as it is now; reads the file, if there is one, anew. `None` without one.
    ///
    /// # Errors
    /// `Config` when the file cannot be read, or does not hold a password
    /// ([`file::password`]). The message names the file ([`file::shown`]), and repeats nothing of
    /// its content.
    pub fn read(&self) -> Result<Option<Secret>, Error> {
        match &self.0 {
            Source::None => Ok(None),
            Source::Text(password) => Ok(Some(password.clone())),
            Source::File(path) => match file::read_password(path) {
                Ok(password) => Ok(Some(Secret::new(password))),
                Err(reason) => {
                    let message = format!("the password file {} {reason}", file::shown(path));
                    Err(Error::new(ErrorKind::Config, "connect", message))
                }
            },
        }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::None => f.write_str("None"),
            Source::Text(password) => password.fmt(f),
            Source::File(path) => write!(f, "in {}", file::shown(path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_secret_is_shown_by_nothing_but_expose() {
        let secret = Secret::new("hunter2");
        let password = Password::new("hunter2");
        assert!(!format!("{secret:?} {password:?} {password:#?}").contains("hunter2"));
        assert_eq!(password.read().unwrap(), Some(secret));
        assert_ne!(password, Password::new("other"));
        assert!(Password::default().is_none() && Password::default().read().unwrap().is_none());
    }

    #[test]
    fn a_password_file_is_read_anew_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let password = Password::in_file(&path);
        assert_eq!(password.file(), Some(path.as_path()));
        let missing = password.read().unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::Config);
        assert!(missing.to_string().contains("password cannot be read"));
        for (content, expected) in [("first\n", "first"), ("sec ond\r\n", "sec ond"), ("3", "3")] {
            fs::write(&path, content).unwrap();
            assert_eq!(password.read().unwrap(), Some(Secret::new(expected)));
        }
    }

    #[test]
    fn what_cannot_be_a_password_is_refused_and_not_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let password = Password::in_file(&path);
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
