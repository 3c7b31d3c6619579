//! A part that never ends by itself: when it does, by a panic or with its runtime, the manager
//! ends too, and says so, instead of pretending.

use std::sync::Arc;

use crate::manager::engine::Engine;
use crate::manager::lifecycle::End;

/// Ends the manager when it is dropped, unless that has ended before.
#[derive(Debug)]
pub(in crate::manager) struct Alarm {
    engine: Arc<Engine>,
    part: &'static str,
    returned: bool,
}

impl Alarm {
    pub(in crate::manager) fn new(engine: &Arc<Engine>, part: &'static str) -> Self {
        Self {
            engine: Arc::clone(engine),
            part,
            returned: false,
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        let end = if self.returned || std::thread::panicking() {
            End::Part(self.part)
        } else {
            End::Runtime
        };
        self.engine.end(end);
    }
}

/// Runs a part until the manager ends.
pub(super) fn start(
    engine: &Arc<Engine>,
    part: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let alarm = Alarm::new(engine, part);
    engine.executor.spawn(async move {
        // Moves all of it in here: of a `Copy` field alone, the task would have a copy.
        let mut alarm = alarm;
        let engine = Arc::clone(&alarm.engine);
        tokio::select! {
            () = work => alarm.returned = true,
            _ = engine.lifecycle.over() => {}
        }
    });
}
