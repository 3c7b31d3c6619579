//! `pac`: per-repository concurrency limits from a shell.

mod bench;
mod bump;
mod cancel;
mod checked;
mod cleanup;
mod config;
#[cfg(feature = "kubernetes")]
mod controller;
mod counted;
#[cfg(feature = "dist")]
mod dist;
mod doctor;
#[cfg(any(feature = "kubernetes", feature = "mock"))]
mod end;
#[cfg(feature = "mock")]
mod etcd_mock;
mod event;
#[cfg(unix)]
mod exec;
mod exit;
mod format;
mod history;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod limit;
mod manifest_files;
mod many;
mod migrate;
mod output;
mod pause;
mod plan;
mod process;
mod release;
mod replay;
#[cfg(feature = "postgres")]
mod schema;
#[cfg(feature = "kubernetes")]
mod section;
mod status;
mod store;
mod terms;
mod time;
mod top;
mod watch;
#[cfg(feature = "kubernetes")]
mod webhook;
mod why;

use std::borrow::Cow;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use config::Sources;
use exit::{Exit, Failure};
use pac_concurrency::Settings;
use pac_concurrency::text::one_line;

/// Concurrency limits, strict FIFO queues and fenced leases, per repository.
#[derive(Debug, Parser)]
#[command(name = "pac", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    sources: Sources,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure a driver on the spot, against what its store does by itself.
    Bench(With<bench::Args>),
    /// Show the settings in effect and where each comes from, or check files of them.
    Config(With<config::Args>),
    /// Run the queues of PipelineRuns on a Kubernetes cluster.
    #[cfg(feature = "kubernetes")]
    Controller(With<controller::Args>),
    /// Try the store of the settings, and name what is wrong and what to do about it.
    Doctor(With<doctor::Args>),
    /// Serve a mock etcd, which keeps nothing, for tests of programs in any language.
    #[cfg(feature = "mock")]
    EtcdMock(etcd_mock::Args),
    /// Run a command while holding a slot, after waiting for its turn.
    #[cfg(unix)]
    Exec(With<exec::Args>),
    /// Show limits, who runs and who waits.
    Status(With<status::Args>),
    /// Show what happens as it happens.
    Watch(With<watch::Args>),
    /// Show the busiest repositories, live.
    Top(With<top::Args>),
    /// Show the runs that have ended, with their waits.
    History(With<history::Args>),
    /// Show or pin the limit of a repository, and what is beside it.
    Limit(With<limit::Args>),
    /// Start nothing in a repository, or in many, until `pac resume`.
    Pause(With<pause::PauseArgs>),
    /// End a pause.
    Resume(With<pause::ResumeArgs>),
    /// End runs that wait or run, or ask them to end.
    Cancel(With<cancel::Args>),
    /// Move a waiting run within its queue.
    Bump(With<bump::Args>),
    /// Give the slot of a run back.
    Release(With<release::Args>),
    /// Forget a repository and all its runs.
    Cleanup(With<cleanup::Args>),
    /// Show what the runs of a directory of manifests would do: start or queue, where and why.
    Plan(With<plan::Args>),
    /// Show the version of PostgreSQL's schema, create it, or bring it up to date.
    #[cfg(feature = "postgres")]
    Schema(With<schema::Args>),
    /// Bring the state of an older system along, or move state between stores.
    Migrate(With<migrate::Args>),
    /// Print, apply, examine and remove what a Kubernetes cluster needs for the controller.
    #[cfg(feature = "kubernetes")]
    Kubernetes(kubernetes::Args),
    /// Answer the admission reviews of an API server without MutatingAdmissionPolicies.
    #[cfg(feature = "kubernetes")]
    Webhook(webhook::Args),
    /// Enter or leave a section, as a step of a PipelineRun.
    #[cfg(feature = "kubernetes")]
    Section(section::Args),
    /// Feed a recorded stream of PipelineRuns through the manager and show what the limits did.
    Replay(With<replay::Args>),
    /// The command of `pac exec` in its first moment.
    #[cfg(unix)]
    #[command(hide = true, name = exec::guarded::NAME)]
    ExecGuarded(exec::guarded::Args),
    /// What stands between `pac exec --contain` and its command.
    #[cfg(unix)]
    #[command(hide = true, name = exec::contained::NAME)]
    ExecContained(exec::contained::Args),
    /// Write completions and manual pages.
    #[cfg(feature = "dist")]
    #[command(hide = true, name = dist::NAME)]
    Dist(dist::Args),
}

/// The arguments of a command, and the options allowed before and after its name. (For a global
/// option, clap forgets the values before the name if there are some after it.)
#[derive(Debug, clap::Args)]
struct With<A: clap::Args> {
    #[command(flatten)]
    args: A,
    #[command(flatten)]
    sources: Sources,
}

impl<A: clap::Args> With<A> {
    /// Runs a command with the settings from all sources.
    fn run<T: Into<ExitCode>>(
        self,
        before: Sources,
        command: impl FnOnce(&A, &Settings) -> Result<T, Failure>,
    ) -> Result<ExitCode, Failure> {
        let sources = before.followed_by(self.sources);
        let settings = sources.loader()?.load()?.settings();
        command(&self.args, &settings).map(Into::into)
    }
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    run(cli).unwrap_or_else(|failure| {
        if failure.exit() != Exit::Success {
            output::note_failure(&failure);
        }
        failure.exit().into()
    })
}

/// Says what clap says of the arguments: what is wrong with them, or the help that was asked for.
/// A script may have taken an argument from anywhere.
fn refused(error: &clap::Error) -> ExitCode {
    let mut text = error.render().to_string();
    for argument in std::env::args_os() {
        // With what follows the name of an option.
        let argument = argument.to_string_lossy().into_owned();
        let value = argument.split_once('=').map(|(_, value)| value);
        let has_text = |foreign: &&str| !foreign.trim().is_empty();
        for foreign in [Some(argument.as_str()), value]
            .into_iter()
            .flatten()
            .filter(has_text)
        {
            if let Cow::Owned(shown) = one_line(foreign) {
                text = text.replace(foreign, &shown);
            }
        }
    }
    if error.use_stderr() {
        output::note_lines(&text);
        return Exit::Usage.into();
    }
    match output::print(|out| out.write_all(text.as_bytes())) {
        Ok(()) => Exit::Success.into(),
        Err(failure) => failure.exit().into(),
    }
}

fn run(Cli { sources, command }: Cli) -> Result<ExitCode, Failure> {
    match command {
        Command::Bench(with) => {
            bench::run(&with.args, &sources.followed_by(with.sources)).map(Into::into)
        }
        Command::Config(with) => {
            config::run(&with.args, &sources.followed_by(with.sources)).map(Into::into)
        }
        #[cfg(feature = "kubernetes")]
        Command::Controller(with) => {
            controller::run(&with.args, &sources.followed_by(with.sources)).map(Into::into)
        }
        Command::Doctor(with) => {
            doctor::run(&with.args, &sources.followed_by(with.sources)).map(Into::into)
        }
        #[cfg(feature = "mock")]
        Command::EtcdMock(args) => {
            sources.note_unused("etcd-mock");
            etcd_mock::run(&args).map(Into::into)
        }
        #[cfg(unix)]
        Command::Exec(with) => with.run(sources, exec::run),
        #[cfg(unix)]
        Command::ExecGuarded(args) => Ok(exec::guarded::run(&args)),
        #[cfg(unix)]
        Command::ExecContained(args) => exec::contained::run(&args),
        #[cfg(feature = "dist")]
        Command::Dist(args) => dist::run(&args).map(Into::into),
        Command::Status(with) => with.run(sources, status::run),
        Command::Watch(with) => with.run(sources, watch::run),
        Command::Top(with) => with.run(sources, top::run),
        Command::History(with) => with.run(sources, history::run),
        Command::Limit(with) => with.run(sources, limit::run),
        Command::Pause(with) => with.run(sources, pause::pause),
        Command::Resume(with) => with.run(sources, pause::resume),
        Command::Cancel(with) => with.run(sources, cancel::run),
        Command::Bump(with) => with.run(sources, bump::run),
        Command::Release(with) => with.run(sources, release::run),
        Command::Cleanup(with) => with.run(sources, cleanup::run),
        Command::Plan(with) => {
            sources.followed_by(with.sources).note_unused("plan");
            plan::run(&with.args).map(Into::into)
        }
        #[cfg(feature = "kubernetes")]
        Command::Kubernetes(args) => {
            sources.note_unused("kubernetes");
            kubernetes::run(&args).map(Into::into)
        }
        #[cfg(feature = "kubernetes")]
        Command::Webhook(args) => {
            sources.note_unused("webhook");
            webhook::run(&args).map(Into::into)
        }
        #[cfg(feature = "kubernetes")]
        Command::Section(args) => {
            sources.note_unused("section");
            section::run(&args).map(Into::into)
        }
        #[cfg(feature = "postgres")]
        Command::Schema(with) => with.run(sources, schema::run),
        Command::Migrate(with) => with.run(sources, migrate::run),
        Command::Replay(with) => {
            sources.followed_by(with.sources).note_unused("replay");
            replay::run(&with.args).map(Into::into)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
