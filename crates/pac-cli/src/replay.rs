//! `pac replay`: replays a recorded stream of PipelineRuns through the real manager.

mod bug;
mod clock;
mod engine;
mod idle;
mod progress;
mod record;
mod report;
mod repository;
mod summary;
mod timeline;
mod trace;
mod watchdog;

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args as _, ValueEnum, value_parser};
use tokio::runtime;

use crate::exit::{Exit, Failure};
use crate::output;
use progress::Progress;
use record::Replay;
use trace::Trace;

const AFTER_HELP: &str = "\
Trace: one JSON object per line, of one of four kinds:
  {\"at\": RFC 3339, \"repository\": \"ns/name\", \"run\": \"ns/name\", \"limit\": N,
   \"duration_s\": seconds, \"priority\": optional integer}
      a run arrives; from then on the repository's limit is N (0 = none). Also, if it asks for that:
      \"weight\": slots (1), \"group\": \"pr-7\", and \"supersede\": \"waiting\" or \"all\"; a running
      run that is superseded ends when it is asked to
  {\"at\": …, \"repository\": …, \"set_limit\": N}
      the limit changes
  {\"at\": …, \"repository\": …, \"cancel\": \"ns/name\"}
      a queued or running run ends there
  {\"at\": …, \"repository\": …, \"pause\": true or false}
      nothing is started from then on, or again
Rows are replayed in the order of \"at\", wherever in the file they stand; rows of the same
moment keep the order of the file. Blank lines are skipped.
The whole trace is checked before anything is replayed.

Table: `waited` counts the runs that started later than they arrived; the mean, the 95th
percentile and the maximum are over all runs that started, those that did not wait included.

Exit codes:
   0  replayed, and no limit was ever exceeded
   1  replayed, and a limit was exceeded, or a run started during a pause or after it was superseded
   2  wrong arguments
  65  bad trace: it cannot be read, or lines of it break the rules (each is named)
  69  the store is unavailable
  70  internal error
  74  output cannot be written
A reader that closes the pipe early, as `head` does, is no error.";

/// The arguments of `pac replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The trace to replay: a file of JSON lines, or `-` for standard input
    #[arg(value_name = "TRACE.jsonl")]
    trace: PathBuf,

    /// The clock that the replay runs on
    #[arg(long, value_enum, default_value_t = ClockArg::Virtual)]
    clock: ClockArg,

    /// With `--clock real`: seconds of the trace per second of replay [default: 1]
    #[arg(long, value_name = "F", value_parser = parse_speed, allow_negative_numbers = true)]
    speed: Option<f64>,

    /// How many controllers share the store, 1 to 64; rows are dealt to them round robin
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = value_parser!(u8).range(1..=64), allow_negative_numbers = true)]
    controllers: u8,

    /// What to print: a table per repository, or one JSON object per run in start order
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,

    /// Also draw who ran and who waited when, as an SVG for a browser
    #[arg(long, value_name = "FILE.svg")]
    timeline: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ClockArg {
    /// Jumps from event to event: a month takes seconds, and every start is exact
    Virtual,
    /// Passes as time does, `--speed` times as fast
    Real,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A table, and a line that says whether a limit was exceeded
    Table,
    /// JSON lines; whether a limit was exceeded goes to stderr
    Json,
}

/// The options of the replay engine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Options {
    pub(crate) clock: Clock,
    /// 1 to 64.
    pub(crate) controllers: u8,
}

/// The clock of a replay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Clock {
    /// tokio's paused clock.
    Virtual,
    /// The machine's clock.
    Real {
        /// Seconds of the trace per second; finite and above 0.
        speed: f64,
    },
}

/// Replays the trace and prints the result.
///
/// Contradicting arguments end the process, as clap's own usage errors do.
pub(crate) fn run(args: &Args) -> Result<Exit, Failure> {
    let options = args.options().unwrap_or_else(|error| error.exit());
    let trace = Trace::open(&args.trace);
    let trace = trace.map_err(|error| Failure::of_lines(Exit::BadInput, error))?;
    if let Some(file) = &args.timeline {
        timeline::file::check(file).map_err(|error| Failure::new(Exit::Output, error))?;
    }

    let progress = Progress::start(&trace);
    let replayed = runtime(options.clock)?.block_on(engine::replay(&trace, &options, &progress));
    progress.finish();
    let replay = replayed?;

    args.warn(&replay);
    let drawn = args.draw(&replay);
    args.print(&replay)?;
    drawn?;
    Ok(if replay.exceeded() {
        Exit::Negative
    } else {
        Exit::Success
    })
}

impl Args {
    fn options(&self) -> Result<Options, clap::Error> {
        let clock = match (self.clock, self.speed) {
            (ClockArg::Real, speed) => Clock::Real {
                speed: speed.unwrap_or(1.0),
            },
            (ClockArg::Virtual, None) => Clock::Virtual,
            (ClockArg::Virtual, Some(_)) => {
                let mut command = Self::augment_args(clap::Command::new("pac replay"));
                return Err(command.error(
                    ErrorKind::ArgumentConflict,
                    "--speed needs --clock real: the virtual clock jumps from event to event",
                ));
            }
        };
        Ok(Options {
            clock,
            controllers: self.controllers,
        })
    }

    fn warn(&self, replay: &Replay) {
        output::note_lines(&report::warnings(replay, &trace::name(&self.trace)));
    }

    fn draw(&self, replay: &Replay) -> Result<(), Failure> {
        let Some(file) = &self.timeline else {
            return Ok(());
        };
        timeline::file::write(file, &timeline::draw(replay))
            .map_err(|error| Failure::new(Exit::Output, error))
    }

    fn print(&self, replay: &Replay) -> Result<(), Failure> {
        match self.output {
            Output::Table => output::print(|out| {
                out.write_all(report::table(replay).as_bytes())?;
                out.write_all(report::verdict(replay).as_bytes())
            }),
            Output::Json => {
                output::note_lines(&report::verdict(replay));
                output::print_json(|out| report::json(replay, out))
            }
        }
    }
}

fn parse_speed(text: &str) -> Result<f64, &'static str> {
    match text.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed > 0.0 => Ok(speed),
        _ => Err("must be a number above 0: seconds of the trace per second, such as 3600"),
    }
}

fn runtime(clock: Clock) -> Result<runtime::Runtime, Failure> {
    runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(clock == Clock::Virtual)
        .build()
        .map_err(|error| Failure::new(Exit::Internal, format!("no runtime: {error}")))
}
