//! The processes of this system, as proc(5) shows them.

use std::fs;
use std::io;

use rustix::process::Pid;

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    pub(crate) parent: Option<Pid>,
    pub(crate) group: Option<Pid>,
    /// When it started, in ticks since the system did: with the number it tells processes apart.
    pub(crate) started: u64,
    /// It has not ended. One that has is there until its parent asks for its exit code.
    pub(crate) is_alive: bool,
}

impl Process {
    /// A process of which nothing but the number is known.
    pub(crate) fn unseen(pid: Pid) -> Self {
        Self {
            pid,
            parent: None,
            group: None,
            started: 0,
            is_alive: true,
        }
    }
}

/// All processes that this one can see.
pub(crate) fn all() -> io::Result<Vec<Process>> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.parse().ok());
        let number = number.filter(|number| *number > 0);
        // One that ends meanwhile is left out.
        processes.extend(number.and_then(Pid::from_raw).and_then(one));
    }
    if processes.is_empty() {
        return Err(io::Error::other("no process is in it"));
    }
    Ok(processes)
}

/// The process of this number, if there is one.
pub(crate) fn one(pid: Pid) -> Option<Process> {
    let stat = fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    parse(pid, &String::from_utf8_lossy(&stat))
}

/// Reads `pid (name) state parent group …`. The name is whatever the process calls itself.
fn parse(pid: Pid, stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The kernel writes 0 for what is of another namespace, and -1 for what a process that is just
    // ending has no more; the library takes no negative number.
    let number = |at: usize| {
        let number = fields.get(at)?.parse().ok().filter(|number| *number > 0);
        number.and_then(Pid::from_raw)
    };
    Some(Process {
        pid,
        parent: number(1),
        group: number(2),
        // Field 22, counted from 1 with the two before these.
        started: fields.get(19)?.parse().ok()?,
        is_alive: !matches!(*fields.first()?, "Z" | "X" | "x"),
    })
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::{getpgrp, getpid, getppid};

    use super::*;

    #[test]
    fn this_process_is_among_them_with_its_parent_and_group() {
        let own = all().unwrap().into_iter().find(|one| one.pid == getpid());
        let own = own.unwrap();
        assert!(own.is_alive && own.started > 0);
        assert_eq!((own.parent, own.group), (getppid(), Some(getpgrp())));
        assert_eq!(one(own.pid), Some(own));
    }

    #[test]
    fn no_name_that_a_process_gives_itself_hides_it() {
        let rest = "7 7 7 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1";
        for name in ["sleep", "a) Z 1 1", "((", ") R 1", "\u{fffd}\n"] {
            let process = parse(getpid(), &format!("9 ({name}) S {rest}")).unwrap();
            assert_eq!(process.parent, Pid::from_raw(7), "{name}");
            assert!(process.is_alive && process.started == 4242, "{name}");
        }
        assert!(
            !parse(getpid(), &format!("9 (x) Z {rest}"))
                .unwrap()
                .is_alive
        );
        let ending = parse(getpid(), &format!("9 (x) R 0 -1 {rest}")).unwrap();
        assert_eq!((ending.parent, ending.group), (None, None));
        for broken in ["", "9 (x", "9 (x) S 1 2", "9 (x) S a b"] {
            assert_eq!(parse(getpid(), broken), None, "{broken}");
        }
    }
}
