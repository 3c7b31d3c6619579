//! Looks for runs without an owner that could start, in the name of a manager that takes them:
//! the controller that gave them up may not have been one.

use std::sync::Arc;

use tokio::time::sleep;

use crate::driver::ListFilter;
use crate::error::Error;
use crate::manager::engine::Engine;
use crate::pauses::jittered;
use crate::protocol::Command;

pub(super) async fn adopt(engine: Arc<Engine>) {
    let mut returns = engine.store.contact.follow();
    let mut failed = false;
    loop {
        tokio::select! {
            () = sleep(jittered(engine.options.poll_interval)) => {}
            () = engine.grants.opened() => {}
            () = returns.next(), if failed => {}
        }
        returns.begin();
        failed = false;
        if engine.grants.takes()
            && let Err(error) = promote_all(&engine).await
        {
            tracing::warn!(%error, "could not look for runs without an owner; trying again");
            failed = true;
        }
    }
}

async fn promote_all(engine: &Arc<Engine>) -> Result<(), Error> {
    let most = engine.store.page();
    let mut after = None;
    loop {
        let driver = &engine.store.driver;
        let page = driver.list(ListFilter::Startable, after.as_ref(), most);
        let page = engine.store.read(page, "list").await?;
        for (key, head) in &page {
            let cell = engine.repository(key);
            let lead = engine.input(&cell, |input| {
                let (machine, effects) = (&mut input.machine, &mut *input.effects);
                // On an older state there may seem to be nothing that could start.
                let behind = machine.look_if_behind(head.version(), effects);
                machine.submit_own(input.env, Command::Promote, effects) || behind
            });
            engine.follow_up(&cell, lead);
        }
        if page.len() < most {
            return Ok(());
        }
        after = page.into_iter().next_back().map(|(key, _)| key);
    }
}
