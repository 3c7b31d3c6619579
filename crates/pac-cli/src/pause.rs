//! `pac pause` and `pac resume`: nothing is started meanwhile.

use pac_concurrency::{
    ConcurrencyManager, PauseChange, PauseCondition, Paused, PipelineRunKey, Reason, RepositoryKey,
    RepositorySummary, Settings,
};
use serde::Serialize;

use crate::counted::counted;
use crate::exit::{Exit, Failure};
use crate::format::{Format, FormatArg, print_result};
use crate::limit::started;
use crate::many::{self, Done, Which, unknown};
use crate::output::note;
use crate::store::{self, confirm};

const AFTER_PAUSE_HELP: &str = "\
While a repository is paused nothing is started in it, whatever its limit: what runs goes on, what comes is
queued in order, and who waits hears that it is paused, and why. Paused again, it gets the new reason.
One that the store does not know yet becomes known with its limit: `pac limit NS/NAME N`.

--namespace and --all ask first, and leave those that are paused already as they are, or are by then. They are for the
repositories that the store knows when they are called: one that comes later is not paused by them.

Exit codes: 1 when the answer was no, or the store knows nothing of what was named.";

const AFTER_RESUME_HELP: &str = "\
What waits starts at once, as far as the limit admits. One that was not paused stays as it is.

--namespace and --all ask first; with --reason, they resume those that were paused for that reason.

Exit codes: 1 when the answer was no, or the store knows nothing of what was named.";

/// The arguments of `pac pause`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_PAUSE_HELP)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    which: Which,

    /// Why, for those who wait
    #[arg(long, value_name = "TEXT")]
    reason: Option<Reason>,

    /// Do not ask
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    output: FormatArg,
}

/// The arguments of `pac resume`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_RESUME_HELP)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    which: Which,

    /// Of many, only those that were paused for this reason
    #[arg(long, value_name = "TEXT", conflicts_with = "repository")]
    reason: Option<Reason>,

    /// Do not ask
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    output: FormatArg,
}

/// The JSON and YAML output for one repository.
#[derive(Serialize)]
struct One<'a> {
    repository: &'a str,
    paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    before: bool,
    promoted: Vec<&'a str>,
}

/// The JSON and YAML output for many.
#[derive(Serialize)]
struct Many<'a> {
    paused: bool,
    repositories: Vec<One<'a>>,
}

impl<'a> One<'a> {
    fn of(
        repository: &'a RepositoryKey,
        change: &'a PauseChange,
        paused: bool,
        reason: Option<&'a Reason>,
    ) -> Self {
        Self {
            repository: repository.as_str(),
            paused,
            reason: reason.map(Reason::as_str),
            before: change.before,
            promoted: change.promoted.iter().map(PipelineRunKey::as_str).collect(),
        }
    }
}

/// Pauses.
pub(crate) fn pause(args: &PauseArgs, settings: &Settings) -> Result<Exit, Failure> {
    store::block_on(store::with_manager(settings, async |manager| {
        match &args.which.repository {
            Some(repository) => args.one(manager, repository).await,
            None => args.many(manager).await,
        }
    }))
}

impl PauseArgs {
    async fn one(
        &self,
        manager: &ConcurrencyManager,
        repository: &RepositoryKey,
    ) -> Result<Exit, Failure> {
        if !manager.status(repository).await?.exists {
            return Err(unknown(repository));
        }
        let change = manager.pause(repository, self.reason.clone()).await?;
        let already = if change.before { " already" } else { "" };
        let sentence = format!(
            "{repository} is paused{already}{}",
            why(self.reason.as_ref())
        );
        let shape = One::of(repository, &change, true, self.reason.as_ref());
        print_result(self.output.format, &sentence, &shape)?;
        Ok(Exit::Success)
    }

    async fn many(&self, manager: &ConcurrencyManager) -> Result<Exit, Failure> {
        let meant = self.which.list(manager, |one| one.pause.is_none()).await?;
        confirm_many("Pause", &self.which, meant.len(), self.yes)?;
        let pause = async |one: &RepositoryKey, _| {
            let only_if = PauseCondition::NotPaused;
            manager.pause_if(one, self.reason.clone(), only_if).await
        };
        let Done { done, ended } = many::each(meant, pause).await;
        report(self.output.format, &done, true, self.reason.as_ref())?;
        ended
    }
}

fn why(reason: Option<&Reason>) -> String {
    reason.map_or_else(String::new, |reason| format!(": {reason}"))
}

/// Resumes.
pub(crate) fn resume(args: &ResumeArgs, settings: &Settings) -> Result<Exit, Failure> {
    store::block_on(store::with_manager(settings, async |manager| {
        match &args.which.repository {
            Some(repository) => args.one(manager, repository).await,
            None => args.many(manager).await,
        }
    }))
}

impl ResumeArgs {
    async fn one(
        &self,
        manager: &ConcurrencyManager,
        repository: &RepositoryKey,
    ) -> Result<Exit, Failure> {
        if !manager.status(repository).await?.exists {
            return Err(unknown(repository));
        }
        let change = manager.resume(repository).await?;
        let shape = One::of(repository, &change, false, None);
        let sentence = match change.before {
            true => format!("{repository} goes on{}", started(&shape.promoted)),
            false => format!("{repository} was not paused"),
        };
        print_result(self.output.format, &sentence, &shape)?;
        Ok(Exit::Success)
    }

    async fn many(&self, manager: &ConcurrencyManager) -> Result<Exit, Failure> {
        let is_meant = |one: &RepositorySummary| {
            let for_it = |pause: &Paused| self.reason.is_none() || pause.reason == self.reason;
            one.pause.as_ref().is_some_and(for_it)
        };
        let meant = self.which.list(manager, is_meant).await?;
        confirm_many("Resume", &self.which, meant.len(), self.yes)?;
        // A pause that somebody has begun since the look is not the one that was meant.
        let resume = async |one: &RepositoryKey, seen: Option<Paused>| {
            let only_if = PauseCondition::PausedFor(seen.and_then(|pause| pause.reason));
            manager.resume_if(one, only_if).await
        };
        let Done { done, ended } = many::each(meant, resume).await;
        report(self.output.format, &done, false, None)?;
        ended
    }
}

/// Asks whether that is to be done to so many; says so where there are none.
fn confirm_many(verb: &str, which: &Which, count: usize, yes: bool) -> Result<(), Failure> {
    let place = which.words();
    if count == 0 {
        note(format_args!("nothing to {} {place}", verb.to_lowercase()));
        return Ok(());
    }
    confirm(&format!("{verb} {} {place}?", repositories(count)), yes)
}

fn report(
    format: Format,
    done: &[(RepositoryKey, PauseChange)],
    paused: bool,
    reason: Option<&Reason>,
) -> Result<(), Failure> {
    let (done, left): (Vec<_>, Vec<_>) = done.iter().partition(|(_, change)| change.accepted);
    for (one, _) in left {
        note(format_args!(
            "{one} was paused or resumed by somebody else meanwhile: it is left as it is"
        ));
    }
    let shapes = done
        .iter()
        .map(|(one, change)| One::of(one, change, paused, reason));
    let shape = Many {
        paused,
        repositories: shapes.collect(),
    };
    let promoted: usize = done.iter().map(|(_, change)| change.promoted.len()).sum();
    let count = repositories(done.len());
    let sentence = match (paused, promoted) {
        (true, _) => format!("{count} paused{}", why(reason)),
        (false, promoted) => {
            let started = counted(promoted, "run", "runs");
            format!("{count} resumed; {started} started")
        }
    };
    print_result(format, &sentence, &shape)
}

fn repositories(count: usize) -> String {
    counted(count, "repository", "repositories")
}
