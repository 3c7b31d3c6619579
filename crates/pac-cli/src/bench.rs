//! `pac bench`: measures a driver and, in the same minute, its store without the protocol, so
//! that the ratios hold even on a machine that is not quiet.

mod cleanup;
mod contended;
mod costs;
mod deep_queue;
mod flat;
mod keepalive;
mod load;
mod measurement;
mod peers;
mod place;
mod rounds;
mod serve;
mod size;
mod statistics;
mod table;
mod throughput;
mod wakeup;
mod worker;

use clap::ValueEnum;
use pac_concurrency::DriverKind;

use crate::config::Sources;
use crate::exit::{Exit, Failure};
use crate::output;
use cleanup::Stranger;
use measurement::Measurement;
use place::Place;
use table::Measurements;

const AFTER_HELP: &str = "\
Where a store is behind the driver, the measurement and what the store does by itself alternate
in short rounds, and medians are compared. `spread` in the output is the distance of the
quartiles of all rounds, as a part of the median. All state is kept below a prefix, or in a
schema, of its own, which is deleted at the end.

`peers` compares with what people use on the same store instead, one row for each: tasks of four
processes that hand a limit over. `overtaken by`: the most tasks that asked later and ran before
another one. `to wake`: from a release until the only task that waits runs. `next after kill -9`:
from the death of a process that runs until the next task runs; ours and locks on leases have a
TTL of 3 s there. `wal` counts the log of the whole server, which nothing else may use meanwhile.

Exit codes:
   0  everything was measured, and no limit was exceeded
   1  a limit was exceeded while measuring
   2  wrong arguments
  69  the store cannot be reached or used
  74  output cannot be written
  78  wrong settings";

/// The arguments of `pac bench`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The driver to measure: etcd, postgresql or memory; without it that of the settings
    #[arg(long, value_name = "DRIVER")]
    driver: Option<DriverKind>,

    /// Measure only this (can be given more than once)
    #[arg(long, value_name = "NAME", value_enum)]
    only: Vec<Name>,

    /// Fewer and shorter rounds: all but `peers` in about a minute
    #[arg(long)]
    quick: bool,

    /// How to print what was measured
    #[arg(long, value_enum, default_value_t = Output::Table)]
    output: Output,

    /// A process that takes part in somebody else's measurement
    #[arg(long, hide = true)]
    worker: Option<worker::Task>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A table
    Table,
    /// One JSON object a line, each as soon as it is measured
    Json,
}

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Name {
    // First: connections that wrote before would tell of it only now.
    /// Bytes of PostgreSQL's write-ahead log for each commit, against those of a raw insert
    Wal,
    // Early: each of the tasks may need a connection, and later the bench itself has many.
    /// Hand-over of a limit among 64 tasks of 4 processes, beside what people use instead
    Peers,
    /// One client, one repository: admit and release in turn
    Sequential,
    /// 64 tasks, each with a repository of its own
    Spread,
    /// 64 tasks, one repository, limit 1,000
    Hot,
    /// 4 processes of 16 tasks contending for 5 slots, against one process of 64
    Contended,
    /// From the release in one process until the waiter in another one runs
    Wakeup,
    /// Admit and release with 100,000 runs waiting, against an empty repository
    DeepQueue,
    /// Bytes of the store's database for each run, against those of a raw write
    Stored,
    /// Sizes, versions of rows and speed on PostgreSQL after 1,000,000 cycles, against after a
    /// tenth of them
    Flat,
    /// Memory of the client for each queued run and for each idle repository
    Footprint,
    /// Keep-alive requests with 10,000 running runs, against 10
    Keepalive,
    // Late: later measurements would clean up the runs that it leaves behind.
    /// 10,000 repositories with state: connecting, and being idle
    ManyRepositories,
    // Last: its result comes after everything was deleted.
    /// The speed of another client after the bench has deleted what it wrote, against before
    Cleanup,
}

/// Measures, and prints each result as soon as it is there.
pub(crate) fn run(args: &Args, sources: &Sources) -> Result<Exit, Failure> {
    let mut loader = sources.loader()?;
    if let Some(driver) = args.driver {
        loader = loader.set("concurrency-driver", driver.to_string());
    }
    let mut settings = loader.load()?.settings();
    settings.enabled = true;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(place::THREADS)
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Internal, format!("no runtime: {error}")))?;
    if let Some(task) = &args.worker {
        runtime.block_on(serve::run(&Place::of(settings, task.tag()), task))?;
        return Ok(Exit::Success);
    }
    let place = Place::new(settings);
    let measured = runtime.block_on(measure_all(args, &place))?;
    if args.output == Output::Table {
        output::print(|out| out.write_all(measured.table().as_bytes()))?;
    }
    Ok(if measured.a_limit_was_exceeded() {
        Exit::Negative
    } else {
        Exit::Success
    })
}

impl Args {
    fn wants(&self, name: Name) -> bool {
        self.only.is_empty() || self.only.contains(&name)
    }
}

/// Measures everything that is wanted, and deletes what that has written.
async fn measure_all(args: &Args, place: &Place) -> Result<Measurements, Failure> {
    let mut report = Report {
        output: args.output,
        driver: place.driver(),
        server: place.server().await?,
        all: Measurements::default(),
    };
    let stranger = if args.wants(Name::Cleanup) {
        Stranger::before(place, args.quick).await?
    } else {
        None
    };
    let measured = measure_at(args, place, &mut report).await;
    let cleared = place.clear().await;
    let Some(stranger) = stranger else {
        return measured.and(cleared).map(|()| report.all);
    };
    let afterwards = async {
        measured.and(cleared)?;
        report.add(stranger.after().await?)
    };
    let afterwards = afterwards.await;
    stranger.clear().await.and(afterwards).map(|()| report.all)
}

async fn measure_at(args: &Args, place: &Place, report: &mut Report) -> Result<(), Failure> {
    let names = Name::value_variants().iter();
    for name in names.filter(|name| args.wants(**name)) {
        for measured in measure(*name, place, args.quick).await? {
            report.add(measured)?;
        }
    }
    Ok(())
}

/// What was measured so far, and how it is printed.
struct Report {
    output: Output,
    driver: DriverKind,
    server: Option<String>,
    all: Measurements,
}

impl Report {
    fn add(&mut self, measured: Measurement) -> Result<(), Failure> {
        let measured = measured.at(self.driver, self.server.clone());
        if self.output == Output::Json {
            output::print_json(|out| measured.json(out))?;
        }
        self.all.push(measured);
        Ok(())
    }
}

async fn measure(name: Name, place: &Place, quick: bool) -> Result<Vec<Measurement>, Failure> {
    match name {
        Name::Wal => costs::wal(place, quick).await,
        Name::Peers => peers::measure(place, quick).await,
        Name::Sequential => throughput::sequential(place, quick).await,
        Name::Spread => throughput::spread(place, quick).await,
        Name::Hot => throughput::hot(place, quick).await,
        Name::Contended => contended::measure(place, quick).await,
        Name::Wakeup => wakeup::measure(place, quick).await,
        Name::DeepQueue => deep_queue::measure(place, quick).await,
        Name::Stored => costs::stored(place, quick).await,
        Name::Flat => flat::measure(place, quick).await,
        Name::Footprint => size::footprint(place, quick).await,
        Name::Keepalive => keepalive::measure(place, quick).await,
        Name::ManyRepositories => size::many_repositories(place, quick).await,
        Name::Cleanup => cleanup::fill(place, quick).await.map(|()| Vec::new()),
    }
}
