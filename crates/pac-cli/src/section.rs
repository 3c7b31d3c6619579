//! `pac section`: what the steps of a PipelineRun do to enter and leave a section.

use std::env;
use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use pac_concurrency::kubernetes::KubernetesOptions;
use pac_concurrency::kubernetes::section::{Departed, SectionError, SectionErrorKind, SectionStep};
use pac_concurrency::kubernetes::sections::{SectionHolder, SectionName};
use pac_concurrency::{PipelineRunKey, Uid};
use tokio::time::timeout;

use crate::end::End;
use crate::exit::{Exit, Failure};
use crate::output::{note, print};
use crate::store;

const AFTER_HELP: &str = "\
It asks by an annotation on the PipelineRun, and waits for the answer of `pac controller` there. It
needs no store and no settings; its account needs the verbs get and patch for pipelineruns.

Without --run the run is that of this step, from the environment that the StepActions set:
  PAC_STEP_NAMESPACE, PAC_STEP_RUN and PAC_STEP_RUN_UID

Exit codes:
   0  the run is in the section, or has left it
   1  the run has ended or is gone, or the request was cancelled or taken back
   2  wrong arguments, or this is no step of a PipelineRun
  69  the API server is unavailable
  74  the token cannot be written
  75  its turn did not come: --timeout, SIGTERM or SIGINT; the request was taken back
  77  the API server does not allow it
  78  a kubeconfig that cannot be used";

/// How long leaving may take when a signal asks for the end.
const LEFT_WITHIN: Duration = Duration::from_secs(20);

/// The arguments of `pac section`.
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Wait until the run is in the section, and print the fencing token.
    Acquire(Acquire),
    /// Leave the section.
    Release(Release),
}

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
struct Acquire {
    #[command(flatten)]
    step: Step,

    /// How long to wait for the section
    #[arg(long, value_name = "DURATION", default_value = "1h",
          value_parser = crate::time::parse_duration)]
    timeout: Duration,

    /// Where to write the token, without a newline
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
struct Release {
    #[command(flatten)]
    step: Step,
}

/// Which step of which run it is.
#[derive(Debug, clap::Args)]
struct Step {
    /// The name of the section, in the namespace of the run
    #[arg(value_name = "NAME")]
    section: SectionName,

    /// One of several that hold the section in one run; the slot is given back with the last
    #[arg(long, value_name = "NAME", default_value = SectionHolder::DEFAULT)]
    holder: SectionHolder,

    /// The PipelineRun [default: that of this step]
    #[arg(long, value_name = "NS/NAME")]
    run: Option<PipelineRunKey>,

    /// The uid of the PipelineRun, so that no later one of its name is meant
    #[arg(long, value_name = "UID", requires = "run")]
    uid: Option<Uid>,

    /// The kubeconfig to use [default: in a pod its service account; else KUBECONFIG]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// Runs one of the commands.
pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    match &args.command {
        Command::Acquire(acquire) => store::block_on(acquire.run()),
        Command::Release(release) => store::block_on(release.run()),
    }
}

impl Acquire {
    async fn run(&self) -> Result<Exit, Failure> {
        let mut end = End::install()?;
        let step = self.step.connect().await?;
        note(format_args!("asking for section {}", self.step.section));
        let token = tokio::select! {
            biased;
            () = end.asked() => return Err(self.give_up(&step).await),
            entered = step.acquire(self.timeout) => entered?,
        };
        if let Some(path) = &self.token_file {
            std::fs::write(path, token.to_string()).map_err(|error| {
                let shown = path.display();
                Failure::new(Exit::Output, format!("{shown}: cannot be written: {error}"))
            })?;
        }
        print(|out| writeln!(out, "{token}"))?;
        note(format_args!(
            "in section {} with token {token}",
            self.step.section
        ));
        Ok(Exit::Success)
    }

    /// A signal asks for the end: the request is taken back, so that it keeps no place.
    async fn give_up(&self, step: &SectionStep) -> Failure {
        let left = match timeout(LEFT_WITHIN, step.release()).await {
            Ok(Ok(_)) => "the request was taken back".to_owned(),
            Ok(Err(error)) => format!("the request could not be taken back: {error}"),
            Err(_) => "the request could not be taken back in time".to_owned(),
        };
        let message = format!(
            "section {}: a signal asks for the end; {left}",
            self.step.section
        );
        Failure::new(Exit::NoSlot, message)
    }
}

impl Release {
    async fn run(&self) -> Result<Exit, Failure> {
        let departed = self.step.connect().await?.release().await?;
        note(said(&self.step.section, &self.step.holder, &departed));
        Ok(Exit::Success)
    }
}

impl Step {
    async fn connect(&self) -> Result<SectionStep, Failure> {
        let (run, uid) = match &self.run {
            Some(run) => (run.clone(), self.uid.clone()),
            None => of_environment(|name| env::var(name).ok())?,
        };
        let mut options = KubernetesOptions::default();
        options.kubeconfig.clone_from(&self.kubeconfig);
        options.context.clone_from(&self.context);
        let (section, holder) = (self.section.clone(), self.holder.clone());
        let step = SectionStep::connect(&options, run, section, holder).await;
        let step = step.map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            let cause = cause.unwrap_or_default();
            Failure::new(Exit::Config, format!("{error}: {cause}"))
        })?;
        Ok(match uid {
            Some(uid) => step.with_uid(uid),
            None => step,
        })
    }
}

/// The run of this step.
fn of_environment(
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(PipelineRunKey, Option<Uid>), Failure> {
    let set = |name: &str| variable(name).filter(|text| !text.is_empty());
    let (Some(namespace), Some(name)) = (set("PAC_STEP_NAMESPACE"), set("PAC_STEP_RUN")) else {
        let message = "this is no step of a PipelineRun: PAC_STEP_NAMESPACE and PAC_STEP_RUN are \
                       not set; use the StepActions that `pac kubernetes steps` prints, in a Task \
                       of a Pipeline, or name the run with --run";
        return Err(Failure::new(Exit::Usage, message));
    };
    let wrong = |error| Failure::new(Exit::Usage, error);
    let run = PipelineRunKey::new(&namespace, &name).map_err(wrong)?;
    // Older versions of Tekton do not label pods with it.
    let uid = set("PAC_STEP_RUN_UID").map(|uid| uid.parse());
    Ok((run, uid.transpose().map_err(wrong)?))
}

/// What came of leaving, for people.
fn said(section: &SectionName, holder: &SectionHolder, departed: &Departed) -> String {
    let list = |holders: &[SectionHolder]| {
        let names: Vec<_> = holders.iter().map(SectionHolder::as_str).collect();
        names.join(", ")
    };
    match departed {
        Departed::Left => format!("section {section}: left"),
        Departed::Others(others) => format!(
            "section {section}: {holder} has left, and the run stays in it for {}",
            list(others)
        ),
        Departed::NotThere => format!("section {section}: the run is not in it"),
        Departed::NotThisHolder(others) => format!(
            "section {section}: {holder} is not in it, and nothing was given back; it is held by \
             {}: say --holder",
            list(others)
        ),
        _ => format!("section {section}: the run is gone, and with it what it had"),
    }
}

impl From<SectionError> for Failure {
    fn from(error: SectionError) -> Self {
        let exit = match error.kind() {
            SectionErrorKind::TimedOut => Exit::NoSlot,
            SectionErrorKind::Refused => Exit::Unauthorised,
            SectionErrorKind::Unavailable => Exit::StoreUnavailable,
            _ => Exit::Negative,
        };
        Self::new(exit, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_of_a_step_is_what_its_pod_is_labelled_with() {
        let of = |namespace: &str, run: &str, uid: &str| {
            let variables = [
                ("PAC_STEP_NAMESPACE", namespace.to_owned()),
                ("PAC_STEP_RUN", run.to_owned()),
                ("PAC_STEP_RUN_UID", uid.to_owned()),
            ];
            of_environment(move |name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| value.clone())
            })
        };
        let (run, uid) = of("ci", "go-x7k2p", "e102").unwrap();
        assert_eq!(
            (run.as_str(), uid.unwrap().as_str()),
            ("ci/go-x7k2p", "e102")
        );
        assert_eq!(of("ci", "go-x7k2p", "").unwrap().1, None);
        let failure = of("ci", "", "").unwrap_err();
        assert_eq!(failure.exit(), Exit::Usage);
        assert!(
            failure.to_string().contains("pac kubernetes steps"),
            "{failure}"
        );
        assert_eq!(of("ci", "Bad", "").unwrap_err().exit(), Exit::Usage);
    }

    #[test]
    fn a_step_that_gives_nothing_back_says_which_holder_would() {
        let others = Departed::NotThisHolder(vec!["e2e".parse().unwrap()]);
        let text = said(&"gpu".parse().unwrap(), &"run".parse().unwrap(), &others);
        assert!(text.contains("held by e2e: say --holder"), "{text}");
    }
}
