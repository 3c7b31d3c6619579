//! Servers for the tests of drivers. They are started on loopback, on free ports, in temporary
//! directories, by a user without privileges; dropping [`Servers`] stops and removes them, also
//! after a failure. Environment variables tell the tests where they are.

mod etcd;
mod postgres;
mod process;

use std::env;
use std::path::Path;

use anyhow::{Context, Result};

pub(crate) use process::{Process, Scratch, free_port, program, run_as};

use crate::skip::Skip;

/// The variable that names the kubeconfig of a cluster to run tests on. None is started here.
const CLUSTER: &str = "PAC_TEST_KUBECONFIG";

/// What is skipped without one, and why.
pub(crate) const GIVEN_CLUSTER: &str = "the end-to-end cases on a given Kubernetes cluster";
pub(crate) const NO_CLUSTER: &str = "PAC_TEST_KUBECONFIG names no kubeconfig";

/// The running servers, and the information that tests need about them.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    env: Vec<(String, String)>,
    skips: Vec<Skip>,
    /// Parts of the names of tests that cannot run.
    unrunnable: Vec<&'static str>,
    /// Dropped in this order: each process ends before its directory is removed.
    running: Vec<(Process, Scratch)>,
}

impl Servers {
    /// Starts the servers that the tests of these drivers need.
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

    /// Has the tests on a given cluster skipped, unless there is one.
    pub(crate) fn look_for_a_cluster(&mut self) {
        if env::var_os(CLUSTER).is_none_or(|path| path.is_empty()) {
            self.skip("given_cluster", GIVEN_CLUSTER, NO_CLUSTER);
        }
    }

    /// The variables to set for the tests.
    pub(crate) fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// The programs that were not found, and why.
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

    /// Records that tests with `part` in their names are skipped, so that this is reported.
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
