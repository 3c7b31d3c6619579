//! After the store has gone back in time: this process knows nothing any more, and holds nothing.

use std::sync::Arc;

use super::engine::Engine;
use super::registry::Cell;
use super::repository::effects::Rewound;
use crate::event::Event;

impl Engine {
    /// A repository has shown that the store has gone back in time. What is known of every other
    /// one is dropped and read anew, and so is the session: the copy that was restored may know
    /// nothing of it, or of slots that it was granted since, and others may hold those by now. Where
    /// several repositories show it at about the same time, only the first does all this.
    pub(super) fn store_rewound(self: &Arc<Self>, shown_by: &Arc<Cell>, rewound: Rewound) {
        let repository = shown_by.key();
        let Rewound { known, found } = rewound;
        if !self.vitals.store_rewound() {
            tracing::debug!(%repository, %known, %found, "another repository that has gone back");
            return;
        }
        let (session, _) = self.fence.session();
        tracing::warn!(
            %repository, %known, %found, %session,
            "the store has gone back in time: it was restored from an older copy, or a standby took \
             over that had not received the last commits; what this process knew is read anew and \
             its session is opened anew, so its leases are lost. Runs that were admitted or ended \
             since that copy was made are not known any more: compare `pac status` with what really \
             runs"
        );
        self.events.tell(Event::StoreRewound {
            repository: repository.clone(),
            known,
            found,
        });
        for cell in self.registry.all() {
            if !Arc::ptr_eq(&cell, shown_by) {
                let lead = self.input(&cell, |input| input.machine.on_store_rewound(input.effects));
                self.follow_up(&cell, lead);
            }
        }
        // Whatever was seen to may have to be seen to again.
        self.session_died.notify_one();
        self.grants.look_again();
        if self.fence.lose(session) {
            let engine = Arc::clone(self);
            self.executor.spawn(async move {
                // So that its slots need not wait for its TTL. Where that fails, they do.
                let closing = engine.store.driver.close_session(session);
                if let Err(error) = engine.store.read(closing, "close session").await {
                    tracing::debug!(%session, %error, "could not close the session from before");
                }
            });
        }
    }
}
