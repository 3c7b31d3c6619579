//! What every behaviour of a scenario begins with.

use std::sync::Arc;

use pac_core::SessionId;
use pac_core::protocol::{self, Command, Death, Issuer};

use super::book::Book;
use super::controller::Controller;
use super::invariant::Broken;
use super::store::Store;
use super::world::{State, World, expire, next_session};

impl World {
    pub(super) fn start(&self) -> State {
        let scenario = &self.0.scenario;
        let mut store = Store {
            book: Book::absent(),
            sessions: Vec::new(),
        };
        let controllers: Vec<_> = (0..scenario.controllers)
            .map(|at| Arc::new(Controller::new(next_session(at, None), &self.0)))
            .collect();
        for controller in &controllers {
            store.open(controller.session);
        }
        let session = controllers[0].session;
        let limit = Command::limit(scenario.limit(), None);
        write(&mut store, session, &limit);
        if scenario.orphan {
            let gone = next_session(scenario.controllers, None);
            let death = Death::Session;
            store.open(gone);
            write(&mut store, gone, &Command::Admit(scenario.runs[0].clone()));
            store.lapse(gone, death);
            write(&mut store, session, &expire(gone, death));
        }
        State {
            store,
            controllers,
            late: Vec::new(),
            events: 0,
            left: scenario.faults,
            broken: Broken::default(),
        }
    }
}

/// Writes what a command comes to before anything happens.
fn write(store: &mut Store, session: SessionId, command: &Command) {
    let issuer = Issuer {
        session,
        takes_ownerless: false,
    };
    let (_, changes) = protocol::apply(store.book.state(), issuer, command);
    let changes = changes.expect("each of them changes something");
    store.book = store.book.write(&changes).expect("one command adds up");
}
