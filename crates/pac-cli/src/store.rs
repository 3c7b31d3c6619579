//! Access to the store that the settings name, for operator's commands.

use std::io::{self, BufRead, IsTerminal, Write};

use pac_concurrency::text::one_line;
use pac_concurrency::{ConcurrencyManager, DriverKind, Settings, StoreReader};

use crate::exit::{Exit, Failure};
use crate::output::note;

/// Runs a command's future to its end.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    // One thread suffices: the keep-alive has a thread of its own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Internal, format!("no runtime: {error}")))?;
    let done = runtime.block_on(work);
    // Do not wait for name look-ups that no task awaits any more.
    runtime.shutdown_background();
    done
}

/// Opens the store for reading; prepares nothing in it.
pub(crate) async fn reader(settings: &Settings) -> Result<StoreReader, Failure> {
    refuse_memory(settings)?;
    let driver = pac_concurrency::open_existing_driver(settings).await?;
    let driver = driver.ok_or_else(|| nothing_there(settings))?;
    Ok(StoreReader::new(driver))
}

/// A store in which nothing was prepared. The usual reason is a wrong name.
pub(crate) fn nothing_there(settings: &Settings) -> Failure {
    #[cfg(feature = "postgres")]
    if settings.driver == DriverKind::Postgresql {
        let options = &settings.postgres;
        let message = format!(
            "the database {:?} has no schema {:?} of this software: correct postgresql-database or \
             postgresql-schema; if they are right, `pac schema apply` creates it, or the first \
             controller does",
            options.database, options.schema
        );
        return Failure::new(Exit::Config, message);
    }
    let message = format!("the store {} was not prepared yet", settings.driver);
    Failure::new(Exit::Config, message)
}

/// Opens a manager on the store as it is, runs the command's work with it, and closes it.
pub(crate) async fn with_manager<T>(
    settings: &Settings,
    work: impl AsyncFnOnce(&ConcurrencyManager) -> Result<T, Failure>,
) -> Result<T, Failure> {
    refuse_memory(settings)?;
    let manager = pac_concurrency::connect_existing(settings).await?;
    let manager = manager.ok_or_else(|| nothing_there(settings))?;
    let done = work(&manager).await;
    if let Err(error) = manager.close().await {
        note(format_args!("{error}; the session ends by itself"));
    }
    done
}

/// What to do about a store that no other process sees.
pub(crate) const OTHER_STORE: &str =
    "set concurrency-driver to etcd or postgresql, and etcd-endpoints for the former";

/// The driver of a store that no other process sees.
pub(crate) fn in_process(settings: &Settings) -> &'static str {
    if settings.driver == DriverKind::Etcd {
        "etcd on a mock in this process"
    } else {
        "memory"
    }
}

pub(crate) fn refuse_memory(settings: &Settings) -> Result<(), Failure> {
    if !settings.is_in_process() || !settings.enabled {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Config,
        format!(
            "the driver is {}: its state is in the process that made it, where no other one sees \
             it; {}",
            in_process(settings),
            OTHER_STORE
        ),
    ))
}

/// Asks for confirmation before something irreversible, unless `yes` is set.
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
    let asked = write!(stderr, "pac: {} [y/N] ", one_line(question))
        .and_then(|()| stderr.flush())
        .and_then(|()| stdin.lock().read_line(&mut answer));
    match (asked, answer.trim()) {
        (Ok(_), "y" | "Y" | "yes") => Ok(()),
        _ => Err(Failure::new(Exit::Negative, "nothing was changed")),
    }
}
