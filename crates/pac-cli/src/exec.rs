//! `pac exec`: runs a command while holding a slot.

mod child;
pub(crate) mod contained;
#[cfg(target_os = "linux")]
mod family;
#[cfg(not(target_os = "linux"))]
#[path = "exec/elsewhere.rs"]
mod family;
pub(crate) mod guarded;
mod name;
mod patience;
mod processes;
mod queue;
mod renewals;
mod signals;
mod terminal;

use std::ffi::OsString;
use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use clap::value_parser;
use pac_concurrency::{
    Admission, ConcurrencyManager, Ended, Error, ErrorKind, Lease, Limit, ManagerOptions,
    PipelineRunKey, Priority, RepositoryKey, RunOutcome, RunRequest, Settings, Turn,
};
use tokio::time::{Instant, sleep};

use crate::exit::{Exit, Failure};
use crate::output::note;
use crate::store;
use child::{Child, Over, Start};
use family::Family;
use patience::{Patience, Stop, until};
use queue::{Queue, Waited};
use signals::Signals;

const AFTER_HELP: &str = "\
The command's standard streams are its own. In its environment it finds, beside what is in that of
`pac`,
  PAC_REPOSITORY     NS/NAME of the repository
  PAC_RUN            NS/NAME of the run that holds the slot
  PAC_LEASE          the session that holds it, as `pac status` shows it
  PAC_FENCING_TOKEN  a number that grows with every grant of the repository: hand it to
                     what the command writes to, and have smaller ones refused there
and not the passwords of the store: PAC_POSTGRESQL_URL, PAC_POSTGRESQL_PASSWORD, PAC_ETCD_PASSWORD
and ETCD_PASSWORD are taken out. A command that runs `pac` itself needs --keep-credentials, or
settings in files.

Limit: without --limit the one in force is used. With it, the limit is set if it is another,
unless a controller has announced it from a Repository: that one holds.

Signals: SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1 and SIGUSR2 reach the command; until it
starts, they end the waiting for a slot. At a terminal, what is typed (Ctrl-C) reaches the
command from the terminal alone. Without one, the command has a process group of its own, and
signals reach all of it.
If the lease is lost (the store was away for longer than the TTL, `pac` was stopped, the run was
cancelled) the command gets SIGTERM, and ten seconds later SIGKILL.
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

/// The time between SIGTERM and SIGKILL when the lease is lost.
const GRACE: Duration = Duration::from_secs(10);

/// How long the store may take to be told of the end when a signal or `--wait-timeout` asks for
/// it. What it has not heard by then ends with the session.
const TOLD_WITHIN: Duration = Duration::from_secs(2);

/// Between two attempts at a store that has no room for another client.
const FULL: Duration = Duration::from_millis(500);

/// The arguments of `pac exec`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The repository whose slots are shared
    #[arg(short, long, value_name = "NS/NAME")]
    repository: RepositoryKey,

    /// How many may run at once, 1 or more
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
    let settings = args.settings(settings.clone())?;
    // On this thread: the kernel kills the command when the *thread* that started it ends.
    store::block_on(exec(args, &settings)).map(ExitCode::from)
}

async fn exec(args: &Args, settings: &Settings) -> Result<u8, Failure> {
    if args.contain {
        // What is missing is said before the wait.
        Family::gather()?;
    }
    let mut patience = Patience {
        signals: Signals::install()?,
        deadline: args.deadline(),
    };
    let ended = match args.connected(settings, &mut patience).await {
        Ok(manager) => {
            let ttl = settings.manager.session_ttl;
            let ended = with_slot(args, &manager, ttl, &mut patience).await;
            let in_haste = matches!(
                ended,
                Err(Stop::Signal(_) | Stop::TimedOut | Stop::Unanswered)
            );
            close(&manager, in_haste.then_some(TOLD_WITHIN), ttl).await;
            ended
        }
        Err(stop) => Err(stop),
    };
    match ended {
        Ok(code) => Ok(code),
        Err(Stop::Signal(signal)) => Ok(signals::exit_code(signal)),
        Err(Stop::TimedOut) if args.no_wait => Err(args.no_slot("--no-wait")),
        Err(Stop::TimedOut) => Err(args.no_slot("--wait-timeout")),
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

async fn with_slot(
    args: &Args,
    manager: &ConcurrencyManager,
    ttl: Duration,
    patience: &mut Patience,
) -> Result<u8, Stop> {
    let may_start = patience.ask(args.announce_limit(manager)).await?;
    if args.no_wait && !may_start {
        return Err(args.no_slot("--no-wait").into());
    }
    let mut queue = Queue::new(
        &args.repository,
        if args.no_wait {
            Some(Instant::now())
        } else {
            patience.deadline
        },
        manager.events(),
    );
    let mut rewinds = manager.health().rewinds;
    let mut again = false;
    loop {
        if std::mem::replace(&mut again, true) {
            // A store that has lost the place may have lost the limit too.
            patience.ask(args.announce_limit(manager)).await?;
        }
        let waiter = match patience.ask(args.admit(manager)).await? {
            Admission::Started(lease) => {
                return Ok(args
                    .hold(manager, lease, ttl, &mut patience.signals)
                    .await?);
            }
            Admission::Queued(waiter) => waiter,
            Admission::Finished(outcome) => {
                let message = format!("the run {outcome} before");
                return Err(Failure::new(Exit::NoSlot, message).into());
            }
        };
        let waited = queue.wait(waiter, &mut patience.signals).await;
        queue.finish();
        match waited? {
            Waited::Turn(Turn::Started(lease)) => {
                return Ok(args
                    .hold(manager, lease, ttl, &mut patience.signals)
                    .await?);
            }
            // An outage in which the store keeps the session costs no place: the waiter waits on.
            Waited::Turn(Turn::Ended(RunOutcome::Expired)) | Waited::PlaceLost => {
                note("the store has ended this session: the place is lost, queueing again");
            }
            Waited::Turn(Turn::Ended(outcome)) => {
                let message = format!("somebody ended the run while it waited: {outcome}");
                return Err(Failure::new(Exit::NoSlot, message).into());
            }
            Waited::Turn(Turn::Gone) if manager.health().rewinds != rewinds => {
                rewinds = manager.health().rewinds;
                note("the store has gone back in time and lost the place: queueing again");
            }
            Waited::Turn(Turn::Gone | Turn::TakenOver) => {
                let message = format!("{} was removed while the run waited", args.repository);
                return Err(Failure::new(Exit::NoSlot, message).into());
            }
        }
    }
}

impl Args {
    /// The settings, with the changes that the arguments ask for.
    fn settings(&self, mut settings: Settings) -> Result<Settings, Failure> {
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
        if let Some(ttl) = self.ttl {
            settings.manager.session_ttl = ttl;
            // Has no effect on runs that end with the session, but must not be below the session
            // TTL.
            settings.manager.lease_ttl = settings.manager.lease_ttl.map(|lease| lease.max(ttl));
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
        Ok(settings)
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

    /// Sets the limit if necessary. Returns whether a run that arrived now would start at once.
    async fn announce_limit(&self, manager: &ConcurrencyManager) -> Result<bool, Failure> {
        let status = manager.status(&self.repository).await?;
        let running = u32::try_from(status.running.len()).unwrap_or(u32::MAX);
        let mut in_force = status.limit;
        match self.limit.map(Limit::new) {
            None if in_force == Limit::UNLIMITED => {
                let message = format!(
                    "{} has no limit; say --limit N, or set one with `pac limit {} N`",
                    self.repository, self.repository
                );
                return Err(Failure::new(Exit::Usage, message));
            }
            Some(limit) if limit != in_force && status.limit_version.is_some() => {
                note(format_args!(
                    "the limit of {} is {in_force}, as a controller announced it; --limit {limit} \
                     is ignored",
                    self.repository
                ));
            }
            Some(limit) if limit != in_force => {
                manager.set_limit(&self.repository, limit, None).await?;
                if status.exists {
                    note(format_args!(
                        "the limit of {} was {in_force} and is {limit} now",
                        self.repository
                    ));
                }
                in_force = limit;
            }
            None | Some(_) => {}
        }
        Ok(status.queued.is_empty() && in_force.admits(running))
    }

    /// Asks for a slot. After a lost place this is never refused for what the run had before: the
    /// manager ends the entries of its own former session.
    async fn admit(&self, manager: &ConcurrencyManager) -> Result<Admission, Failure> {
        let run = match &self.run {
            Some(run) => run.clone(),
            None => name::unique(self.repository.namespace())?,
        };
        let request =
            RunRequest::ephemeral(run, name::uid()?).with_priority(Priority::new(self.priority));
        Ok(manager.admit(&self.repository, request).await?)
    }

    /// Runs the command while holding the slot.
    async fn hold(
        &self,
        manager: &ConcurrencyManager,
        lease: Lease,
        ttl: Duration,
        signals: &mut Signals,
    ) -> Result<u8, Failure> {
        let renewals = renewals::tell(manager.events());
        let start = Start {
            command: &self.command,
            environment: &environment(&lease),
            keeps_credentials: self.keep_credentials,
            family: self.contain.then(Family::gather).transpose()?,
        };
        let over = match Child::start(start) {
            Ok(child) => tokio::select! {
                over = child.run(lease.lost(), signals) => over,
                never = renewals => match never {},
            },
            Err(failure) => {
                manager.release(lease, RunOutcome::Cancelled).await?;
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
                match manager.release(lease, outcome).await {
                    Ok(ending) if ending.ended == Ended::Done => Ok(code),
                    Ok(_) => Err(lost("somebody ended the run, or gave its slot to another")),
                    Err(error) => {
                        note(format_args!("{error}; the slot is freed within {ttl:?}"));
                        Ok(code)
                    }
                }
            }
            Over::Lost(why) => Err(lost(why)),
        }
    }

    fn no_slot(&self, why: &str) -> Failure {
        let message = format!(
            "no slot of {} was free ({why}); the command did not run",
            self.repository
        );
        Failure::new(Exit::NoSlot, message)
    }

    /// The end of `--wait-timeout` before there was a connection.
    fn unanswered_by(&self, full: Option<&Error>) -> Stop {
        match full {
            Some(why) => Stop::Failed(Failure::new(
                Exit::NoSlot,
                format!(
                    "no slot of {} was had within --wait-timeout: {why}; the command did not run",
                    self.repository
                ),
            )),
            None => Stop::Unanswered,
        }
    }

    fn unanswered(&self) -> Failure {
        let message = format!(
            "no slot of {} was had: the store did not answer within --wait-timeout; the command \
             did not run",
            self.repository
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

fn environment(lease: &Lease) -> [(&'static str, String); 4] {
    [
        ("PAC_REPOSITORY", lease.repository().to_string()),
        ("PAC_RUN", lease.run().to_string()),
        ("PAC_LEASE", lease.session().to_string()),
        ("PAC_FENCING_TOKEN", lease.token().to_string()),
    ]
}
