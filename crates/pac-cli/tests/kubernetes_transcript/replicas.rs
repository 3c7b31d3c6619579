//! What a Deployment and the nodes do: as many processes as there are to be replicas, with the
//! arguments and the settings that the manifests give them.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use pac_kubernetes_mock::Handle;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::{Cluster, NAMESPACE};
use crate::common::cluster::{free_address, probe};
use crate::place::{Place, SECRET};
use crate::servers::{read, signal};

/// The replicas, kept by a thread until this is dropped.
pub(crate) struct Replicas {
    kept: Arc<Mutex<Vec<Replica>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// They are read until the end.
    _logs: Arc<TempDir>,
}

/// A pod that runs `pac controller`.
struct Replica {
    name: String,
    child: Child,
    probes: SocketAddr,
    log: PathBuf,
}

impl Replicas {
    /// Keeps as many as the cluster's Deployment says.
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let kept = Arc::<Mutex<Vec<Replica>>>::default();
        let ended = Arc::new(AtomicBool::new(false));
        let logs = Arc::new(tempfile::tempdir().unwrap());
        let keeper = Keeper {
            objects: cluster.objects.clone(),
            place: cluster.place.clone(),
            kept: Arc::clone(&kept),
            logs: Arc::clone(&logs),
            started: 0,
        };
        let told = Arc::clone(&ended);
        let thread = std::thread::spawn(move || keeper.keep(&told));
        Self {
            kept,
            ended,
            thread: Some(thread),
            _logs: logs,
        }
    }

    /// The pods that are there.
    pub(crate) fn names(&self) -> Vec<String> {
        let kept = lock(&self.kept);
        kept.iter().map(|replica| replica.name.clone()).collect()
    }

    /// Kills the replica that has started a run, without a word to it; answers with its name.
    pub(crate) fn kill_the_one_that_started(&self, run: &str) -> String {
        let kept = lock(&self.kept);
        let line = format!("started run=ci/{run} ");
        let started = |replica: &&Replica| read(&replica.log).contains(&line);
        let replica = kept.iter().find(started).expect("one has started it");
        signal("KILL", replica.child.id());
        replica.name.clone()
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        for replica in lock(&self.kept).iter_mut() {
            let _ = replica.child.kill();
            let _ = replica.child.wait();
            if std::thread::panicking() {
                let log = format!("{}:\n{}\n", replica.name, read(&replica.log));
                let _ = std::io::stderr().write_all(log.as_bytes());
            }
        }
    }
}

struct Keeper {
    objects: Handle,
    place: Place,
    kept: Arc<Mutex<Vec<Replica>>>,
    logs: Arc<TempDir>,
    started: usize,
}

impl Keeper {
    fn keep(mut self, ended: &AtomicBool) {
        while !ended.load(Ordering::Acquire) {
            self.reconcile();
            sleep(Duration::from_millis(50));
        }
    }

    fn reconcile(&mut self) {
        let deployment = self.objects.get("deployments", NAMESPACE, NAMESPACE);
        let wanted = deployment.as_ref().ok();
        let wanted = wanted.and_then(|found| found["spec"]["replicas"].as_u64());
        let kept = Arc::clone(&self.kept);
        let mut kept = lock(&kept);
        kept.retain_mut(|replica| {
            let has_ended = replica.child.try_wait().unwrap().is_some();
            if has_ended {
                self.objects
                    .delete("pods", NAMESPACE, &replica.name)
                    .unwrap();
            }
            !has_ended
        });
        let wanted = usize::try_from(wanted.unwrap_or(0)).unwrap();
        for replica in kept.iter().skip(wanted) {
            signal("TERM", replica.child.id());
        }
        let Ok(deployment) = deployment else { return };
        // Without its Secret no pod starts.
        let secret = self.objects.get("secrets", NAMESPACE, SECRET);
        while kept.len() < wanted && secret.is_ok() {
            kept.push(self.start(&deployment["spec"]["template"]));
        }
        let is_ready = |replica: &&Replica| {
            probe(replica.probes, "/readyz").is_some_and(|answer| answer.contains("200 OK"))
        };
        let ready = json!({"status": {"readyReplicas": kept.iter().filter(is_ready).count()}});
        // It may have been deleted meanwhile.
        let _ = self
            .objects
            .merge_status("deployments", NAMESPACE, NAMESPACE, ready);
    }

    fn start(&mut self, template: &Value) -> Replica {
        self.started += 1;
        let name = format!("{NAMESPACE}-{}", self.started);
        let pod = json!({"metadata": {
            "namespace": NAMESPACE, "name": name, "labels": template["metadata"]["labels"],
        }});
        self.objects.create("pods", pod).unwrap();
        let probes = free_address();
        let arguments = template["spec"]["containers"][0]["args"].as_array();
        let arguments = arguments.unwrap().iter().map(|argument| {
            let argument = argument.as_str().unwrap();
            // All pods of this cluster have the address of the machine.
            match argument.strip_prefix("--health-address=") {
                Some(_) => format!("--health-address={probes}"),
                None => self.place.argument(argument),
            }
        });
        let log = self.logs.path().join(&name);
        let mut command = self.place.pac();
        command.args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&log).unwrap());
        Replica {
            child: command.spawn().unwrap(),
            name,
            probes,
            log,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
