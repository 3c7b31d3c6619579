//! Reading of files that settings name, the same way for every driver.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::driver::Finding;
use crate::text::one_line;

/// Longer than any password; stops a wrong path from filling the memory.
const MAX_PASSWORD_BYTES: u64 = 64 * 1024;

/// Reads that nobody waits for any more, at most: those of a file system that does not answer.
const MOST_READS: usize = 64;

/// How many reads of [`apart`] have not ended.
static READS: AtomicUsize = AtomicUsize::new(0);

/// What is shown in the place of a name that may be a secret.
const NOT_SHOWN: &str = "(not shown: there is no such file, and the name may be a secret)";

/// Reads a regular file of at most `most` bytes, or what a link to one leads to. Blocks: see
/// [`apart`].
///
/// # Errors
/// A sentence that contains neither the file's name nor any of its content.
pub fn read(path: &Path, most: u64) -> Result<String, String> {
    check_regular(path)?;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(most.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(unreadable)?;
    if bytes.len() as u64 > most {
        return Err(format!("is longer than the {most} bytes that it may have"));
    }
    String::from_utf8(bytes).map_err(|_| "is not text (UTF-8)".to_owned())
}

/// Checks that a path leads to a regular file. To open a pipe waits until something writes into it, and
/// a device may have no end. Looks at the disk: see [`apart`].
///
/// # Errors
/// A sentence that does not contain the file's name.
pub fn check_regular(path: &Path) -> Result<(), String> {
    if fs::metadata(path).map_err(unreadable)?.is_file() {
        return Ok(());
    }
    let rule = "cannot be read: it must be a regular file, and is a directory, a pipe, a socket or a \
                device";
    Err(rule.to_owned())
}

#[expect(clippy::needless_pass_by_value, reason = "the signature of `map_err`")]
fn unreadable(error: io::Error) -> String {
    format!("cannot be read: {error}")
}

/// Does what reads files on a thread of its own, and waits for it no longer than `within`: a file on
/// a server that does not answer holds up no thread of a runtime, and no runtime that ends. A thread
/// that is not waited for any more ends by itself, so this may be dropped.
///
/// `within` is time of the system's clock, also on a runtime whose own clock is paused: that one jumps
/// over every wait as soon as no task has anything to do, and a disk does not.
///
/// # Errors
/// A sentence that begins with what did not happen, for "the files of …".
pub async fn apart<T: Send + 'static>(
    within: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let one = Reading::begin().ok_or_else(|| {
        format!(
            "were not read: {MOST_READS} earlier reads have not ended, so the file system does not \
             answer"
        )
    })?;
    let (done, answer) = oneshot::channel();
    on_a_thread(move || {
        // Nobody may want to hear of it any more.
        let _ = done.send(by_the_clock(one, within, work));
    })?;
    let ended = answer.await;
    ended.unwrap_or_else(|_| Err(FAILED.to_owned()))
}

/// What is said of a thread that has panicked.
const FAILED: &str = "could not be read: the thread for it has failed";

/// Blocks for `within` at most.
fn by_the_clock<T: Send + 'static>(
    one: Reading,
    within: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (done, answer) = mpsc::channel();
    on_a_thread(move || {
        let done = done.send(work());
        drop((one, done));
    })?;
    answer.recv_timeout(within).map_err(|why| match why {
        RecvTimeoutError::Timeout => {
            format!("were not read within {within:?}: the file system does not answer")
        }
        RecvTimeoutError::Disconnected => FAILED.to_owned(),
    })
}

/// Starts a thread without an owner: it holds nothing that anything waits for.
fn on_a_thread(work: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let thread = thread::Builder::new().name("pac-files".to_owned());
    let started = thread.spawn(work);
    started
        .map(drop)
        .map_err(|error| format!("could not be read: no thread for it: {error}"))
}

/// A read that has not ended.
struct Reading;

impl Reading {
    fn begin() -> Option<Self> {
        let before = READS.fetch_add(1, Ordering::Relaxed);
        let one = Self;
        (before < MOST_READS).then_some(one)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        READS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A warning about a private key that every user of this system may read. Looks at the disk, so it is
/// for [`apart`].
#[must_use]
pub fn exposed_key(path: &Path) -> Option<Finding> {
    is_open_to_others(path).then(|| {
        Finding::warning(
            format!(
                "every user of this system may read the private key {}",
                shown(path)
            ),
            "take the permission away (chmod o= that file; defaultMode: 0440 for the volume of a \
             Kubernetes Secret), and have the certificate replaced where others use the system",
        )
    })
}

/// Whether the permissions of a file let every user of this system read, change or run it. False where
/// the system has no such permissions, and for a file that cannot be looked at.
fn is_open_to_others(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o007 != 0)
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
                .contains("cannot be read")
        );
        let gone = directory.path().join("gone");
        assert!(read(&gone, 4).unwrap_err().contains("cannot be read"));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn what_is_no_regular_file_is_refused_and_hangs_nothing() {
        use std::os::unix::net::UnixListener;

        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let _listens = UnixListener::bind(&socket).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        let pipe = directory.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        for path in [&socket, &link, &pipe, &directory.path().to_owned()] {
            let path = path.clone();
            let read = apart(Duration::from_secs(60), move || read(&path, 4)).await;
            let refused = read.unwrap().unwrap_err();
            assert!(refused.contains("must be a regular file"), "{refused}");
        }
        let (never, hangs) = mpsc::channel::<()>();
        let late = apart(Duration::from_millis(5), move || hangs.recv()).await;
        assert!(late.unwrap_err().contains("were not read within 5ms"));
        drop(never);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_paused_cuts_no_read_short_and_prolongs_none() {
        let minute = Duration::from_secs(60);
        let read = apart(minute, || {
            thread::sleep(Duration::from_millis(50));
            7
        });
        assert_eq!(read.await, Ok(7));
        let (never, hangs) = mpsc::channel::<()>();
        let late = apart(Duration::from_millis(5), move || hangs.recv()).await;
        assert!(late.unwrap_err().contains("were not read within 5ms"));
        drop(never);
        let died = apart(minute, || {
            assert_eq!(1, 2, "this read panics");
        });
        assert!(died.await.unwrap_err().contains("has failed"));
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_is_open_to_everybody_is_told_from_others() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "key").unwrap();
        for (mode, open) in [(0o600, false), (0o640, false), (0o644, true), (0o602, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_open_to_others(&path), open, "{mode:o}");
            let found = exposed_key(&path).map(|found| found.to_string());
            let names = found.as_deref().map(|found| found.contains("key"));
            assert_eq!(names, open.then_some(true), "{mode:o}");
        }
        assert!(!is_open_to_others(&directory.path().join("gone")));
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
