//! `pac plan`: what the runs of a directory of manifests would do.

mod cluster;
mod decision;
#[cfg(test)]
mod fuzz;
mod manifests;
mod order;
mod report;
mod shape;
mod table;

use std::path::PathBuf;

use pac_concurrency::RepositoryKey;
use pac_pipelines::ControllerOptions;
use tokio::runtime;

use crate::exit::{Exit, Failure};
use crate::format::{Format, FormatArg, Printer};
use crate::output::note;
use decision::Decision;
use manifests::Manifests;
use report::Report;

const AFTER_HELP: &str = "\
The files *.yaml, *.yml and *.json of the directory and of those in it are read: PipelineRuns and
Repositories, one or many documents a file, and Lists as `kubectl get -o yaml` prints them. Other
objects are passed over. No cluster and no store is asked: the controller's own code decides, about
the manifests alone.

A run that has no uid and no status is yet to be created: where it has to wait, it is held back. One
without creationTimestamp counts as created after those that have one. With generateName the ending
of the name is made up, and so is its place among runs of one moment.

Example: what would start if new-runs.yaml were applied now?
  mkdir now && kubectl get repositories,pipelineruns -n ci -o yaml > now/cluster.yaml
  cp new-runs.yaml now/ && pac plan now

Exit codes:
   0  planned
   2  wrong arguments
  65  something cannot be read or breaks its rules; it is named, and the rest is planned
  70  internal error
  74  output cannot be written";

/// The arguments of `pac plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The directory of manifests, or one file of them
    #[arg(value_name = "DIR")]
    path: PathBuf,

    /// The Repository whose limit holds for those without one of their own
    #[arg(
        long,
        value_name = "NS/NAME",
        default_value = "pipelines-as-code/pipelines-as-code"
    )]
    global_repository: RepositoryKey,

    #[command(flatten)]
    output: FormatArg,
}

/// Plans, and prints the plan.
pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let manifests =
        Manifests::read(&args.path).map_err(|error| Failure::new(Exit::BadInput, error))?;
    let decision = decide(&manifests, &args.global_repository)?;
    let report = Report::of(&manifests, &decision, &args.global_repository);
    print(&report, args.output.format)?;
    if report.is_empty() {
        let path = args.path.display();
        note(format_args!("no PipelineRun and no Repository in {path}"));
    }
    for problem in report.warnings {
        note(format_args!("warning: {problem}"));
    }
    for problem in report.unreadable {
        note(problem);
    }
    Ok(if report.unreadable.is_empty() {
        Exit::Success
    } else {
        Exit::BadInput
    })
}

fn decide(manifests: &Manifests, global: &RepositoryKey) -> Result<Decision, Failure> {
    let options = ControllerOptions::default()
        .with_global_repository(Some(global.clone()))
        // All that would be known of an order is in the manifests.
        .with_order_wait(std::time::Duration::ZERO);
    runtime()?.block_on(decision::decide(manifests, options))
}

fn print(report: &Report, format: Format) -> Result<(), Failure> {
    let mut printer = Printer::new(format);
    match format {
        Format::Table => {
            printer.text(&table::describe(report))?;
            printer.flush()
        }
        Format::Json | Format::Yaml => printer.document(&shape::Shape::of(report)),
    }
}

/// On a clock that jumps: nothing that the controller waits for takes time.
fn runtime() -> Result<runtime::Runtime, Failure> {
    runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .map_err(|error| Failure::new(Exit::Internal, format!("no runtime: {error}")))
}
