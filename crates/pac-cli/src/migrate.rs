//! `pac migrate`: brings the state of an older system along, or moves state between stores.

mod manifests;
mod report;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use pac_concurrency::driver::Driver;
use pac_concurrency::migration::{
    ClusterFacts, LegacySource, LegacyState, LegacyStore, adopt_legacy, copy_state, preview_copy,
    preview_legacy, read_legacy, remove_copied,
};
use pac_concurrency::{
    DriverKind, MemoryDriver, MemoryOptions, RepositoryKey, Settings, Timestamp, open_driver,
    open_existing_driver,
};
use pac_pipelines::migration::ClusterObjects;

use crate::exit::{Exit, Failure};
use crate::format::FormatArg;
use crate::store;
use report::Outcome;

const AFTER_HELP: &str = "\
Stop the controllers of the old state first. What runs is adopted, what waits is queued in its order,
and the result is verified by reading it back. It can be interrupted and run again at any time: what is
done is found, and the rest is done. Nothing of the old state is removed without --remove, and then only
what was verified.

Older layouts know neither uids nor limits, and the first generation on etcd does not say whose run a
waiting one is. Give what the cluster has: kubectl get pipelineruns,repositories -A -o yaml |
pac migrate --from etcd-v1 --manifests -. A run without a manifest gets a stand-in uid; a controller that
admits it by its real one replaces it, and a waiting run is the last one then.

Exit codes:
   0  the migration is complete, or would be
   1  something is left: the report says what, and the cure
   2  wrong arguments
  69  a store cannot be reached or used
  74  output cannot be written
  77  a store refuses access
  78  wrong settings";

/// The arguments of `pac migrate`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Where the old state is: an older layout, or with --to a store of this version
    #[arg(long, value_enum, value_name = "SOURCE")]
    from: From,

    /// The driver of the store that the state goes to (default: that of the settings)
    #[arg(long, value_enum, value_name = "DRIVER")]
    to: Option<To>,

    /// PipelineRuns and Repositories of the cluster: a file, a directory of YAML and JSON files, or
    /// - for standard input (can be given more than once)
    #[arg(long, value_name = "PATH")]
    manifests: Vec<PathBuf>,

    /// The Repository whose limit holds for those without one of their own in --manifests; in its
    /// namespace too, where runs name another as their controller's
    #[arg(
        long,
        value_name = "NS/NAME",
        default_value = "pipelines-as-code/pipelines-as-code"
    )]
    global_repository: RepositoryKey,

    /// The schema of the older layout on PostgreSQL
    #[arg(long, value_name = "NAME", default_value = "public")]
    legacy_schema: String,

    /// Only show what would be done: changes nothing, and creates nothing
    #[arg(long)]
    dry_run: bool,

    /// Remove the old state once the new one was verified
    #[arg(long, conflicts_with = "dry_run")]
    remove: bool,

    #[command(flatten)]
    output: FormatArg,
}

/// Where the old state is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum From {
    /// The first generation on etcd
    EtcdV1,
    /// The second generation on etcd
    EtcdV2,
    /// The second generation on PostgreSQL; with --to etcd, the store of this version there
    Postgresql,
    /// The annotations of the PipelineRuns in --manifests
    Annotations,
    /// With --to postgresql, the store of this version on etcd
    Etcd,
}

/// A store of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum To {
    Etcd,
    Postgresql,
}

/// What is to be done.
enum Way {
    Legacy(LegacySource),
    /// From the store of this driver to the one of the settings.
    Between(DriverKind),
}

/// Migrates, or shows what that would do.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Failure> {
    let way = args.way()?;
    let settings = args.target(settings);
    store::refuse_memory(&settings)?;
    let outcome = store::block_on(async {
        match way {
            Way::Legacy(source) => legacy(args, &settings, source).await,
            Way::Between(from) => between(args, &settings, from).await,
        }
    })?;
    report::print(&outcome, args.output.format)?;
    Ok(if outcome.is_done() {
        Exit::Success
    } else {
        Exit::Negative
    })
}

impl Args {
    fn way(&self) -> Result<Way, Failure> {
        let usage = |message: &str| Err(Failure::new(Exit::Usage, message));
        let way = match (self.from, self.to) {
            (From::Etcd, Some(To::Postgresql)) => Way::Between(DriverKind::Etcd),
            (From::Postgresql, Some(To::Etcd)) => Way::Between(DriverKind::Postgresql),
            (From::Etcd, _) => {
                return usage(
                    "--from etcd is the store of this version and goes with --to postgresql; for \
                     an older layout say --from etcd-v1 or --from etcd-v2",
                );
            }
            (From::EtcdV1, _) => Way::Legacy(LegacySource::EtcdV1),
            (From::EtcdV2, _) => Way::Legacy(LegacySource::EtcdV2),
            (From::Postgresql, _) => Way::Legacy(LegacySource::Postgresql),
            (From::Annotations, _) => Way::Legacy(LegacySource::Annotations),
        };
        let annotations = self.from == From::Annotations;
        if annotations && self.manifests.is_empty() {
            return usage("--from annotations reads PipelineRuns: give them with --manifests");
        }
        if annotations && self.remove {
            return usage(
                "annotations are in the cluster, and go with their PipelineRuns: leave --remove out",
            );
        }
        if matches!(way, Way::Between(..)) && !self.manifests.is_empty() {
            return usage("a store of this version has all that is needed: leave --manifests out");
        }
        Ok(way)
    }

    fn target(&self, settings: &Settings) -> Settings {
        let mut settings = settings.clone();
        if let Some(to) = self.to {
            settings.enabled = true;
            settings.driver = match to {
                To::Etcd => DriverKind::Etcd,
                To::Postgresql => DriverKind::Postgresql,
            };
        }
        settings
    }
}

async fn legacy(
    args: &Args,
    settings: &Settings,
    source: LegacySource,
) -> Result<Outcome, Failure> {
    let objects = manifests::read(&args.manifests, &args.global_repository)?;
    let old = Old::read(args, settings, source, &objects).await?;
    let driver = open(settings, args.dry_run).await?;
    let mut report = if args.dry_run {
        preview_legacy(&*driver, old.state()).await?
    } else {
        adopt_legacy(&*driver, old.state()).await?
    };
    if source != LegacySource::Annotations {
        report.left_out.extend(objects.unreadable);
    }
    let mut outcome = Outcome::new(source.as_str(), settings.driver, args.dry_run, report);
    if let (false, true, Old::InStore(store)) = (args.dry_run, outcome.is_done(), &old) {
        store.note_brought_along().await?;
        if args.remove {
            outcome.removed(store.remove().await?);
        }
    }
    Ok(outcome)
}

/// The state of an older system, and where it is removed.
enum Old {
    InStore(LegacyStore),
    InCluster(LegacyState),
}

impl Old {
    async fn read(
        args: &Args,
        settings: &Settings,
        source: LegacySource,
        objects: &ClusterObjects,
    ) -> Result<Self, Failure> {
        if source == LegacySource::Annotations {
            return Ok(Self::InCluster(objects.annotated(now())));
        }
        let facts: ClusterFacts = objects.facts();
        let read = read_legacy(settings, source, &args.legacy_schema, &facts);
        Ok(Self::InStore(read.await?))
    }

    fn state(&self) -> &LegacyState {
        match self {
            Self::InStore(store) => store.state(),
            Self::InCluster(state) => state,
        }
    }
}

async fn between(args: &Args, settings: &Settings, from: DriverKind) -> Result<Outcome, Failure> {
    let mut source = settings.clone();
    source.driver = from;
    let source = open(&source, args.dry_run).await?;
    let target = open(settings, args.dry_run).await?;
    let (source, target): (&dyn Driver, &dyn Driver) = (&*source, &*target);
    let report = if args.dry_run {
        preview_copy(source, target).await?
    } else {
        copy_state(source, target).await?
    };
    let from = from.to_string();
    let mut outcome = Outcome::new(&from, settings.driver, args.dry_run, report);
    if args.remove && outcome.is_done() {
        outcome.removed(remove_copied(source, &outcome.report).await?.len());
    }
    Ok(outcome)
}

/// Opens a store; for a dry run as it is, and as an empty one where there is none.
async fn open(settings: &Settings, dry_run: bool) -> Result<Arc<dyn Driver>, Failure> {
    if !dry_run {
        return Ok(open_driver(settings).await?);
    }
    let empty = || {
        let options = MemoryOptions {
            retention: settings.postgres.retention,
            ..MemoryOptions::default()
        };
        Arc::new(MemoryDriver::new(options)) as Arc<dyn Driver>
    };
    Ok(open_existing_driver(settings).await?.unwrap_or_else(empty))
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.unwrap_or_default().as_millis();
    Timestamp::from_unix_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}
