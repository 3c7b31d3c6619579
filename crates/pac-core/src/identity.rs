//! Who has opened a session, for people to read. Nothing is decided by it.

use std::env;
use std::fmt;

use crate::name::InvalidValue;
use crate::value::Timestamp;

/// What a program is called whose name is not known.
const UNKNOWN: &str = "unknown";
/// Of the name of a program, so much is left where an identity has to be shorter.
const PROGRAM: usize = 8;

/// Who has opened a session: a program of some version, as a process on a host.
///
/// It shows itself as `program@host#pid`. Each part has at most [`LONGEST`](Self::LONGEST) ASCII
/// letters, digits and `-_.:/+`; no arguments, variables or settings of the process are in it
/// but `HOSTNAME`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionIdentity {
    program: Word,
    version: Word,
    host: Word,
    pid: Option<u32>,
}

impl SessionIdentity {
    /// The most characters of a part.
    pub const LONGEST: usize = 63;

    /// The running process: the name of its executable without the path, the version of this
    /// library, and its pid on the host that `HOSTNAME` names, which is the pod in Kubernetes; where
    /// that is not set, on the host of the system's name. What is too long is cut, and a character that
    /// may not be in a part becomes `_`.
    #[must_use]
    pub fn of_this_process() -> Self {
        let executable = env::current_exe().ok();
        let program = executable.as_deref().and_then(|path| path.file_name());
        let program = program.map(|name| name.to_string_lossy());
        let program = program.as_deref().unwrap_or_default();
        // What Linux adds once the file has been replaced, and what Windows has at the end of each.
        let program = program.strip_suffix(" (deleted)").unwrap_or(program);
        let program = program.strip_suffix(".exe").unwrap_or(program);
        let host = env::var("HOSTNAME").ok().filter(|host| !host.is_empty());
        Self::cleaned(
            program,
            env!("CARGO_PKG_VERSION"),
            &host.unwrap_or_else(host_of_the_system),
            Some(std::process::id()),
        )
    }

    /// One that is this name and nothing else, without version, host and pid.
    ///
    /// # Errors
    /// [`InvalidValue`] for an empty or long name, for characters that it may not have, and for a URL,
    /// which may have a password in it and is not repeated.
    pub fn named(name: &str) -> Result<Self, InvalidValue> {
        Ok(Self {
            program: Word::checked("identity", name)?,
            version: Word::default(),
            host: Word::default(),
            pid: None,
        })
    }

    /// The same with another program and its version: for one that goes by another name than its
    /// executable.
    ///
    /// # Errors
    /// [`InvalidValue`], as for [`named`](Self::named).
    pub fn with_program(self, program: &str, version: &str) -> Result<Self, InvalidValue> {
        Ok(Self {
            program: Word::checked("program", program)?,
            version: Word::checked("version", version)?,
            ..self
        })
    }

    /// One of these parts as they come from a system or a store, where they may be anything: what is
    /// too long is cut, a character that may not be in a part becomes `_`, and what is empty is not
    /// known.
    #[must_use]
    pub fn cleaned(program: &str, version: &str, host: &str, pid: Option<u32>) -> Self {
        let program = Word::cleaned(program);
        Self {
            program: match program.as_str() {
                "" => Word::cleaned(UNKNOWN),
                _ => program,
            },
            version: Word::cleaned(version),
            host: Word::cleaned(host),
            pid,
        }
    }

    /// The program, or the name that stands for all.
    #[must_use]
    pub fn program(&self) -> &str {
        self.program.as_str()
    }

    /// The version of the program.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        Some(self.version.as_str()).filter(|version| !version.is_empty())
    }

    /// The host, or the pod.
    #[must_use]
    pub fn host(&self) -> Option<&str> {
        Some(self.host.as_str()).filter(|host| !host.is_empty())
    }

    /// The process on that host.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// The text that it shows itself as, in `most` characters. Where it is longer, the program is
    /// cut first, then the host, whose end tells pods apart: `~` stands for what was left out.
    #[must_use]
    pub fn within(&self, most: usize) -> String {
        let whole = self.to_string();
        if whole.len() <= most {
            return whole;
        }
        let (program, rest) = whole.split_at(self.program().len());
        let room = most.saturating_sub(rest.len()).max(PROGRAM.min(most));
        let program = match program.get(..room.saturating_sub(1)) {
            Some(start) if program.len() > room => format!("{start}~"),
            _ => program.to_owned(),
        };
        // All of it is ASCII.
        let left = most.saturating_sub(program.len());
        match rest.len().checked_sub(left) {
            None | Some(0) => program + rest,
            Some(more) => {
                let end = rest.get(more + 2..).unwrap_or_default();
                let mut text = format!("{program}@~{end}");
                text.truncate(most);
                text
            }
        }
    }
}

impl fmt::Display for SessionIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.program())?;
        if let Some(host) = self.host() {
            write!(f, "@{host}")?;
        }
        match self.pid {
            Some(pid) => write!(f, "#{pid}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for SessionIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionIdentity({self}")?;
        match self.version() {
            Some(version) => write!(f, ", version {version})"),
            None => f.write_str(")"),
        }
    }
}

#[cfg(unix)]
fn host_of_the_system() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

#[cfg(not(unix))]
fn host_of_the_system() -> String {
    env::var("COMPUTERNAME").unwrap_or_default()
}

/// What a store knows of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Who has opened it.
    pub identity: SessionIdentity,
    /// When it was opened, by the store's clock; on etcd, which tells no time, by that of the
    /// process.
    pub opened_at: Option<Timestamp>,
    /// Its process has closed it, or has not renewed it in time.
    pub dead: bool,
}

impl SessionInfo {
    /// That of a session which this has opened then.
    #[must_use]
    pub const fn new(identity: SessionIdentity, opened_at: Option<Timestamp>, dead: bool) -> Self {
        Self {
            identity,
            opened_at,
            dead,
        }
    }
}

/// A part of an identity. In place, so that settings with an identity can be copied.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Word {
    length: u8,
    bytes: [u8; SessionIdentity::LONGEST],
}

impl Default for Word {
    fn default() -> Self {
        Self {
            length: 0,
            bytes: [0; SessionIdentity::LONGEST],
        }
    }
}

impl Word {
    fn checked(what: &'static str, text: &str) -> Result<Self, InvalidValue> {
        if is_url(text) {
            let rule = "must be a name, and not a URL";
            return Err(InvalidValue::new(what, "…://…", rule));
        }
        let allowed = text.chars().all(is_allowed);
        if !allowed || text.is_empty() || text.len() > SessionIdentity::LONGEST {
            let rule = "must be 1 to 63 ASCII letters, digits, '-', '_', '.', ':', '/' or '+'";
            return Err(InvalidValue::new(what, text, rule));
        }
        Ok(Self::cleaned(text))
    }

    fn cleaned(text: &str) -> Self {
        let mut word = Self::default();
        // No name of a program or a host is one.
        if is_url(text) {
            return word;
        }
        for (byte, character) in word.bytes.iter_mut().zip(text.chars()) {
            let character = Some(character).filter(|one| is_allowed(*one));
            *byte = character.map_or(b'_', |one| u8::try_from(one).unwrap_or(b'_'));
            word.length += 1;
        }
        word
    }

    fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.length));
        std::str::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
    }
}

fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-_.:/+".contains(character)
}

fn is_url(text: &str) -> bool {
    text.contains("://")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_says_what_it_is() {
        let identity = SessionIdentity::of_this_process();
        assert!(
            identity.program().starts_with("pac_core-"),
            "{identity}: without its path"
        );
        assert_eq!(identity.version(), Some(env!("CARGO_PKG_VERSION")));
        assert_eq!(identity.pid(), Some(std::process::id()));
        let text = identity.to_string();
        assert!(
            text.ends_with(&format!("#{}", std::process::id())),
            "{text}"
        );
    }

    #[test]
    fn what_comes_from_a_system_or_a_store_is_made_fit() {
        let hostile = "a b\u{1b}[2Jé\n";
        let long = "x".repeat(1_000);
        let identity = SessionIdentity::cleaned(hostile, &long, "postgres://u:hunter2@db", Some(7));
        assert_eq!(identity.to_string(), "a_b__2J__#7");
        assert_eq!(identity.version(), Some(&long[..63]));
        let again = SessionIdentity::cleaned(identity.program(), &long, "", Some(7));
        assert_eq!(again, identity);
        assert_eq!(
            SessionIdentity::cleaned("", "", "", None),
            SessionIdentity::named("unknown").unwrap()
        );
    }

    #[test]
    fn a_name_that_cannot_be_shown_is_refused() {
        let longest = "x".repeat(63);
        for good in ["night-batch", "batch/web-0:1", &longest] {
            let named = SessionIdentity::named(good).unwrap();
            assert_eq!(named.to_string(), good);
            assert_eq!(
                (named.version(), named.host(), named.pid()),
                (None, None, None)
            );
        }
        for bad in [
            "",
            "a b",
            "a\nb",
            "é",
            "a\u{1b}",
            "me:pw@db",
            "a=b",
            &"x".repeat(64),
        ] {
            let refused = SessionIdentity::named(bad).unwrap_err().to_string();
            assert!(refused.contains("1 to 63 ASCII letters"), "{refused}");
        }
        let refused = SessionIdentity::named("postgres://pac:hunter2@db/x").unwrap_err();
        assert!(!refused.to_string().contains("hunter2"), "{refused}");
        let other = SessionIdentity::of_this_process().with_program("reconciler", "1.2.3");
        let other = other.unwrap();
        assert_eq!(
            (other.program(), other.version()),
            ("reconciler", Some("1.2.3"))
        );
        assert!(other.with_program("a b", "1").is_err());
    }

    #[test]
    fn a_shorter_text_keeps_what_tells_processes_apart() {
        let pod = "web-controller-7d9f8b6c5-abcde";
        let of = |program| SessionIdentity::cleaned(program, "1", pod, Some(12));
        for (program, most, expected) in [
            ("pac", 63, "pac@web-controller-7d9f8b6c5-abcde#12"),
            (
                "reconciler-of-all",
                48,
                "reconciler-of~@web-controller-7d9f8b6c5-abcde#12",
            ),
            ("reconciler", 24, "reconci~@~8b6c5-abcde#12"),
            ("pac", 24, "pac@~-7d9f8b6c5-abcde#12"),
            ("reconciler", 3, "re~"),
            ("reconciler", 0, ""),
        ] {
            let text = of(program).within(most);
            assert_eq!((text.as_str(), text.len() <= most), (expected, true));
        }
        for most in 0..80 {
            let text = of("a-program-with-quite-a-long-name").within(most);
            assert!(text.len() <= most, "{text}");
        }
    }
}
