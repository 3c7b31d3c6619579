//! The connection of one manager to the store: it can be cut, and held up.

use async_trait::async_trait;
use pac_core::driver::{Watch, WatchEvent};
use pac_core::{Error, ErrorKind};
use tokio::sync::watch;

use super::Fault;

/// A connection that is open at first. Cut for good it is what a crash is to everybody else.
#[derive(Debug)]
pub struct Gate {
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Cut,
    Held,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            state: watch::Sender::new(State::Open),
        }
    }
}

impl Gate {
    /// From now on every request fails at once, and watches break.
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// From now on requests and watches wait until the gate is opened.
    pub fn hold(&self) {
        self.state.send_replace(State::Held);
    }

    /// Everything passes again.
    pub fn open(&self) {
        self.state.send_replace(State::Open);
    }
}

#[async_trait]
impl Fault for Gate {
    async fn before(&self) -> Result<(), Error> {
        let mut state = self.state.subscribe();
        match *state.wait_for(|state| *state != State::Held).await.unwrap() {
            State::Cut => Err(cut()),
            State::Open | State::Held => Ok(()),
        }
    }

    fn watched(&self, watch: Box<dyn Watch>) -> Box<dyn Watch> {
        Box::new(GatedWatch {
            watch,
            state: self.state.subscribe(),
        })
    }
}

struct GatedWatch {
    watch: Box<dyn Watch>,
    state: watch::Receiver<State>,
}

#[async_trait]
impl Watch for GatedWatch {
    async fn next(&mut self) -> Result<WatchEvent, Error> {
        loop {
            let state = *self.state.borrow_and_update();
            match state {
                State::Cut => return Err(cut()),
                State::Held => self.state.changed().await.unwrap(),
                State::Open => tokio::select! {
                    event = self.watch.next() => return event,
                    changed = self.state.changed() => changed.unwrap(),
                },
            }
        }
    }
}

fn cut() -> Error {
    let message = "the connection was cut by the test";
    Error::new(ErrorKind::Unavailable, "request", message)
}
