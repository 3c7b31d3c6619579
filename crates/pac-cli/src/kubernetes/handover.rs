//! `pac kubernetes onboard` and `offboard`: the queues of a busy cluster change hands.

use pac_concurrency::kubernetes::install::{HandoverOptions, offboard, onboard};

use super::EXIT_CODES;
use super::options::{InstallArgs, name};
use super::place::{ClusterArgs, Lines};
use crate::exit::{Exit, Failure};
use crate::{output, store};

/// Where Pipelines-as-Code is, and whether anything is changed.
#[derive(Debug, clap::Args)]
struct HandoverArgs {
    /// The namespace of Pipelines-as-Code
    #[arg(long, value_name = "NAMESPACE", default_value = "pipelines-as-code",
          value_parser = name)]
    pac_namespace: String,

    /// The Deployment of its watcher
    #[arg(long, value_name = "NAME", default_value = "pipelines-as-code-watcher")]
    watcher: String,

    /// Do it; otherwise each step only says what it would do
    #[arg(long)]
    apply: bool,
}

impl HandoverArgs {
    fn options(&self) -> HandoverOptions {
        HandoverOptions::default()
            .with_pac_namespace(&self.pac_namespace)
            .with_watcher(&self.watcher)
            .with_apply(self.apply)
    }
}

/// Stop the watcher of Pipelines-as-Code before. This applies the policies, takes the order of all
/// waiting runs over, applies the rest, and says how to start the watcher again. Everything waits
/// meanwhile. It can be repeated, and goes on with what is left.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct OnboardCommand {
    #[command(flatten)]
    install: InstallArgs,
    #[command(flatten)]
    handover: HandoverArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// This stops the controller, and then says when to stop the watcher of Pipelines-as-Code. Run
/// again, it removes the policies, gives the order of all runs back, and says how to start the
/// watcher again. Everything waits meanwhile. It can be repeated, and goes on with what is left.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub(super) struct OffboardCommand {
    #[command(flatten)]
    install: InstallArgs,
    #[command(flatten)]
    handover: HandoverArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl OnboardCommand {
    pub(super) fn run(&self) -> Result<Exit, Failure> {
        let (install, options) = (self.install.install(), self.handover.options());
        store::block_on(async {
            let access = self.cluster.connect().await?;
            let mut lines = Lines::default();
            let done = onboard(&access, &install, &options, &mut |step, outcome, detail| {
                lines.line(outcome.name(), &format!("{step}: {detail}"));
            })
            .await;
            self.handover.end(&mut lines)?;
            done?;
            Ok(Exit::Success)
        })
    }
}

impl OffboardCommand {
    pub(super) fn run(&self) -> Result<Exit, Failure> {
        let (install, options) = (self.install.install(), self.handover.options());
        store::block_on(async {
            let access = self.cluster.connect().await?;
            let mut lines = Lines::default();
            let done = offboard(&access, &install, &options, &mut |step, outcome, detail| {
                lines.line(outcome.name(), &format!("{step}: {detail}"));
            })
            .await;
            self.handover.end(&mut lines)?;
            done?;
            Ok(Exit::Success)
        })
    }
}

impl HandoverArgs {
    fn end(&self, lines: &mut Lines) -> Result<(), Failure> {
        lines.end()?;
        if !self.apply {
            output::note("nothing was changed; --apply does it");
        }
        Ok(())
    }
}
