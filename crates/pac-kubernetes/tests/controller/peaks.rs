//! How many runs ran at once.

use std::collections::BTreeMap;
use std::sync::Mutex;

use pac_kubernetes_mock::{Handle, Written};

use crate::setting::{RUNS, has_slot, name, repository_of};

/// Tells how many runs of each Repository of a namespace ran at once at most, by the history of all
/// runs: of a server in this process no moment is missed.
pub(crate) struct Peaks {
    objects: Handle,
    namespace: String,
    read: Mutex<Read>,
}

#[derive(Default)]
struct Read {
    /// The history was read up to this revision.
    after: u64,
    writes: usize,
    /// The runs that have a slot, each with its Repository.
    running: BTreeMap<String, String>,
    peaks: BTreeMap<String, usize>,
}

impl Peaks {
    pub(crate) fn new(objects: &Handle, namespace: &str) -> Self {
        let read = Read {
            after: objects.revision(),
            ..Read::default()
        };
        Self {
            objects: objects.clone(),
            namespace: namespace.to_owned(),
            read: Mutex::new(read),
        }
    }

    /// How many ran at once at most so far.
    pub(crate) fn of(&self, repository: &str) -> usize {
        self.look();
        let read = self.read.lock().unwrap();
        assert!(read.writes > 0, "it has seen no run");
        read.peaks.get(repository).copied().unwrap_or_default()
    }

    /// Reads what was written since the last look: to be called before the server forgets it.
    pub(crate) fn look(&self) {
        let mut read = self.read.lock().unwrap();
        match self.objects.history(RUNS, read.after) {
            Ok(written) => written
                .iter()
                .for_each(|one| read.take(one, &self.namespace)),
            // What runs is not known then: too few are counted until those have ended, never too many.
            Err(_) => {
                read.running.clear();
                read.after = self.objects.revision();
            }
        }
    }
}

impl Read {
    fn take(&mut self, written: &Written, namespace: &str) {
        let run = &*written.object;
        let revision = run["metadata"]["resourceVersion"].as_str().unwrap();
        self.after = revision.parse().unwrap();
        if run["metadata"]["namespace"] != namespace {
            return;
        }
        self.writes += 1;
        if written.deleted || !has_slot(run) {
            self.running.remove(&name(run));
            return;
        }
        let repository = repository_of(run);
        self.running.insert(name(run), repository.clone());
        let mut running = self.running.values();
        let at_once = running.by_ref().filter(|one| **one == repository).count();
        let peak = self.peaks.entry(repository).or_default();
        *peak = at_once.max(*peak);
    }
}
