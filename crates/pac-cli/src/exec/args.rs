//! The arguments of `pac exec`, and what can be said of them alone.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

use clap::{ValueEnum, value_parser};
use pac_concurrency::{
    Error, Group, ManagerOptions, Paused, PipelineRunKey, Priority, RepositoryKey, RunRequest,
    Settings, SkipIf, Supersedes, Weight,
};
use tokio::time::Instant;

use super::held::Held;
use super::help::AFTER_HELP;
use super::patience::Stop;
use super::{Times, child, grace, guarded, name};
use crate::exit::{Exit, Failure};
use crate::store;
use crate::why;

/// The arguments of `pac exec`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The repository whose slots are shared, with :W for W of them; given several times, slots of each
    /// are held
    #[arg(
        short = 'r',
        long = "repository",
        value_name = "NS/NAME[:W]",
        required = true
    )]
    pub(super) wanted: Vec<Wanted>,

    /// How many may run at once, 1 or more; for one repository alone
    #[arg(short, long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    pub(super) limit: Option<u32>,

    /// How many slots it takes at once, of each repository that is named without :W
    #[arg(long, value_name = "W", default_value = "1", value_parser = weight)]
    weight: Weight,

    /// The name of this run, which no live run may have [default: a new one]
    #[arg(long, value_name = "NS/NAME")]
    pub(super) run: Option<PipelineRunKey>,

    /// Higher goes first; equals keep their order
    #[arg(
        long,
        value_name = "P",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    priority: i32,

    /// The group that it belongs to, such as a branch or a pull request
    #[arg(long, value_name = "G")]
    group: Option<Group>,

    /// What becomes of the earlier runs of the group
    #[arg(long, value_enum, value_name = "WHICH", requires = "group")]
    supersede: Option<Supersede>,

    /// Do not run where others wait
    #[arg(long, conflicts_with = "skip_if_running")]
    skip_if_waiting: bool,

    /// Do not run where others wait or run
    #[arg(long)]
    skip_if_running: bool,

    /// How long the store lets it wait, by its own clock
    #[arg(long, value_name = "DURATION", value_parser = crate::time::parse_duration)]
    max_wait: Option<Duration>,

    /// How long the store lets it hold its slots, by its own clock
    #[arg(long, value_name = "DURATION", value_parser = crate::time::parse_duration)]
    max_hold: Option<Duration>,

    /// How long the slot outlives this process if it dies, or the store's silence: 100ms to 24h
    /// [default: concurrency-session-ttl of the settings]
    #[arg(long, value_name = "DURATION", value_parser = session_ttl)]
    ttl: Option<Duration>,

    /// Between SIGTERM and SIGKILL if the slot is lost, a quarter of the TTL at most, and with --max-hold 20s
    /// [default: a fifth of the TTL, and no more than 10s]
    #[arg(long, value_name = "DURATION", value_parser = crate::time::parse_duration)]
    kill_grace: Option<Duration>,

    /// Inside a command that holds a slot of the same repository, run within that slot, as long as the
    /// outer one holds it: what else is said of such a repository has no effect
    #[arg(long)]
    pub(super) reentrant: bool,

    /// Do not wait for a slot
    #[arg(long, conflicts_with = "wait_timeout")]
    pub(super) no_wait: bool,

    /// Wait at most so long for a slot, counted from the start
    #[arg(long, value_name = "DURATION", value_parser = crate::time::parse_duration)]
    wait_timeout: Option<Duration>,

    /// Leave the passwords of the store in the command's environment
    #[arg(long)]
    pub(super) keep_credentials: bool,

    /// End all that descends from the command with it, also what leaves its process group
    #[arg(long)]
    pub(super) contain: bool,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(super) command: Vec<OsString>,
}

/// A repository of which slots are wanted: `ci/website`, or `shared/gpu:2` for two of them.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) repository: RepositoryKey,
    weight: Option<Weight>,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, count) = match text.split_once(':') {
            Some((name, count)) => (name, Some(weight(count)?)),
            None => (text, None),
        };
        let repository = name.parse::<RepositoryKey>();
        Ok(Self {
            repository: repository.map_err(|error| error.to_string())?,
            weight: count,
        })
    }
}

fn weight(text: &str) -> Result<Weight, String> {
    let weight = text.parse().ok().and_then(Weight::new);
    weight.ok_or_else(|| "the number of slots must be from 1 to 65535".to_owned())
}

/// What becomes of the earlier runs of a group.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Supersede {
    /// Those that wait end
    Waiting,
    /// Those that wait end, and those that run are asked to
    All,
}

impl Args {
    /// The settings, with the changes that the arguments ask for.
    pub(super) fn settings(&self, mut settings: Settings) -> Result<(Settings, Times), Failure> {
        self.check_repositories()?;
        if let Some(ttl) = self.ttl {
            settings.manager.session_ttl = ttl;
            // Has no effect on runs that end with the session, but must not be below the session
            // TTL.
            settings.manager.lease_ttl = settings.manager.lease_ttl.map(|lease| lease.max(ttl));
        }
        let ttl = settings.manager.session_ttl;
        let grace = grace::kill_grace(self.kill_grace, ttl, self.max_hold.is_some())?;
        if settings.is_in_process() {
            return Err(Failure::new(
                Exit::Config,
                format!(
                    "the driver is {}, which no two processes share: every `pac exec` would be \
                     alone with its limit; {}",
                    store::in_process(&settings),
                    store::OTHER_STORE
                ),
            ));
        }
        #[cfg(feature = "postgres")]
        {
            // Many of these run at once: each needs one connection beside the one that keeps its
            // session alive, and waits for a full server as it would for a slot.
            settings.postgres.max_connections = 1;
            if !self.no_wait {
                // `connected` waits, and says so.
                settings.postgres.full_server_timeout = Duration::ZERO;
            }
        }
        Ok((settings, Times { ttl, grace }))
    }

    fn check_repositories(&self) -> Result<(), Failure> {
        let wrong = |message| Err(Failure::new(Exit::Usage, message));
        let mut known = BTreeSet::new();
        let mut repositories = self.wanted.iter().map(|wanted| &wanted.repository);
        if let Some(twice) = repositories.find(|one| !known.insert(*one)) {
            return wrong(format!(
                "--repository {twice} is there twice; say {twice}:2 for two slots of it"
            ));
        }
        if self.limit.is_some() && known.len() > 1 {
            return wrong(
                "--limit with several repositories does not say whose it is: set the limits with \
                 `pac limit NS/NAME N`"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// The end of `--wait-timeout`. One that no clock can tell is as good as none.
    pub(super) fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.wait_timeout?)
    }

    /// Runs the command in place of this process: then what ends the command around it, ends it too.
    pub(super) fn become_the_command(&self, held: &Held) -> u8 {
        let environment = held.environment(self.first());
        let mut taken_out = environment
            .taken_out
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>();
        if !self.keep_credentials {
            taken_out.extend(child::credentials());
        }
        guarded::become_it(&self.command, &taken_out, &environment.set)
    }

    /// The request for slots of a repository. What it does to others, it does once: who lost a place and
    /// asks again is not the newest of its group any more.
    pub(super) fn request(&self, wanted: &Wanted, again: bool) -> Result<RunRequest, Failure> {
        let run = match &self.run {
            Some(run) => run.clone(),
            None => name::unique(wanted.repository.namespace())?,
        };
        let mut request = RunRequest::ephemeral(run, name::uid()?)
            .with_priority(self.priority())
            .with_weight(self.weight_of(wanted))
            .numbered();
        if let Some(group) = &self.group {
            request = request.in_group(group.clone());
        }
        if let Some(longest) = self.max_wait {
            request = request.with_max_wait(longest);
        }
        if let Some(longest) = self.max_hold {
            request = request.with_max_hold(longest);
        }
        if again {
            return Ok(request);
        }
        if let Some(supersede) = self.supersede {
            request = request.superseding(match supersede {
                Supersede::Waiting => Supersedes::Waiting,
                Supersede::All => Supersedes::All,
            });
        }
        Ok(match (self.skip_if_waiting, self.skip_if_running) {
            (true, _) => request.skip_if(SkipIf::Waiting),
            (_, true) => request.skip_if(SkipIf::Running),
            (false, false) => request,
        })
    }

    pub(super) fn priority(&self) -> Priority {
        Priority::new(self.priority)
    }

    /// How many slots of a repository it takes.
    pub(super) fn weight_of(&self, wanted: &Wanted) -> Weight {
        wanted.weight.unwrap_or(self.weight)
    }

    /// Whether it waits for a slot for as long as it takes.
    pub(super) fn waits_without_end(&self) -> bool {
        !self.no_wait && self.wait_timeout.is_none() && self.max_wait.is_none()
    }

    /// The repository that was named first.
    pub(super) fn first(&self) -> Option<&RepositoryKey> {
        self.wanted.first().map(|wanted| &wanted.repository)
    }

    /// The repositories as they are told.
    fn names(&self) -> String {
        let names = self
            .wanted
            .iter()
            .map(|wanted| wanted.repository.to_string());
        let names: Vec<_> = names.collect();
        names.join(" and ")
    }

    pub(super) fn no_slot(&self, repository: &RepositoryKey, pause: Option<Paused>) -> Failure {
        let why = if self.no_wait {
            "--no-wait"
        } else {
            "--wait-timeout"
        };
        let paused = pause.map_or_else(String::new, |pause| {
            format!("; it is {}", why::paused(&pause))
        });
        let message =
            format!("no slot of {repository} was free ({why}{paused}); the command did not run");
        Failure::new(Exit::NoSlot, message)
    }

    /// The end of `--wait-timeout` before there was a connection.
    pub(super) fn unanswered_by(&self, full: Option<&Error>) -> Stop {
        match full {
            Some(why) => Stop::Failed(Failure::new(
                Exit::NoSlot,
                format!(
                    "no slot of {} was had within --wait-timeout: {why}; the command did not run",
                    self.names()
                ),
            )),
            None => Stop::Unanswered,
        }
    }

    pub(super) fn unanswered(&self) -> Failure {
        let message = format!(
            "no slot of {} was had: the store did not answer within --wait-timeout; the command \
             did not run",
            self.names()
        );
        Failure::new(Exit::NoSlot, message)
    }
}

/// A TTL that the manager takes.
fn session_ttl(text: &str) -> Result<Duration, String> {
    let (least, most) = (
        ManagerOptions::SHORTEST_SESSION_TTL,
        ManagerOptions::LONGEST_SESSION_TTL,
    );
    let ttl = crate::time::parse_duration(text);
    ttl.ok()
        .filter(|ttl| (least..=most).contains(ttl))
        .ok_or_else(|| {
            format!(
                "must be a duration from {} to {}h, such as 15s: the slot of a `pac` that dies is \
                 held for so long",
                crate::time::humanise(least),
                most.as_secs() / 3_600
            )
        })
}
