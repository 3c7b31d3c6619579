//! `pac kubernetes`: what a cluster needs for the controller.

mod check;
mod handover;
pub(crate) mod mode;
mod options;
mod place;

use clap::Subcommand;
use pac_concurrency::kubernetes::KubernetesError;
use pac_concurrency::kubernetes::install::{
    Install, InstallError, InstallErrorKind, ManifestError, apply, remove, to_document,
};

use crate::exit::{Exit, Failure};
use crate::format::Format;
use crate::{output, store};
pub(crate) use options::name;

use options::InstallArgs;
use place::ClusterArgs;

const EXIT_CODES: &str = "\
Exit codes:
   0  all is well
   1  something is not as it has to be; the message says what, and the cure
   2  wrong arguments
  69  the API server cannot be reached or used
  74  output cannot be written
  77  the API server does not allow it
  78  no cluster is named";

/// The arguments of `pac kubernetes`.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the manifests of the controller, or apply them.
    Install(InstallCommand),
    /// Say what would be removed, or remove it.
    Uninstall(UninstallCommand),
    /// Examine a cluster, one thing after the other.
    Check(check::CheckCommand),
    /// Print the StepActions of sections, and the Role of their steps, for one namespace.
    Steps(options::StepsCommand),
    /// Take the queues of a busy cluster over from Pipelines-as-Code.
    Onboard(handover::OnboardCommand),
    /// Give the queues of a busy cluster back to Pipelines-as-Code.
    Offboard(handover::OffboardCommand),
}

/// Without --apply it prints YAML for `kubectl apply -f -`, and needs no cluster. With it, objects
/// that are there are brought up to date; the ConfigMap and the Secret of the settings are kept.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
struct InstallCommand {
    #[command(flatten)]
    install: InstallArgs,
    /// Apply them to the cluster
    #[arg(long)]
    apply: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// The policies of every mode and the webhook are removed, and the definition of the objects that
/// show queues, with these objects. Objects that bear none of our labels are left as they are, and
/// so is the Namespace while pods are in it. With the Namespace goes what else is in it, the Secret
/// too.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
struct UninstallCommand {
    #[command(flatten)]
    install: InstallArgs,
    /// Remove them from the cluster
    #[arg(long)]
    apply: bool,
    /// Remove them even if runs wait for the controller, which then wait for ever, or were started
    /// by it, which then count in no queue
    #[arg(long, requires = "apply")]
    even_if_busy: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Runs one of the commands.
pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    match &args.command {
        Command::Install(command) => command.run(),
        Command::Uninstall(command) => command.run(),
        Command::Check(command) => command.run(),
        Command::Steps(command) => command.run(),
        Command::Onboard(command) => command.run(),
        Command::Offboard(command) => command.run(),
    }
}

impl InstallCommand {
    fn run(&self) -> Result<Exit, Failure> {
        let install = self.install.install();
        if !self.apply {
            let document = to_document(&install)?;
            output::print(|out| out.write_all(document.as_bytes()))?;
            return Ok(Exit::Success);
        }
        store::block_on(async {
            let access = self.cluster.connect().await?;
            let mut lines = place::Lines::default();
            let done = apply(&access, &install, &mut |object, outcome| {
                lines.line(outcome.name(), object);
            })
            .await;
            // What went wrong is the exit code, also where the lines can go nowhere.
            let printed = lines.end();
            done?;
            printed?;
            say_what_is_left(&install);
            Ok(Exit::Success)
        })
    }
}

impl UninstallCommand {
    fn run(&self) -> Result<Exit, Failure> {
        let install = self.install.install();
        let mut lines = place::Lines::default();
        if !self.apply {
            for manifest in &install.removals() {
                lines.line("would", &format!("remove {manifest}"));
            }
            lines.end()?;
            output::note("nothing was removed; --apply removes it");
            return Ok(Exit::Success);
        }
        store::block_on(async {
            let access = self.cluster.connect().await?;
            let done = remove(
                &access,
                &install,
                self.even_if_busy,
                &mut |object, outcome| {
                    lines.line(outcome.name(), object);
                },
            )
            .await;
            // What went wrong is the exit code, also where the lines can go nowhere.
            let printed = lines.end();
            done?;
            printed?;
            Ok(Exit::Success)
        })
    }
}

/// What nobody but an administrator can fill in.
fn say_what_is_left(install: &Install) {
    output::note(format_args!(
        "the password is yours to put in, unless it is there: {}",
        install.secret_command()
    ));
    output::note("then: pac kubernetes check");
}

impl From<InstallError> for Failure {
    fn from(error: InstallError) -> Self {
        let exit = match error.kind() {
            InstallErrorKind::Config => Exit::Config,
            InstallErrorKind::Unavailable => Exit::StoreUnavailable,
            InstallErrorKind::Unauthorised => Exit::Unauthorised,
            _ => Exit::Negative,
        };
        Self::new(exit, error)
    }
}

impl From<KubernetesError> for Failure {
    fn from(error: KubernetesError) -> Self {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        Self::new(
            Exit::Config,
            format!("{error}: {}", cause.unwrap_or_default()),
        )
    }
}

impl From<ManifestError> for Failure {
    fn from(error: ManifestError) -> Self {
        Self::new(Exit::Internal, error)
    }
}
