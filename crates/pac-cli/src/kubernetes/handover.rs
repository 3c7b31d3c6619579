//! `pac kubernetes onboard` and `offboard`: the queues of a busy cluster change hands.

use pac_concurrency::kubernetes::install::{
    ClusterAccess, HandoverOptions, Install, InstallError, StepOutcome, Steps, offboard, onboard,
};

use super::EXIT_CODES;
use super::options::InstallArgs;
use super::place::{ClusterArgs, Lines};
use crate::exit::{Exit, Failure};
use crate::{output, store};

/// Which watcher is looked at, and whether anything is changed.
#[derive(Debug, clap::Args)]
struct HandoverArgs {
    /// The Deployment of its watcher
    #[arg(long, value_name = "NAME", default_value = "pipelines-as-code-watcher")]
    watcher: String,

    /// Do it; otherwise each step only says what it would do
    #[arg(long)]
    apply: bool,
}

impl HandoverArgs {
    fn options(&self, install: &Install) -> HandoverOptions {
        HandoverOptions::default()
            .with_pac_namespace(install.pac_namespace())
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
        let install = self.install.install();
        run(
            &self.cluster,
            &self.handover,
            &install,
            async |access, options, steps| onboard(access, &install, options, steps).await,
        )
    }
}

impl OffboardCommand {
    pub(super) fn run(&self) -> Result<Exit, Failure> {
        let install = self.install.install();
        run(
            &self.cluster,
            &self.handover,
            &install,
            async |access, options, steps| offboard(access, &install, options, steps).await,
        )
    }
}

/// Hands over, and prints a line for each step.
fn run(
    cluster: &ClusterArgs,
    handover: &HandoverArgs,
    install: &Install,
    hand_over: impl AsyncFnOnce(&ClusterAccess, &HandoverOptions, Steps<'_>) -> Result<(), InstallError>,
) -> Result<Exit, Failure> {
    store::block_on(async {
        let access = cluster.connect().await?;
        let mut lines = Lines::default();
        let steps = &mut |step: &str, outcome: StepOutcome, detail: &str| {
            lines.line(outcome.name(), &format!("{step}: {detail}"));
        };
        let done = hand_over(&access, &handover.options(install), steps).await;
        // What went wrong is said, and is the exit code, also where the lines can go nowhere.
        let printed = lines.end();
        if !handover.apply {
            output::note("nothing was changed; --apply does it");
        }
        done?;
        printed?;
        Ok(Exit::Success)
    })
}
