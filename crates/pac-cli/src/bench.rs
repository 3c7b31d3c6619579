//! `pac bench`: measures a driver and, in the same minute, its store without the protocol, so
//! that the ratios hold even on a machine that is not quiet.

mod contended;
mod deep_queue;
mod keepalive;
mod load;
mod measurement;
mod place;
mod rounds;
mod serve;
mod size;
mod statistics;
mod throughput;
mod wakeup;
mod worker;

use clap::ValueEnum;
use pac_concurrency::DriverKind;

use crate::config::Sources;
use crate::exit::{Exit, Failure};
use crate::output;
use measurement::{Measurement, Measurements};
use place::Place;

const AFTER_HELP: &str = "\
Where a store is behind the driver, the measurement and what the store does by itself alternate
in short rounds, and medians are compared. `spread` in the output is the distance of the
quartiles of all rounds, as a part of the median. All state is kept below a prefix, or in a
schema, of its own, which is deleted at the end.

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

    /// Fewer and shorter rounds: everything in under a minute
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
    /// Memory of the client for each queued run and for each idle repository
    Footprint,
    /// Keep-alive requests with 10,000 running runs, against 10
    Keepalive,
    // Last: later measurements would clean up the runs that it leaves behind.
    /// 10,000 repositories with state: connecting, and being idle
    ManyRepositories,
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
    let measured = runtime.block_on(async {
        let measured = measure_all(args, &place).await;
        let cleared = place.clear().await;
        measured.and_then(|measured| cleared.map(|()| measured))
    })?;
    if args.output == Output::Table {
        output::print(|out| out.write_all(measured.table().as_bytes()))?;
    }
    Ok(if measured.a_limit_was_exceeded() {
        Exit::Negative
    } else {
        Exit::Success
    })
}

async fn measure_all(args: &Args, place: &Place) -> Result<Measurements, Failure> {
    let mut all = Measurements::default();
    let names = Name::value_variants().iter();
    for name in names.filter(|name| args.only.is_empty() || args.only.contains(name)) {
        for measured in measure(*name, place, args.quick).await? {
            let measured = measured.at(place.driver(), place.server().await?);
            if args.output == Output::Json {
                output::print_json(|out| measured.json(out))?;
            }
            all.push(measured);
        }
    }
    Ok(all)
}

async fn measure(name: Name, place: &Place, quick: bool) -> Result<Vec<Measurement>, Failure> {
    match name {
        Name::Sequential => throughput::sequential(place, quick).await,
        Name::Spread => throughput::spread(place, quick).await,
        Name::Hot => throughput::hot(place, quick).await,
        Name::Contended => contended::measure(place, quick).await,
        Name::Wakeup => wakeup::measure(place, quick).await,
        Name::DeepQueue => deep_queue::measure(place, quick).await,
        Name::Footprint => size::footprint(place, quick).await,
        Name::Keepalive => keepalive::measure(place, quick).await,
        Name::ManyRepositories => size::many_repositories(place, quick).await,
    }
}
