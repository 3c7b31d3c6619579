//! The signals that ask for the end.

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Failure;

/// Waits for SIGTERM or SIGINT.
#[derive(Debug)]
pub(crate) struct End {
    #[cfg(unix)]
    terminate: Signal,
    #[cfg(unix)]
    interrupt: Signal,
}

impl End {
    /// From now on the signals do not end the process by themselves.
    #[cfg(unix)]
    pub(crate) fn install() -> Result<Self, Failure> {
        let on = |kind| {
            signal(kind).map_err(|error| {
                let message = format!("no signal handler: {error}");
                Failure::new(crate::exit::Exit::Internal, message)
            })
        };
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }

    /// There is nothing to install.
    #[cfg(not(unix))]
    pub(crate) fn install() -> Result<Self, Failure> {
        Ok(Self {})
    }

    /// Waits until the end is asked for. Cancel-safe.
    pub(crate) async fn asked(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        tracing::info!("a signal asks for the end");
    }
}
