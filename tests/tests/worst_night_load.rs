//! Much at once: callers are answered within the time that a command is given, repositories take
//! turns, and shutting down costs no stack.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::future::Future;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::{
    Admission, ConcurrencyManager, KeepAliveOn, Lease, Limit, ManagerOptions, MemoryDriver,
    MemoryOptions, RepositoryKey, RunOutcome,
};
use pac_conformance::faults::{Fault, Faults, Request, When};
use pac_conformance::{Fixture, Time, durable, repository, run, run_case, started};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const DONE: RunOutcome = RunOutcome::Completed;
const SECOND: Duration = Duration::from_secs(1);

async fn memory(time: Time) -> Fixture {
    Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
}

fn options(command_timeout: Duration) -> ManagerOptions {
    ManagerOptions::default()
        .with_command_timeout(command_timeout)
        .with_keep_alive_on(KeepAliveOn::Task)
}

/// How long a command is given in these tests.
const TIMEOUT: Duration = Duration::from_millis(200);

/// The variable that tells a test of this file that it is the child process of itself.
const CHILD: &str = "PAC_TESTS_WORST_NIGHT_CHILD";

/// Repositories that waited for a lane when the runtime was shut down were given up one
/// within the other, until the stack was used up and the process aborted.
#[test]
fn thousands_that_wait_for_a_lane_survive_the_end_of_the_runtime() {
    if std::env::var_os(CHILD).is_some() {
        // Half of what a test's thread usually has.
        let small = std::thread::Builder::new().stack_size(1 << 20);
        let thread = small.spawn(end_the_runtime_under_load).unwrap();
        return thread.join().unwrap();
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "thousands_that_wait_for_a_lane_survive_the_end_of_the_runtime",
        ])
        .env(CHILD, "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = exit_of(child, SECOND * 60);
    assert!(
        status.success(),
        "the process that shuts a runtime down under load: {status}"
    );
}

fn end_the_runtime_under_load() {
    const MANY: u64 = 2_000;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let manager = runtime.block_on(async {
        let fixture = memory(Time::Real).await;
        let line = Faults::line();
        let manager = fixture.manager_behind(&line).await;
        line.inject([Request::Commit], Fault::Hang, When::Always);
        for n in 0..MANY {
            let manager = manager.clone();
            tokio::spawn(async move {
                let web = repository(&format!("web-{n}"));
                manager.admit(&web, durable("a")).await.map(drop)
            });
        }
        while line.requests(Request::Load) < MANY {
            sleep(Duration::from_millis(5)).await;
        }
        // All that were read wait for the lane now.
        sleep(SECOND / 2).await;
        manager
    });
    drop(runtime);
    drop(manager);
}

/// Waits for a child process; ends it when it takes too long.
fn exit_of(mut child: Child, longest: Duration) -> ExitStatus {
    let start = std::time::Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if start.elapsed() > longest {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the child process was not over after {longest:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// As many busy repositories as one batch carries kept every other repository waiting
/// for as long as they were busy.
#[test]
fn repositories_take_turns() {
    const BUSY: usize = 16;
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let line = Faults::line();
        let manager = fixture.manager_behind(&line).await;
        line.inject([Request::Commit], Fault::Delay(TICK), When::Always);
        let mut busy = JoinSet::new();
        for n in 0..BUSY {
            let web = repository(&format!("busy-{n}"));
            busy.spawn(keep_busy(manager.clone(), web));
        }
        sleep(SECOND / 10).await;
        let commits = || line.total_traffic().commits;
        assert!(commits() > 10 * BUSY as u64, "all are busy");

        let (before, late) = (commits(), repository("late"));
        let answer = timeout(SECOND, manager.admit(&late, durable("a"))).await;
        let passed = commits() - before;
        assert!(
            matches!(answer, Ok(Ok(Admission::Started(_)))),
            "{answer:?} while {passed} commits of other repositories passed"
        );
        assert!(passed < 20 * BUSY as u64, "behind {passed} commits");
        busy.shutdown().await;
    });
}

/// How long a commit of a busy repository is on its way, and comes back.
const TICK: Duration = Duration::from_millis(1);

/// Something more is asked for before the commit before it is done, again and again.
async fn keep_busy(manager: ConcurrencyManager, web: RepositoryKey) {
    let mut cycles = JoinSet::new();
    for n in 0.. {
        let (manager, web) = (manager.clone(), web.clone());
        cycles.spawn(async move {
            let lease = started(&manager, &web, durable(&format!("run-{n}"))).await;
            manager.release(lease, DONE).await.unwrap();
        });
        sleep(TICK).await;
    }
}

/// The time of a command began with its first failure: behind a thousand reads of the
/// manager's own, 200 ms were 15 s.
#[test]
fn a_command_behind_a_thousand_slow_reads_ends_in_time() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (manager, _leases) = reading_a_thousand(fixture, options(TIMEOUT)).await;
        let late = repository("late");
        let asked = manager.admit(&late, durable("a"));
        ends_in_time("admit", asked).await;
    });
}

/// Behind a thousand reads of the manager's own, a status that was given 200 ms took 15 s, too.
#[test]
fn a_status_behind_a_thousand_slow_reads_ends_in_time() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (manager, _leases) = reading_a_thousand(fixture, options(TIMEOUT)).await;
        let late = repository("late");
        let asked = manager.status(&late);
        ends_in_time("status", asked).await;
    });
}

/// What a caller waits for was read after all that the manager reads of its own accord.
#[test]
fn callers_go_before_reads_of_the_managers_own() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let patient = options(SECOND * 60);
        let (manager, _leases) = reading_a_thousand(fixture, patient).await;
        let start = Instant::now();
        let admitted = manager.admit(&repository("late"), durable("a")).await;
        assert!(
            matches!(admitted, Ok(Admission::Started(_))),
            "{admitted:?}"
        );
        // A read takes 1 s: one that is under way, and its own.
        let waited = start.elapsed();
        assert!(waited < SECOND * 3, "it took {waited:?}");
    });
}

/// A manager that has just begun to read a thousand repositories again, where a read takes 1 s.
async fn reading_a_thousand(
    fixture: &Fixture,
    options: ManagerOptions,
) -> (ConcurrencyManager, Vec<Lease>) {
    let line = Faults::none();
    let manager = fixture.manager_behind_with(&line, options).await;
    let mut leases = Vec::new();
    for n in 0..1_000 {
        let web = repository(&format!("web-{n}"));
        leases.push(started(&manager, &web, durable("a")).await);
    }
    line.inject([Request::Load], Fault::Delay(SECOND / 2), When::Always);
    let before = line.requests(Request::Load);
    // Hints may have been lost with the connection.
    line.cut();
    sleep(Duration::from_millis(10)).await;
    line.open();
    let reading = async {
        while line.requests(Request::Load) == before {
            sleep(Duration::from_millis(1)).await;
        }
    };
    fixture.reconnected("the first read", reading).await;
    (manager, leases)
}

/// A commit that was stuck kept its caller for as long as it was.
#[test]
fn a_command_whose_commit_is_stuck_ends_in_time() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let line = Faults::none();
        let manager = fixture.manager_behind_with(&line, options(TIMEOUT)).await;
        let lease = started(&manager, &web, durable("a")).await;
        line.inject([Request::Commit], Fault::Hang, When::Always);
        let (mut asked, b) = (JoinSet::new(), durable("b"));
        let spawn = |name, asked: &mut JoinSet<()>, call: Call| {
            asked.spawn(async move { ends_in_time(name, call).await });
        };
        let of = || (manager.clone(), web.clone());
        let (ours, at) = of();
        let call = async move { ours.admit(&at, b).await.map(drop) };
        spawn("admit", &mut asked, Box::pin(call));
        let (ours, at) = of();
        let call = async move { ours.cancel(&at, &run("a"), None).await.map(drop) };
        spawn("cancel", &mut asked, Box::pin(call));
        let (ours, at) = of();
        let call = async move { ours.set_limit(&at, Limit::new(2), None).await.map(drop) };
        spawn("set_limit", &mut asked, Box::pin(call));
        let (ours, _) = of();
        let call = async move { ours.release(lease, DONE).await.map(drop) };
        spawn("release", &mut asked, Box::pin(call));
        asked.join_all().await;
    });
}

type Call = std::pin::Pin<Box<dyn Future<Output = Result<(), pac_concurrency::Error>> + Send>>;

/// Waiting for a lane did not count: behind a batch that was stuck, a command for another
/// repository waited for as long as the batch did.
#[test]
fn a_command_that_waits_for_a_lane_ends_in_time() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let line = Faults::line();
        let manager = fixture.manager_behind_with(&line, options(TIMEOUT)).await;
        let stuck = repository("stuck");
        line.inject_at(&stuck, [Request::Commit], Fault::Hang, When::Always);
        let asking = tokio::spawn({
            let manager = manager.clone();
            async move { manager.admit(&stuck, durable("a")).await.map(drop) }
        });
        sleep(TIMEOUT / 10).await;
        assert_eq!(line.requests(Request::Commit), 1, "the lane is taken");
        let web = repository("web");
        let asked = manager.admit(&web, durable("a"));
        ends_in_time("admit", asked).await;
        asking.abort();
    });
}

/// The first attempt did not count: a command whose every attempt takes 150 ms and fails
/// was tried for twice the time that it was given.
#[test]
fn the_time_of_a_command_counts_from_the_call() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let line = Faults::none();
        let manager = fixture.manager_behind_with(&line, options(TIMEOUT)).await;
        let slow = Fault::Delay(TIMEOUT * 3 / 4);
        line.inject([Request::Commit], slow, When::Always);
        line.inject([Request::Commit], Fault::Fail, When::Always);
        let start = Instant::now();
        let asked = timeout(SECOND * 60, manager.admit(&repository("web"), durable("a"))).await;
        let waited = start.elapsed();
        assert!(matches!(asked, Ok(Err(_))), "{asked:?}");
        assert!(waited < TIMEOUT * 5 / 4, "it took {waited:?}");
    });
}

/// Awaits a call that has to end, well or badly, within the time that a command is given.
async fn ends_in_time<T: std::fmt::Debug>(
    call: &str,
    future: impl Future<Output = Result<T, pac_concurrency::Error>>,
) {
    let start = Instant::now();
    let answer = timeout(SECOND * 60, future).await;
    let waited = start.elapsed();
    let answer = answer.map_err(|_| "no answer");
    assert!(
        waited < TIMEOUT * 5 / 4,
        "{call} was given {TIMEOUT:?} and took {waited:?}: {answer:?}"
    );
}
