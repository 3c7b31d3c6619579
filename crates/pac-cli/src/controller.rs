//! `pac controller`: the queues of PipelineRuns on a Kubernetes cluster.

mod health;
pub(crate) mod log;
mod without_store;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use pac_concurrency::kubernetes::{
    Cluster, ControllerOptions, KubernetesCluster, KubernetesOptions, PipelinesController,
    ReportOptions, Reporter,
};
use pac_concurrency::{ConcurrencyManager, DriverKind, Error, RepositoryKey, Settings};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::config::Sources;
use crate::end::End;
use crate::exit::{Exit, Failure};
use crate::kubernetes::mode::Mode;
use crate::store;
use health::Health;

const AFTER_HELP: &str = "\
Any number of controllers may run for one cluster and one store; all of them work. Runs start by
the limits of their Repositories, whatever becomes of one controller.

Modes:
  takeover  beside Pipelines-as-Code, which creates runs held back where there is a limit; an
            admission policy keeps its own queue from seeing them
  gate      the runs that an admission policy holds back, with our annotation `held`, also those
            that are not of Pipelines-as-Code; annotations of Namespaces say which queues there are
  observe   nothing is written to the cluster, and no store is opened

While concurrency-enabled is false, the controller waits until it is not, or does without a store
(--without-store). It reads the settings again every ten seconds; other changes of settings need
a restart.

Probes: GET /healthz while the process does its work, GET /readyz once the store has its session
and the cluster's first lists were taken.

Exit codes:
   0  SIGTERM or SIGINT asked for the end
   2  wrong arguments
  69  the store is unavailable in a way that waiting does not cure
  70  the controller has ended by itself, a bug
  77  the store does not let us in
  78  wrong settings, or a kubeconfig that cannot be used";

/// How often the settings are read again.
const READ_AGAIN: Duration = Duration::from_secs(10);

/// How long to wait before the next attempt to connect to a store that is away, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The arguments of `pac controller`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Which runs the controller acts on
    #[arg(long, value_enum, default_value_t = Mode::Takeover)]
    mode: Mode,

    /// The kubeconfig to use [default: in a pod its service account; else KUBECONFIG]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,

    /// The one namespace to look after [default: all]
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// A namespace to leave alone, as the policies do (can be given more than once)
    #[arg(long, value_name = "NAMESPACE", conflicts_with = "namespace")]
    exclude_namespace: Vec<String>,

    /// The label selector of the PipelineRuns to follow [default: those of Pipelines-as-Code, in
    /// gate mode all, that are not marked as ended]
    #[arg(long, value_name = "SELECTOR")]
    selector: Option<String>,

    /// The Repository whose limit holds for those without one
    /// [default: pipelines-as-code/pipelines-as-code]
    #[arg(long, value_name = "NS/NAME")]
    global_repository: Option<RepositoryKey>,

    /// How long the start of a run of Pipelines-as-Code waits until its watcher has prepared the
    /// run, that is, has made the secret with which it clones: 0s to 30s from its creation, then it
    /// starts all the same
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = start_wait)]
    start_wait: Duration,

    /// Make no events on PipelineRuns: queued, started, not managed and why
    #[arg(long)]
    no_events: bool,

    /// Write no positions on the PipelineRuns that wait
    #[arg(long)]
    no_positions: bool,

    /// Show the queue of each Repository in an object, whose definition `pac kubernetes install
    /// --queues` brings; not in the mode observe
    #[arg(long)]
    queues: bool,

    /// What to do while concurrency-enabled is false
    #[arg(long, value_enum, default_value_t = WithoutStore::Wait)]
    without_store: WithoutStore,

    /// This is the only controller of the cluster, so that a store in memory will do
    #[arg(long)]
    alone: bool,

    /// Where the probes are answered
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8081")]
    health_address: SocketAddr,

    /// How long the store may take to be told of the end
    #[arg(long, value_name = "DURATION", default_value = "10s",
          value_parser = crate::time::parse_duration)]
    grace_period: Duration,

    /// What is logged to stderr
    #[arg(long, value_enum, default_value_t = log::Level::Info)]
    log_level: log::Level,
}

/// What a controller does while limits are disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WithoutStore {
    /// Nothing, until they are enabled
    Wait,
    /// Keep the queues in memory and in annotations: of one controller at a time alone
    Annotations,
}

/// Controls until a signal asks for the end.
pub(crate) fn run(args: &Args, sources: &Sources) -> Result<Exit, Failure> {
    log::install(args.log_level)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Internal, format!("no runtime: {error}")))?;
    let done = runtime.block_on(control(args, sources));
    runtime.shutdown_background();
    done
}

async fn control(args: &Args, sources: &Sources) -> Result<Exit, Failure> {
    let mut end = End::install()?;
    let health = Arc::new(Health::default());
    let _probes = health::serve(args.health_address, Arc::clone(&health)).await?;
    let options = args.kubernetes_options();
    let cluster = KubernetesCluster::connect(&options).await?;
    let reporter = args.reporter(&cluster);
    let cluster: Arc<dyn Cluster> = Arc::new(cluster);
    loop {
        let settings = tokio::select! {
            settings = read(sources) => settings?,
            () = end.asked() => return Ok(Exit::Success),
        };
        let left = if settings.enabled {
            let sides = Sides {
                cluster: &cluster,
                reporter: reporter.as_ref(),
            };
            with_store(args, sources, &settings, sides, &health, &mut end).await?
        } else {
            without_store::run(args, sources, &cluster, &health, &mut end).await
        };
        health.closing();
        match left {
            Left::Asked => {
                tracing::info!("ended");
                return Ok(Exit::Success);
            }
            Left::Switched => {}
        }
    }
}

/// Why a way of working was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// A signal asked for the end.
    Asked,
    /// Limits were enabled, or disabled.
    Switched,
}

/// What a controller works on, and where it tells of it.
#[derive(Clone, Copy)]
struct Sides<'a> {
    cluster: &'a Arc<dyn Cluster>,
    /// `None` when nothing is to be told.
    reporter: Option<&'a Reporter>,
}

/// Works with a store, until a signal comes or limits are disabled.
async fn with_store(
    args: &Args,
    sources: &Sources,
    settings: &Settings,
    sides: Sides<'_>,
    health: &Health,
    end: &mut End,
) -> Result<Left, Failure> {
    let mut settings = settings.clone();
    if args.mode == Mode::Observe {
        // It asks the store nothing, and so it has none but one that is empty and its own.
        settings.driver = DriverKind::Memory;
    } else if !args.alone {
        store::refuse_memory(&settings)?;
    }
    health.connecting();
    let manager = tokio::select! {
        manager = connect(&settings) => manager?,
        () = end.asked() => return Ok(Left::Asked),
    };
    let options = args.controller_options();
    let controller = PipelinesController::new(manager.clone(), Arc::clone(sides.cluster), options);
    health.controls(controller.clone());
    tracing::info!(mode = ?args.mode, driver = %settings.driver, "controlling");
    // In a task of its own: whatever becomes of it, runs start.
    let _reports = sides.reporter.map(|reporter| {
        let (reporter, controller) = (reporter.clone(), controller.clone());
        EndsWith(tokio::spawn(async move { reporter.run(&controller).await }))
    });
    let left = tokio::select! {
        ended = controller.run() => Err(ended),
        () = end.asked() => Ok(Left::Asked),
        () = switched(sources, false) => Ok(Left::Switched),
    };
    health.closing();
    // In this order: what was under way has ended, and then the store is told.
    close(&manager, args.grace_period).await;
    match left {
        Ok(left) => Ok(left),
        Err(Err(error)) => Err(Failure::from(Error::from(error))),
        Err(Ok(())) => {
            let message = "the session with the store has ended by itself; start anew";
            Err(Failure::new(Exit::Internal, message))
        }
    }
}

/// A task that ends when this is dropped.
struct EndsWith(JoinHandle<()>);

impl Drop for EndsWith {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects to the store, and waits for it while it is away.
async fn connect(settings: &Settings) -> Result<ConcurrencyManager, Failure> {
    let mut wait = Duration::from_secs(1);
    loop {
        match pac_concurrency::connect(settings).await {
            Ok(manager) => return Ok(manager),
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, "the store is away; trying again");
                sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn close(manager: &ConcurrencyManager, within: Duration) {
    match timeout(within, manager.close()).await {
        Ok(Ok(())) => tracing::info!("the store was told of the end"),
        Ok(Err(error)) => tracing::warn!(%error, "the session ends by itself"),
        Err(_) => tracing::warn!(
            ?within,
            "the store was not told in time; the session ends by \
             itself"
        ),
    }
}

fn start_wait(text: &str) -> Result<Duration, String> {
    let longest = ControllerOptions::LONGEST_START_WAIT;
    let wait = match text {
        "0" | "0s" => Some(Duration::ZERO),
        text => crate::time::parse_duration(text).ok(),
    };
    wait.filter(|wait| *wait <= longest).ok_or_else(|| {
        format!(
            "must be a duration from 0s to {} s, such as 10s",
            longest.as_secs()
        )
    })
}

/// Reads the settings, on a thread where a file system that hangs stops nothing else.
async fn read(sources: &Sources) -> Result<Settings, Failure> {
    let loader = sources.loader()?;
    let loaded = tokio::task::spawn_blocking(|| loader.load()).await;
    let loaded = loaded.map_err(|error| Failure::new(Exit::Internal, error))?;
    Ok(loaded?.settings())
}

/// Waits until limits are enabled, or disabled. Settings that are wrong meanwhile change nothing.
async fn switched(sources: &Sources, enabled: bool) {
    loop {
        sleep(READ_AGAIN).await;
        match read(sources).await {
            Ok(settings) if settings.enabled == enabled => {
                tracing::info!(enabled, "concurrency-enabled was changed");
                return;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the settings are wrong; going on with the old"),
        }
    }
}

impl Args {
    fn reporter(&self, cluster: &KubernetesCluster) -> Option<Reporter> {
        let options = ReportOptions::default()
            .with_events(!self.no_events)
            .with_positions(!self.no_positions)
            .with_queues(self.queues);
        let tells = options.events || options.positions || options.queues;
        let tells = tells && self.mode != Mode::Observe;
        tells.then(|| Reporter::new(cluster, options))
    }

    fn controller_options(&self) -> ControllerOptions {
        let options = ControllerOptions::default()
            .with_start_wait(self.start_wait)
            .with_mode(self.mode.into());
        match &self.global_repository {
            Some(global) => options.with_global_repository(Some(global.clone())),
            None => options,
        }
    }

    fn kubernetes_options(&self) -> KubernetesOptions {
        let mut options = KubernetesOptions::default();
        options.kubeconfig.clone_from(&self.kubeconfig);
        options.context.clone_from(&self.context);
        options.namespace.clone_from(&self.namespace);
        options.excluded_namespaces = self.exclude_namespace.iter().cloned().collect();
        options.lanes = self.mode == Mode::Gate;
        match (&self.selector, self.mode) {
            (Some(selector), _) => options.with_run_selector(selector),
            (None, Mode::Gate) => options.with_run_selector(KubernetesOptions::ALL_RUNS),
            (None, Mode::Takeover | Mode::Observe) => options,
        }
    }
}
