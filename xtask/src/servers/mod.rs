//! Servers for the tests of drivers: started on loopback, on free ports, in temporary
//! directories, by a user without privileges; stopped and removed when [`Servers`] goes, also
//! after a failure. Tests learn of them from environment variables.

mod etcd;
mod postgres;
mod process;

use std::path::Path;

use anyhow::{Context, Result};

pub(crate) use process::{Process, Scratch, free_port, is_root, program, run_as};

use crate::test::Skip;

/// What runs, and what tests have to know of it.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    env: Vec<(String, String)>,
    skips: Vec<Skip>,
    /// Parts of the names of tests that cannot run.
    unrunnable: Vec<&'static str>,
    /// Ended in this order, each before its directory goes.
    running: Vec<(Process, Scratch)>,
}

impl Servers {
    /// Starts what the tests of these drivers need.
    pub(crate) fn start(root: &Path, drivers: &[&str]) -> Result<Self> {
        let mut servers = Self::default();
        if drivers.contains(&"etcd") {
            etcd::start(root, &mut servers).context("etcd for the tests")?;
        }
        if drivers.contains(&"postgres") {
            postgres::start(root, &mut servers).context("PostgreSQL for the tests")?;
        }
        Ok(servers)
    }

    /// The variables to set for the tests.
    pub(crate) fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// What was looked for and is not there, and why.
    pub(crate) fn skips(&self) -> &[Skip] {
        &self.skips
    }

    /// Parts of the names of tests that cannot run, for `--skip`.
    pub(crate) fn unrunnable(&self) -> &[&'static str] {
        &self.unrunnable
    }

    fn set(&mut self, name: &str, value: impl Into<String>) {
        self.env.push((name.to_owned(), value.into()));
    }

    /// Says aloud that tests with `part` in their names are left out.
    fn skip(&mut self, part: &'static str, what: &str, why: &str) {
        self.unrunnable.push(part);
        self.skips.push(Skip {
            what: what.to_owned(),
            why: why.to_owned(),
        });
    }

    fn keep(&mut self, process: Process, directory: Scratch) {
        self.running.push((process, directory));
    }
}
