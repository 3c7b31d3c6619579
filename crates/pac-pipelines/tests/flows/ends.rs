//! What must not end a run in the cluster, nor start one beside those that run: the store in
//! memory, and paused time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pac_conformance::faults::Faults;
use pac_core::driver::Driver;
use pac_core::manager::{Admission, ConcurrencyManager, KeepAliveOn, ManagerOptions, RunStatus};
use pac_core::protocol::{Ended, RunRequest};
use pac_core::state::RunOutcome;
use pac_core::{FencingToken, Limit, PipelineRunKey, RepositoryKey, Uid};
use pac_memory::{MemoryDriver, MemoryOptions};
use pac_pipelines::model::{RepositoryView, RunView, SpecStatus};
use pac_pipelines::queue_manager::{QueueManager, RunName};
use pac_pipelines::testing::{ClusterFaults, MemoryCluster, NewRun, TektonMode};
use pac_pipelines::{
    Cluster, ClusterError, ClusterEvent, ClusterWatch, ControllerOptions, EndOutcome, HoldOutcome,
    Listing, PipelinesController, StartOutcome,
};
use tokio::task::JoinHandle;
use tokio::time::sleep;

const LEASE_TTL: Duration = Duration::from_secs(20);

struct Setting {
    driver: Arc<dyn Driver>,
    cluster: MemoryCluster,
}

impl Setting {
    fn new(limit: u32) -> Self {
        let cluster = MemoryCluster::new(1, "p/p".parse().unwrap());
        cluster.apply_repository(&site(), Limit::new(limit));
        Self {
            driver: Arc::new(MemoryDriver::new(MemoryOptions::default())),
            cluster,
        }
    }

    fn held(&self, names: &[&str]) {
        for name in names {
            self.cluster.create(NewRun::held(run(name), &site()));
        }
        let keys: Vec<_> = names.iter().map(|name| run(name)).collect();
        self.cluster.set_order(&keys);
    }

    async fn manager(&self, line: &Arc<Faults>) -> ConcurrencyManager {
        let options = ManagerOptions::default()
            .with_keep_alive_on(KeepAliveOn::Task)
            .with_session_ttl(Duration::from_secs(12))
            .with_lease_ttl(LEASE_TTL);
        let driver = line.over(&self.driver);
        ConcurrencyManager::open(driver, options).await.unwrap()
    }

    async fn controller(&self, line: &Arc<Faults>) -> PipelinesController {
        let options = ControllerOptions::default().with_epoch(self.cluster.now());
        let cluster = Arc::new(self.cluster.clone());
        PipelinesController::new(self.manager(line).await, cluster, options)
    }

    async fn running(&self, line: &Arc<Faults>) -> JoinHandle<()> {
        let controller = self.controller(line).await;
        tokio::spawn(async move { controller.run().await.unwrap() })
    }

    async fn repository(&self) -> RepositoryView {
        let mut repositories = self.cluster.list_repositories().await.unwrap().items;
        repositories.retain(|view| view.key == site());
        repositories.pop().unwrap()
    }

    fn uid(&self, name: &str) -> Uid {
        self.cluster.view(&run(name)).unwrap().uid
    }

    fn status(&self, name: &str) -> SpecStatus {
        self.cluster.view(&run(name)).unwrap().spec_status
    }
}

/// The slot of what runs on expires with its controller's lease; it counts all the same.
#[tokio::test(start_paused = true)]
async fn nothing_starts_beside_what_runs_after_an_absence_of_all_controllers() {
    let ttl = i64::try_from(LEASE_TTL.as_millis()).unwrap();
    for after in [-12_000, -3_000, -500, 0, 500, 5_000, 60_000] {
        let setting = Setting::new(1);
        let line = Faults::none();
        let task = setting.running(&line).await;
        sleep(Duration::from_secs(1)).await;
        setting.held(&["a", "b"]);
        sleep(Duration::from_secs(20)).await;
        assert_eq!(setting.cluster.started(), [run("a")]);
        line.cut();
        task.abort();
        sleep(Duration::from_millis(u64::try_from(ttl + after).unwrap())).await;
        let next = setting.running(&Faults::none()).await;
        sleep(Duration::from_secs(120)).await;
        assert_eq!(setting.cluster.started(), [run("a")], "{after} ms");
        assert!(setting.cluster.finish(&run("a"), true));
        sleep(Duration::from_secs(20)).await;
        assert_eq!(setting.cluster.started(), [run("a"), run("b")]);
        assert_eq!(setting.cluster.breaches(), [""; 0]);
        next.abort();
    }
}

/// The same through the queues of upstream's interface.
#[tokio::test(start_paused = true)]
async fn the_queue_manager_hands_out_nothing_beside_what_runs_after_an_absence() {
    let ttl = i64::try_from(LEASE_TTL.as_millis()).unwrap();
    for after in [-3_000, -500, 0, 500, 5_000, 60_000] {
        let setting = Setting::new(1);
        setting.held(&["a", "b"]);
        let line = Faults::none();
        let options = ControllerOptions::default().with_epoch(setting.cluster.now());
        let first = QueueManager::new(setting.manager(&line).await, options.clone());
        first.init_queues(&setting.cluster).await.unwrap();
        let repository = setting.repository().await;
        let taken = first.add_list_to_running_queue(&repository, &[]).await;
        assert_eq!(taken.unwrap(), [run("a")]);
        let (uid, token) = (setting.uid("a"), FencingToken::new(1));
        let started = setting.cluster.start(&run("a"), &uid, token).await;
        assert_eq!(started, StartOutcome::Started);
        line.cut();
        drop(first);
        sleep(Duration::from_millis(u64::try_from(ttl + after).unwrap())).await;
        let next = QueueManager::new(setting.manager(&Faults::none()).await, options);
        next.init_queues(&setting.cluster).await.unwrap();
        for _ in 0..60 {
            sleep(Duration::from_secs(1)).await;
            let taken = next.add_list_to_running_queue(&repository, &[]).await;
            assert_eq!(taken.unwrap(), [], "{after} ms");
        }
        assert!(setting.cluster.finish(&run("a"), true));
        let view = setting.cluster.view(&run("a")).unwrap();
        let taken = next.remove_and_take_item_from_queue(&repository, &view);
        assert_eq!(taken.await.unwrap(), Some(run("b")), "{after} ms");
    }
}

/// The controller lives, and comes back with a new session.
#[tokio::test(start_paused = true)]
async fn nothing_starts_beside_what_runs_after_an_outage_of_the_store() {
    for outage in [10, 19, 25, 40, 600] {
        let setting = Setting::new(1);
        let line = Faults::none();
        let task = setting.running(&line).await;
        sleep(Duration::from_secs(1)).await;
        setting.held(&["a", "b"]);
        sleep(Duration::from_secs(20)).await;
        line.cut();
        sleep(Duration::from_secs(outage)).await;
        line.open();
        sleep(Duration::from_secs(120)).await;
        assert_eq!(setting.cluster.started(), [run("a")], "{outage} s");
        assert_eq!(setting.cluster.breaches(), [""; 0]);
        task.abort();
    }
}

/// Between the look at the store and the answer to the admission.
#[tokio::test(start_paused = true)]
async fn a_slot_that_expired_is_no_cancel() {
    let setting = Setting::new(2);
    setting.cluster.set_tekton(TektonMode::Manual);
    setting.held(&["a", "b"]);
    let view = setting.cluster.view(&run("a")).unwrap();
    let line = Faults::none();
    let dead = setting.manager(&line).await;
    dead.set_limit(&site(), Limit::new(2), None).await.unwrap();
    let request = RunRequest::durable(view.key.clone(), view.uid.clone());
    let lease = dead.admit(&site(), request).await.unwrap();
    assert!(matches!(lease, Admission::Started(_)));
    std::mem::forget(lease);
    let sweeps = setting.manager(&Faults::none()).await;
    let form = SpecStatus::CancelledRunFinally;
    assert!(setting.cluster.set_status(&run("b"), form));
    line.cut();
    sleep(Duration::from_secs(15)).await;
    let status = sweeps.run_status(&site(), &run("a")).await.unwrap();
    assert!(matches!(status, RunStatus::Started(run) if run.orphaned));
    // The lease TTL passes while the cluster is asked to end b.
    let options = ControllerOptions::default().with_epoch(setting.cluster.now());
    let slow = Arc::new(SlowToEnd(setting.cluster.clone()));
    let manager = setting.manager(&Faults::none()).await;
    let controller = PipelinesController::new(manager, slow, options);
    controller.recover().await.unwrap();
    assert_eq!(setting.status("a"), SpecStatus::Pending);
    let task = tokio::spawn(async move { controller.run().await.unwrap() });
    sleep(Duration::from_secs(60)).await;
    assert_eq!(setting.status("a"), SpecStatus::None);
    task.abort();
}

/// A watch that is wrong, or late.
#[tokio::test(start_paused = true)]
async fn a_run_that_is_said_to_be_gone_and_is_there_goes_on() {
    let setting = Setting::new(1);
    let controller = setting.controller(&Faults::none()).await;
    let running = controller.clone();
    let task = tokio::spawn(async move { running.run().await.unwrap() });
    setting.held(&["a", "b"]);
    sleep(Duration::from_secs(30)).await;
    let view = setting.cluster.view(&run("a")).unwrap();
    setting.cluster.repeat(&ClusterEvent::RunDeleted(view));
    sleep(Duration::from_secs(900)).await;
    assert_eq!(setting.status("a"), SpecStatus::None);
    assert_eq!(setting.cluster.started(), [run("a")]);
    let status = controller.manager().status(&site()).await.unwrap();
    assert_eq!((status.running.len(), status.queued.len()), (1, 1));
    assert!(setting.cluster.delete(&run("a")).is_some());
    sleep(Duration::from_secs(30)).await;
    assert_eq!(setting.cluster.started(), [run("a"), run("b")]);
    task.abort();
}

/// As upstream does after a start that failed.
#[tokio::test(start_paused = true)]
async fn what_the_queue_manager_takes_out_goes_on_under_a_controller() {
    let setting = Setting::new(1);
    setting.held(&["a", "b", "c"]);
    let options = ControllerOptions::default().with_epoch(setting.cluster.now());
    let queues = QueueManager::new(setting.manager(&Faults::none()).await, options);
    let repositories = setting.cluster.list_repositories().await.unwrap();
    let repository = &repositories.items[0];
    let names = ["a", "b", "c"].map(|name| {
        let view = setting.cluster.view(&run(name)).unwrap();
        RunName::from(&view)
    });
    let taken = queues.add_list_to_running_queue(repository, &names).await;
    assert_eq!(taken.unwrap(), [run("a")]);
    queues.remove_from_queue(&site(), &run("a")).await.unwrap();
    queues.remove_from_queue(&site(), &run("c")).await.unwrap();
    let taken = queues.add_list_to_running_queue(repository, &names[..1]);
    assert_eq!(taken.await.unwrap(), [run("b")]);
    assert_eq!(queues.queued(&site()).await.unwrap(), [run("a")]);
    queues.remove_from_queue(&site(), &run("a")).await.unwrap();
    queues.manager().close().await.unwrap();
    let task = setting.running(&Faults::none()).await;
    for name in ["b", "a", "c"] {
        sleep(Duration::from_secs(60)).await;
        assert_eq!(setting.status(name), SpecStatus::None, "{name}");
        assert!(setting.cluster.finish(&run(name), true));
    }
    task.abort();
}

/// What an operator releases before it has started is ended in the cluster.
#[tokio::test(start_paused = true)]
async fn what_is_released_before_it_starts_ends_in_the_cluster() {
    let setting = Setting::new(1);
    let task = setting.running(&Faults::none()).await;
    sleep(Duration::from_secs(1)).await;
    setting.held(&["x", "a"]);
    sleep(Duration::from_secs(10)).await;
    let away = ClusterFaults::default().with_api_away();
    setting.cluster.set_faults(away);
    assert!(setting.cluster.finish(&run("x"), true));
    sleep(Duration::from_secs(10)).await;
    let operator = setting.manager(&Faults::none()).await;
    let (uid, outcome) = (
        setting.cluster.view(&run("a")).unwrap().uid,
        RunOutcome::Completed,
    );
    let (site, a) = (site(), run("a"));
    let released = operator.release_run(&site, &a, &uid, None, outcome);
    assert_eq!(released.await.unwrap().ended, Ended::Done);
    sleep(Duration::from_secs(10)).await;
    setting.cluster.set_faults(ClusterFaults::default());
    sleep(Duration::from_secs(600)).await;
    assert_eq!(setting.status("a"), SpecStatus::Cancelled);
    assert_eq!(setting.cluster.started(), [run("x")]);
    task.abort();
}

/// A cluster that takes 40 s to end a run.
#[derive(Debug)]
struct SlowToEnd(MemoryCluster);

#[async_trait]
impl Cluster for SlowToEnd {
    async fn start(&self, run: &PipelineRunKey, uid: &Uid, token: FencingToken) -> StartOutcome {
        self.0.start(run, uid, token).await
    }

    async fn hold(&self, run: &PipelineRunKey, uid: &Uid) -> Result<HoldOutcome, ClusterError> {
        self.0.hold(run, uid).await
    }

    async fn request_end(
        &self,
        run: &PipelineRunKey,
        uid: &Uid,
        form: SpecStatus,
    ) -> Result<EndOutcome, ClusterError> {
        sleep(Duration::from_secs(40)).await;
        self.0.request_end(run, uid, form).await
    }

    async fn annotate(
        &self,
        run: &PipelineRunKey,
        uid: &Uid,
        annotations: &[(&str, Option<&str>)],
    ) -> Result<Option<RunView>, ClusterError> {
        self.0.annotate(run, uid, annotations).await
    }

    async fn read(&self, run: &PipelineRunKey) -> Result<Option<RunView>, ClusterError> {
        self.0.read(run).await
    }

    async fn list_runs(&self) -> Result<Listing<RunView>, ClusterError> {
        self.0.list_runs().await
    }

    async fn list_repositories(&self) -> Result<Listing<RepositoryView>, ClusterError> {
        self.0.list_repositories().await
    }

    async fn watch(&self) -> Result<Box<dyn ClusterWatch>, ClusterError> {
        self.0.watch().await
    }
}

fn run(name: &str) -> PipelineRunKey {
    PipelineRunKey::new("ci", name).unwrap()
}

fn site() -> RepositoryKey {
    "ci/website".parse().unwrap()
}
