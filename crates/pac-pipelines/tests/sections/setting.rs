//! A cluster whose runs ask for sections, as the two steps do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use pac_conformance::{Fixture, Time, run_case};
use pac_core::RepositoryKey;
use pac_memory::{MemoryDriver, MemoryOptions};
use pac_pipelines::Cluster;
use pac_pipelines::sections::{Arrival, Departure, SectionHolder, SectionName, Standing};
use pac_pipelines::testing::NewRun;
use tokio::time::{Instant, sleep};

pub(crate) use crate::support::{Setting, run, website};

/// A flow over the store in memory, on a clock that stands still while something is done.
pub(crate) fn flow(case: impl AsyncFnOnce(&Fixture)) {
    async fn open(time: Time) -> Fixture {
        let driver = MemoryDriver::new(MemoryOptions::default());
        Fixture::over(Arc::new(driver), time)
    }
    run_case(Time::Paused, open, case);
}

pub(crate) fn gpu() -> SectionName {
    "gpu".parse().unwrap()
}

/// The section `gpu` as the store has it.
pub(crate) fn stored() -> RepositoryKey {
    "ci/section.gpu".parse().unwrap()
}

fn holder(name: &str) -> SectionHolder {
    name.parse().unwrap()
}

/// What the steps of runs do.
pub(crate) trait Steps {
    /// Runs that run, of a Repository without a limit.
    fn started(&self, names: &[&str]);
    /// A step of this run asks as a holder.
    async fn asks_as(&self, name: &str, holder: &str);
    /// A step of this run asks.
    async fn asks(&self, name: &str) {
        self.asks_as(name, SectionHolder::DEFAULT).await;
    }
    /// A step of this run leaves as a holder.
    async fn leaves_as(&self, name: &str, holder: &str);
    /// A step of this run leaves.
    async fn leaves(&self, name: &str) {
        self.leaves_as(name, SectionHolder::DEFAULT).await;
    }
    /// How the request of a run stands.
    fn standing(&self, name: &str) -> Standing;
    /// Waits until a run is in the section, and answers with its token.
    async fn enters(&self, name: &str) -> u64;
    /// Waits until the store has these in the section, and those waiting, in order.
    async fn section_is(&self, inside: &[&str], waiting: &[&str]);
}

impl Steps for Setting<'_> {
    fn started(&self, names: &[&str]) {
        for name in names {
            let new = NewRun::of(run(name), &website());
            self.cluster.create(new).unwrap();
        }
    }

    async fn asks_as(&self, name: &str, asks: &str) {
        let view = self.view(name);
        // Differs between two requests, so that the order of asking is that of the calls.
        sleep(Duration::from_millis(1)).await;
        let now = self.cluster.now();
        match Arrival::of(&view, &gpu(), &holder(asks), now, 7) {
            Arrival::Ask(request) => {
                let (name, text) = (gpu().request_annotation(), request.to_string());
                self.cluster.mark(&view.key, &name, &text);
            }
            Arrival::Asked(_) => {}
            other => panic!("{other:?}"),
        }
    }

    async fn leaves_as(&self, name: &str, leaves: &str) {
        let view = self.view(name);
        let (request, answer) = (gpu().request_annotation(), gpu().answer_annotation());
        let annotate = async |annotations: &[(&str, Option<&str>)]| {
            let written = self.cluster.annotate(&view.key, &view.uid, annotations);
            written.await.unwrap().unwrap();
        };
        match Departure::of(&view, &gpu(), &holder(leaves)) {
            Departure::Leave => annotate(&[(&request, None), (&answer, None)]).await,
            Departure::Stay(left) => annotate(&[(&request, Some(&left.to_string()))]).await,
            Departure::Left | Departure::OfOthers(_) => {}
            other => panic!("{other:?}"),
        }
    }

    fn standing(&self, name: &str) -> Standing {
        let view = self.view(name);
        match Arrival::of(&view, &gpu(), &holder("nobody"), self.cluster.now(), 7) {
            Arrival::Ask(asked) | Arrival::Asked(asked) => Standing::of(&view, &gpu(), &asked),
            other => panic!("{other:?}"),
        }
    }

    async fn enters(&self, name: &str) -> u64 {
        let deadline = Instant::now() + Duration::from_secs(200);
        loop {
            if let Standing::Granted(token) = self.standing(name) {
                return token.get();
            }
            assert!(Instant::now() < deadline, "{name} does not enter");
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn section_is(&self, inside: &[&str], waiting: &[&str]) {
        let deadline = Instant::now() + Duration::from_secs(200);
        loop {
            let view = self.fixture.view(&stored()).await;
            let mut running = view.running_names();
            running.sort_unstable();
            if running == inside && view.waiting_names() == waiting {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the section should have {inside:?} and {waiting:?}, and has {running:?} and {:?}",
                view.waiting_names()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }
}
