//! `pac exec`: runs a command while holding a slot.

mod child;
pub(crate) mod contained;
#[cfg(target_os = "linux")]
mod family;
#[cfg(not(target_os = "linux"))]
#[path = "exec/elsewhere.rs"]
mod family;
mod grace;
pub(crate) mod guarded;
mod held;
mod name;
mod patience;
mod processes;
mod queue;
mod renewals;
mod signals;
mod slots;
mod terminal;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fmt::Display;
use std::future::pending;
use std::process::ExitCode;
use std::time::Duration;

use clap::value_parser;
use pac_concurrency::{
    ConcurrencyManager, Error, ErrorKind, ManagerOptions, PipelineRunKey, RepositoryKey,
    RunOutcome, Settings,
};
use tokio::time::{Instant, sleep};

use crate::exit::{Exit, Failure};
use crate::output::note;
use crate::store;
use child::{Child, Over, Start};
use family::Family;
use held::{Held, Slot};
use patience::{Patience, Stop, until};
use signals::Signals;

const AFTER_HELP: &str = "\
The command's standard streams are its own. In its environment it finds, beside what is in that of
`pac`,
  PAC_REPOSITORY     NS/NAME of the repository
  PAC_RUN            NS/NAME of the run that holds the slot
  PAC_LEASE          the session that holds it, as `pac status` shows it
  PAC_FENCING_TOKEN  a number that grows with every grant of the repository: hand it to
                     what the command writes to, and have smaller ones refused there
  PAC_HELD           all slots that it runs in, as NS/NAME=NS/RUN#TOKEN with spaces between;
                     the four above are of the repository that was named first
and not the passwords of the store: PAC_POSTGRESQL_URL, PAC_POSTGRESQL_PASSWORD, PAC_ETCD_PASSWORD
and ETCD_PASSWORD are taken out. A command that runs `pac` itself needs --keep-credentials, or
settings in files.

Several repositories: their slots are taken in the order of the names, whatever the order in which
they are given, so that of those who name all that they need nobody waits for one who waits for him; all
are given back when one is not had. What is held is said while the rest is waited for.
A `pac exec` inside a command that holds a slot of the same repository could wait for itself, and is
refused; so is one that waits without end for a repository whose name comes before one that is held.
With --reentrant it runs within the slots that are held, if the store says so when it starts. What has
slots of its own inside another `pac exec` has a process group of its own: say --contain to the outer
one, so that it ends with it in any case.

Limit: without --limit the one in force is used. With it, the limit is set if it is another,
unless a controller has announced it from a Repository: that one holds.

Signals: SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 reach the command; until it
starts, they end the waiting for a slot. At a terminal, what is typed (Ctrl-C) reaches the
command from the terminal alone. Without one, the command has a process group of its own, and
signals reach all of it.
If the session cannot be renewed, the command gets SIGTERM when no more than --kill-grace and a tenth
of the TTL are left of it, and SIGKILL before it is over, so that it has ended before anybody else may start. If the
lease is lost at once (`pac` was stopped for longer than that, the run was cancelled), the command
gets SIGTERM then, and SIGKILL after --kill-grace: for so long it may run beside the next one, and
what it writes to is guarded by the fencing token.
Should `pac` itself be killed, the command is killed at once (on Linux; what the command has
started is not), and the next waiter starts within the TTL plus two seconds.

What gets away: signals do not reach a command that changes its user, as by sudo or su, nor one
that leaves its process group, as by setsid or as daemons do. So neither is ended when the lease is
lost or `pac` is killed: start them the other way round (`sudo pac exec …`), or let --contain see to
the second. What could not be ended is told by its process number, and the exit code is 71.
--contain ends all that descends from the command: when the lease is lost, should `pac` be killed,
and when the command ends, before the slot is given back. It needs Linux 5.3 and /proc, and no
privileges; a process of another user it cannot end, unless `pac` is root.

Exit codes: the command's own, or 128 + the signal that ended it; and
   2  wrong arguments, or another live run has this name
  69  the store is unavailable
  71  the lease was lost while the command ran, or what it started could not be ended
  75  no slot was had: --no-wait, --wait-timeout, or the run was cancelled while it waited
  77  the store does not let us in
  78  wrong settings
 126  the command cannot be run
 127  there is no such command";

/// How long the store may take to be told of the end when a signal or `--wait-timeout` asks for
/// it. What it has not heard by then ends with the session.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// Between two attempts at a store that has no room for another client.
const FULL: Duration = Duration::from_millis(500);

/// The arguments of `pac exec`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The repository whose slots are shared; given several times, a slot of each is held
    #[arg(short, long = "repository", value_name = "NS/NAME", required = true)]
    repositories: Vec<RepositoryKey>,

    /// How many may run at once, 1 or more; for one repository alone
    #[arg(short, long, value_name = "N", value_parser = value_parser!(u32).range(1..))]
    limit: Option<u32>,

    /// The name of this run, which no live run may have [default: a new one]
    #[arg(long, value_name = "NS/NAME")]
    run: Option<PipelineRunKey>,

    /// Higher goes first; equals keep their order
    #[arg(
        long,
        value_name = "P",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    priority: i32,

    /// How long the slot outlives this process if it dies, or the store's silence: 100ms to 24h
    /// [default: concurrency-session-ttl of the settings]
    #[arg(long, value_name = "DURATION", value_parser = session_ttl)]
    ttl: Option<Duration>,

    /// Between SIGTERM and SIGKILL if the slot is lost, a quarter of the TTL at most
    /// [default: a fifth of the TTL, and no more than 10s]
    #[arg(long, value_name = "DURATION", value_parser = crate::time::parse_duration)]
    kill_grace: Option<Duration>,

    /// Inside a command that holds a slot of the same repository, run within that slot
    #[arg(long)]
    reentrant: bool,

    /// Do not wait for a slot
    #[arg(long, conflicts_with = "wait_timeout")]
    no_wait: bool,

    /// Wait at most so long for a slot, counted from the start
    #[arg(long, value_name = "DURATION", value_parser = crate::time::parse_duration)]
    wait_timeout: Option<Duration>,

    /// Leave the passwords of the store in the command's environment
    #[arg(long)]
    keep_credentials: bool,

    /// End all that descends from the command with it, also what leaves its process group
    #[arg(long)]
    contain: bool,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Waits for a slot, runs the command while holding it, and gives the slot back.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<ExitCode, Failure> {
    let (settings, times) = args.settings(settings.clone())?;
    // On this thread: the kernel kills the command when the *thread* that started it ends.
    store::block_on(exec(args, &settings, times)).map(ExitCode::from)
}

async fn exec(args: &Args, settings: &Settings, times: Times) -> Result<u8, Failure> {
    if args.contain {
        // What is missing is said before the wait.
        Family::gather()?;
    }
    let listed = held::listed()?;
    let mut patience = Patience {
        signals: Signals::install()?,
        deadline: args.deadline(),
    };
    let ended = match args.connected(settings, &mut patience).await {
        Ok(manager) => {
            let ended = with_slots(args, &listed, &manager, times, &mut patience).await;
            let in_haste = matches!(
                ended,
                Err(Stop::Signal(_) | Stop::TimedOut(_) | Stop::Unanswered)
            );
            close(&manager, in_haste.then_some(TOLD_WITHIN), times.ttl).await;
            ended
        }
        Err(stop) => Err(stop),
    };
    match ended {
        Ok(Done::Ran(code)) => Ok(code),
        Ok(Done::Within(held)) => Ok(args.become_the_command(&held)),
        Err(Stop::Signal(signal)) => Ok(signals::exit_code(signal)),
        Err(Stop::TimedOut(repository)) => Err(args.no_slot(&repository)),
        Err(Stop::Unanswered) => Err(args.unanswered()),
        Err(Stop::Failed(failure)) => Err(failure),
    }
}

/// Closes the manager, and does not wait for that longer than `within`.
async fn close(manager: &ConcurrencyManager, within: Option<Duration>, ttl: Duration) {
    let deadline = within.and_then(|within| Instant::now().checked_add(within));
    let closed = tokio::select! {
        closed = manager.close() => closed.map_err(|error| error.to_string()),
        () = until(deadline) => Err("the store does not answer".to_owned()),
    };
    if let Err(why) = closed {
        note(format_args!(
            "{why}; what this process still has at the store is freed within {ttl:?}"
        ));
    }
}

async fn with_slots(
    args: &Args,
    listed: &[Slot],
    manager: &ConcurrencyManager,
    times: Times,
    patience: &mut Patience,
) -> Result<Done, Stop> {
    let held = slots::take(args, listed, manager, patience).await?;
    if held.own.is_empty() && !args.contain {
        return Ok(Done::Within(held));
    }
    let signals = &mut patience.signals;
    Ok(Done::Ran(args.hold(manager, held, times, signals).await?))
}

/// What an invocation has come to.
enum Done {
    /// Its command has ended with this code.
    Ran(u8),
    /// All its slots are held by the `pac exec` around it, which sees to it that the command ends
    /// with them: the command is yet to run in place of this process.
    Within(Held),
}

/// The times of the session that is held.
#[derive(Debug, Clone, Copy)]
struct Times {
    ttl: Duration,
    /// Between SIGTERM and SIGKILL.
    grace: Duration,
}

impl Args {
    /// The settings, with the changes that the arguments ask for.
    fn settings(&self, mut settings: Settings) -> Result<(Settings, Times), Failure> {
        self.check_repositories()?;
        if let Some(ttl) = self.ttl {
            settings.manager.session_ttl = ttl;
            // Has no effect on runs that end with the session, but must not be below the session
            // TTL.
            settings.manager.lease_ttl = settings.manager.lease_ttl.map(|lease| lease.max(ttl));
        }
        let ttl = settings.manager.session_ttl;
        let grace = grace::kill_grace(self.kill_grace, ttl)?;
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
        if let Some(twice) = self.repositories.iter().find(|one| !known.insert(*one)) {
            return wrong(format!(
                "--repository {twice} is there twice; a command has one slot of each"
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

    /// Connects; waits for a store that has no room for another client as long as for a slot.
    async fn connected(
        &self,
        settings: &Settings,
        patience: &mut Patience,
    ) -> Result<ConcurrencyManager, Stop> {
        let mut full: Option<Error> = None;
        loop {
            let pause = if full.is_some() { FULL } else { Duration::ZERO };
            let connecting = async {
                sleep(pause).await;
                Ok::<_, Error>(pac_concurrency::connect(settings).await)
            };
            match patience.ask(connecting).await {
                Ok(Ok(manager)) => return Ok(manager),
                Ok(Err(why)) if why.kind() == ErrorKind::TooManyClients && !self.no_wait => {
                    if full.is_none() {
                        note(format_args!("{why}; waiting for it"));
                    }
                    full = Some(why);
                }
                Ok(Err(error)) => return Err(error.into()),
                Err(Stop::Unanswered) => return Err(self.unanswered_by(full.as_ref())),
                Err(stop) => return Err(stop),
            }
        }
    }

    /// The end of `--wait-timeout`. One that no clock can tell is as good as none.
    fn deadline(&self) -> Option<Instant> {
        Instant::now().checked_add(self.wait_timeout?)
    }

    /// Runs the command while holding the slots.
    async fn hold(
        &self,
        manager: &ConcurrencyManager,
        held: Held,
        Times { ttl, grace }: Times,
        signals: &mut Signals,
    ) -> Result<u8, Failure> {
        let renewals = renewals::tell(manager.events());
        let start = Start {
            command: &self.command,
            environment: &held.environment(self.first()),
            keeps_credentials: self.keep_credentials,
            family: self.contain.then(Family::gather).transpose()?,
        };
        let has_slots = !held.own.is_empty();
        let expiring = async {
            match has_slots {
                true => grace::expiring(manager, ttl, grace).await,
                // Those are of the `pac exec` around this one, which ends it if it has to.
                false => pending().await,
            }
        };
        let over = match Child::start(start) {
            Ok(child) => tokio::select! {
                over = child.run(held.lost(), expiring, grace, signals) => over,
                never = renewals => match never {},
            },
            Err(failure) => {
                held.release(manager, RunOutcome::Cancelled).await?;
                return Err(failure);
            }
        };
        match over {
            Over::Ended { code, success } => {
                let outcome = if success {
                    RunOutcome::Completed
                } else {
                    RunOutcome::Failed
                };
                match held.release(manager, outcome).await {
                    Ok(true) => Ok(code),
                    Ok(false) => Err(lost("somebody ended the run, or gave its slot to another")),
                    Err(error) => {
                        note(format_args!("{error}; the slot is freed within {ttl:?}"));
                        Ok(code)
                    }
                }
            }
            Over::Lost(why) => Err(lost(why)),
            Over::InTime => Err(Failure::new(
                Exit::LeaseLost,
                "the command was ended: the session was not renewed in time to be sure of its lease",
            )),
        }
    }

    /// Runs the command in place of this process: then what ends the command around it, ends it too.
    fn become_the_command(&self, held: &Held) -> u8 {
        let taken_out = match self.keep_credentials {
            true => Vec::new(),
            false => child::credentials().collect(),
        };
        guarded::become_it(&self.command, &taken_out, &held.environment(self.first()))
    }

    /// Whether it waits for a slot for as long as it takes.
    fn waits_without_end(&self) -> bool {
        !self.no_wait && self.wait_timeout.is_none()
    }

    /// The repository that was named first.
    fn first(&self) -> Option<&RepositoryKey> {
        self.repositories.first()
    }

    /// The repositories as they are told.
    fn names(&self) -> String {
        let names: Vec<_> = self
            .repositories
            .iter()
            .map(RepositoryKey::to_string)
            .collect();
        names.join(" and ")
    }

    fn no_slot(&self, repository: &RepositoryKey) -> Failure {
        let why = if self.no_wait {
            "--no-wait"
        } else {
            "--wait-timeout"
        };
        let message = format!("no slot of {repository} was free ({why}); the command did not run");
        Failure::new(Exit::NoSlot, message)
    }

    /// The end of `--wait-timeout` before there was a connection.
    fn unanswered_by(&self, full: Option<&Error>) -> Stop {
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

    fn unanswered(&self) -> Failure {
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

fn lost(reason: impl Display) -> Failure {
    Failure::new(Exit::LeaseLost, format!("the lease was lost: {reason}"))
}
