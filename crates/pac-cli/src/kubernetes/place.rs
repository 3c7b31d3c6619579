//! Where the cluster is, and the lines that say what was done to it.

use pac_concurrency::kubernetes::install::ClusterAccess;

use crate::exit::Failure;
use crate::format::{Printer, cell};

use super::Format;

/// The cluster.
#[derive(Debug, clap::Args)]
pub(super) struct ClusterArgs {
    /// The context of the kubeconfig [default: its current one; without a kubeconfig, the cluster
    /// that this process runs in]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,

    /// The address of an API server that asks for no account, such as that of kubectl proxy
    #[arg(long, value_name = "URL", conflicts_with = "context")]
    server: Option<String>,
}

impl ClusterArgs {
    pub(super) async fn connect(&self) -> Result<ClusterAccess, Failure> {
        Ok(match &self.server {
            Some(server) => ClusterAccess::at(server)?,
            None => ClusterAccess::connect(self.context.as_deref()).await?,
        })
    }
}

/// Lines of a word and a sentence, each printed as soon as it is known.
#[derive(Debug, Default)]
pub(super) struct Lines {
    printer: Option<Printer>,
    failed: Option<Failure>,
}

impl Lines {
    pub(super) fn line(&mut self, word: &str, sentence: &str) {
        let printer = self
            .printer
            .get_or_insert_with(|| Printer::new(Format::Table));
        let printed = printer
            .text(&format!("{word:<10} {}\n", cell(sentence)))
            .and_then(|()| printer.flush());
        // The work goes on without a reader; the failure is told at the end.
        if let Err(failure) = printed {
            self.failed.get_or_insert(failure);
        }
    }

    /// # Errors
    /// The first line that could not be printed.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        self.failed.take().map_or(Ok(()), Err)
    }
}
