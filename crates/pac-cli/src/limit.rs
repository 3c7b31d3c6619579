//! `pac limit`: shows and pins a limit, and the rules beside it.

pub(crate) mod rules;

use std::num::NonZeroU32;

use pac_concurrency::{
    Claim, InvalidValue, Limit, LimitChange, Owner, PipelineRunKey, RepositoryKey,
    RepositoryStatus, Rules, RulesChange, Settings, SlotNames,
};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::format::{FormatArg, print_result};
use crate::many::unknown;
use crate::store::{self, confirm};

const AFTER_HELP: &str = "\
Without N and options the rules in force are shown, who has set them, and what is beneath a pin; nothing
is changed. 0 is no limit: all that waits starts at once, so it asks first where something waits; so does
--unpin where there is no limit beneath. In a repository that is paused nothing starts, and it does not ask. To
start nothing, `pac pause`.

What is set here is pinned: the limit with the rules beside it, until --unpin, against controllers that
announce a limit and callers that propose one. Without N it is the limit in force; where there is none, N is
needed. What they announce meanwhile is in force afterwards.
Raising a limit starts who may start now; lowering it evicts nobody.

Exit codes: 1 when the answer was no, or the store knows nothing of a repository whose limit is to be
shown or unpinned.";

/// The arguments of `pac limit`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The repository
    #[arg(value_name = "NS/NAME")]
    repository: RepositoryKey,

    /// How many slots there are; 0 for no limit
    #[arg(value_name = "N")]
    limit: Option<u32>,

    /// How many runs may wait; more are refused as queue full
    #[arg(long, value_name = "N|none", value_parser = or_none::<u32>)]
    max_queued: Option<OrNone<u32>>,

    /// How many lighter runs may go before one that does not fit
    #[arg(long, value_name = "K|none", value_parser = or_none::<NonZeroU32>)]
    backfill: Option<OrNone<NonZeroU32>>,

    /// The names of the slots, 256 at most, in the order of their numbers; without N there are as many
    #[arg(long, value_name = "NAME,…|none", value_parser = names)]
    slots: Option<OrNone<SlotNames>>,

    /// Take a pin back: what was announced or set beneath it is in force again
    #[arg(long, conflicts_with_all = ["limit", "max_queued", "backfill", "slots"])]
    unpin: bool,

    /// Do not ask before all that waits is started
    #[arg(long)]
    yes: bool,

    #[command(flatten)]
    output: FormatArg,
}

/// A value, or the word `none`.
#[derive(Debug, Clone)]
struct OrNone<T>(Option<T>);

fn or_none<T: std::str::FromStr>(text: &str) -> Result<OrNone<T>, String> {
    match text {
        "none" => Ok(OrNone(None)),
        text => match text.parse() {
            Ok(value) => Ok(OrNone(Some(value))),
            Err(_) => Err("must be a number, or none".to_owned()),
        },
    }
}

fn names(text: &str) -> Result<OrNone<SlotNames>, String> {
    if text == "none" {
        return Ok(OrNone(None));
    }
    let names = text
        .parse()
        .map_err(|error: InvalidValue| error.to_string())?;
    Ok(OrNone(Some(names)))
}

/// The JSON and YAML output where a limit is set.
#[derive(Serialize)]
struct Shape<'a> {
    repository: &'a str,
    #[serde(flatten)]
    in_force: rules::RulesShape<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unpinned: Option<bool>,
    promoted: Vec<&'a str>,
}

impl<'a> Shape<'a> {
    fn of(status: &'a RepositoryStatus, done: &'a LimitChange, unpinned: Option<bool>) -> Self {
        Self {
            repository: status.repository.as_str(),
            in_force: rules::RulesShape::in_force(status),
            unpinned,
            promoted: done.promoted.iter().map(PipelineRunKey::as_str).collect(),
        }
    }
}

/// Shows or sets the limit.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Failure> {
    match args.change() {
        _ if args.unpin => unpin(args, settings),
        Some(change) => pin(args, &change, settings),
        None => show(args, settings),
    }
}

impl Args {
    /// What is to become of the rules; `None` where nothing is.
    fn change(&self) -> Option<RulesChange> {
        let mut change = RulesChange::default();
        if let Some(OrNone(most)) = self.max_queued {
            change = change.with_max_queued(most);
        }
        if let Some(OrNone(most)) = self.backfill {
            change = change.with_backfill(most);
        }
        if let Some(OrNone(names)) = &self.slots {
            change = change.with_slots(names.clone());
        }
        let named = change.slots.iter().flatten();
        let count = |names: &SlotNames| u32::try_from(names.len()).unwrap_or(u32::MAX);
        let limit = self.limit.or_else(|| named.map(count).next());
        change.limit = limit.map(Limit::new);
        (change != RulesChange::default()).then_some(change)
    }

    fn says_no_limit(&self) -> Failure {
        let repository = &self.repository;
        let message = format!(
            "{repository} has no limit, and what stands beside one is pinned with it: say N, or 0 for \
             none (`pac limit {repository} N …`)"
        );
        Failure::new(Exit::Usage, message)
    }

    /// Asks before all that waits is started, because of `why`. Under a pause nothing is.
    fn confirm_no_limit(&self, why: &str, status: &RepositoryStatus) -> Result<(), Failure> {
        let waiting = status.queued.len();
        if waiting == 0 || status.pause.is_some() {
            return Ok(());
        }
        let question = format!(
            "{why}: start what waits in {} ({waiting}), and all that comes?",
            self.repository
        );
        confirm(&question, self.yes)
    }
}

fn show(args: &Args, settings: &Settings) -> Result<Exit, Failure> {
    let status = store::block_on(async {
        let reader = store::reader(settings).await?;
        Ok(reader.status(&args.repository).await?)
    })?;
    if !status.exists {
        return Err(unknown(&args.repository));
    }
    let shape = rules::Shape::of(&status);
    print_result(args.output.format, &rules::describe(&status), &shape)?;
    Ok(Exit::Success)
}

fn pin(args: &Args, change: &RulesChange, settings: &Settings) -> Result<Exit, Failure> {
    let repository = &args.repository;
    let (done, status) = store::block_on(store::with_manager(settings, async |manager| {
        let status = manager.status(repository).await?;
        match change.limit {
            Some(Limit::UNLIMITED) => args.confirm_no_limit("0 is no limit", &status)?,
            Some(_) => {}
            // What is pinned is pinned together: without N, that there is no limit would be, too.
            None if status.limit == Limit::UNLIMITED && status.owner != Some(Owner::Pinned) => {
                return Err(args.says_no_limit());
            }
            None => {}
        }
        let pinned = manager.set_rules(repository, change.clone(), Claim::Pin);
        let done = pinned.await?;
        Ok((done, manager.status(repository).await?))
    }))?;
    let mut parts = vec![rules::limit_is(repository, done.limit, done.owner)];
    parts.extend(rules::beside(&change.apply(&Rules::default())));
    let shape = Shape::of(&status, &done, None);
    let sentence = format!("{}{}", parts.join("; "), started(&shape.promoted));
    print_result(args.output.format, &sentence, &shape)?;
    Ok(Exit::Success)
}

fn unpin(args: &Args, settings: &Settings) -> Result<Exit, Failure> {
    let repository = &args.repository;
    let (done, status) = store::block_on(store::with_manager(settings, async |manager| {
        let status = manager.status(repository).await?;
        if !status.exists {
            return Err(unknown(repository));
        }
        args.confirm_unpinned(&status)?;
        let done = manager.unpin(repository).await?;
        Ok((done, manager.status(repository).await?))
    }))?;
    let shape = Shape::of(&status, &done, Some(done.accepted));
    let limit = format!("{}, {}", done.limit, rules::set_by(done.owner));
    let sentence = match done.accepted {
        true => format!(
            "the limit of {repository} is {limit}{}",
            started(&shape.promoted)
        ),
        false => format!("nothing is pinned: the limit of {repository} is {limit}"),
    };
    print_result(args.output.format, &sentence, &shape)?;
    Ok(Exit::Success)
}

impl Args {
    /// Asks where nothing is beneath the pin that would hold back what waits.
    fn confirm_unpinned(&self, status: &RepositoryStatus) -> Result<(), Failure> {
        let beneath = status.beneath.as_ref().map(|(rules, _)| rules.limit);
        let pinned = status.owner == Some(Owner::Pinned);
        if pinned && beneath.unwrap_or(Limit::UNLIMITED) == Limit::UNLIMITED {
            self.confirm_no_limit("there is no limit beneath the pin", status)?;
        }
        Ok(())
    }
}

/// The runs that started, as the end of a sentence.
pub(crate) fn started(promoted: &[&str]) -> String {
    match promoted {
        [] => String::new(),
        runs => format!("; started: {}", runs.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_slots_are_told_apart_and_may_be_taken_back() {
        let OrNone(two) = names("pixel-8,pixel-9").unwrap();
        assert_eq!(two.unwrap().len(), 2);
        assert!(names("none").unwrap().0.is_none());
        for wrong in ["", "a,,b", "a,b,a", "a b"] {
            assert!(names(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_number_or_none() {
        assert_eq!(or_none::<u32>("0").unwrap().0, Some(0));
        assert_eq!(or_none::<u32>("none").unwrap().0, None);
        assert!(or_none::<NonZeroU32>("0").is_err());
        assert!(or_none::<u32>("no").is_err());
    }
}
