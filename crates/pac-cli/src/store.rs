//! The store of the settings, for commands that look after it.

use std::io::{self, BufRead, IsTerminal, Write};

use pac_concurrency::{ConcurrencyManager, DriverKind, Settings, StoreReader};

use crate::exit::{Exit, Failure};
use crate::output::note;

/// Runs a command's work.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    // One thread will do: what keeps a session alive has a thread of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Internal, format!("no runtime: {error}")))?;
    let done = runtime.block_on(work);
    // A look-up of a name that nobody waits for any more must not hold up the end.
    runtime.shutdown_background();
    done
}

/// The store, to look at.
pub(crate) async fn reader(settings: &Settings) -> Result<StoreReader, Failure> {
    refuse_memory(settings)?;
    Ok(StoreReader::new(
        pac_concurrency::open_driver(settings).await?,
    ))
}

/// The store, to change something in it.
pub(crate) async fn with_manager<T>(
    settings: &Settings,
    work: impl AsyncFnOnce(&ConcurrencyManager) -> Result<T, Failure>,
) -> Result<T, Failure> {
    refuse_memory(settings)?;
    let manager = pac_concurrency::connect(settings).await?;
    let done = work(&manager).await;
    if let Err(error) = manager.close().await {
        note(format_args!("{error}; the session ends by itself"));
    }
    done
}

fn refuse_memory(settings: &Settings) -> Result<(), Failure> {
    if settings.driver != DriverKind::Memory || !settings.enabled {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Config,
        "the driver is memory: its state is in the process that made it, where no other one sees \
         it; set concurrency-driver to etcd or postgresql",
    ))
}

/// Asks before something that cannot be taken back, unless `yes` was said.
pub(crate) fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        let message = format!("{question} Nobody is there to ask: say --yes");
        return Err(Failure::new(Exit::Usage, message));
    }
    let mut stderr = io::stderr().lock();
    let mut answer = String::new();
    let asked = write!(stderr, "pac: {question} [y/N] ")
        .and_then(|()| stderr.flush())
        .and_then(|()| stdin.lock().read_line(&mut answer));
    match (asked, answer.trim()) {
        (Ok(_), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::new(Exit::Negative, "nothing was changed")),
    }
}
