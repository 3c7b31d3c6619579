//! The signals that `pac exec` passes on.

use std::future::poll_fn;
use std::task::{Context, Poll};

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::exit::{Exit, Failure};

/// The signals that are passed on.
const PASSED_ON: [Signal; 6] = [
    Signal::INT,
    Signal::TERM,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
];

/// The signals received. A signal that was ignored when the process started (`nohup`) stays
/// ignored, here and in the command.
#[derive(Debug)]
pub(crate) struct Signals {
    streams: Vec<(Signal, Stream)>,
    woken: Stream,
}

impl Signals {
    pub(crate) fn install() -> Result<Self, Failure> {
        let failed = |error| Failure::new(Exit::Internal, format!("no signal handler: {error}"));
        let ignored = ignored();
        let mut streams = Vec::with_capacity(PASSED_ON.len());
        for passed in PASSED_ON {
            let number = passed.as_raw();
            if ignored & bit(number) == 0 {
                let stream = signal(SignalKind::from_raw(number)).map_err(failed)?;
                streams.push((passed, stream));
            }
        }
        let woken = signal(SignalKind::from_raw(Signal::CONT.as_raw())).map_err(failed)?;
        Ok(Self { streams, woken })
    }

    /// Waits for the next signal. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Signal {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Waits for the next signal; `None` when the process is resumed after a stop.
    pub(crate) async fn next_or_woken(&mut self) -> Option<Signal> {
        poll_fn(|cx| match self.woken.poll_recv(cx) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => self.poll_next(cx).map(Some),
        })
        .await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Signal> {
        for (signal, stream) in &mut self.streams {
            if stream.poll_recv(cx).is_ready() {
                return Poll::Ready(*signal);
            }
        }
        Poll::Pending
    }
}

/// The name of a signal that is passed on: `SIGTERM`.
pub(crate) fn name(signal: Signal) -> String {
    let names = [
        "SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2",
    ];
    let known = PASSED_ON
        .iter()
        .zip(names)
        .find(|(known, _)| **known == signal);
    known.map_or_else(
        || format!("signal {}", signal.as_raw()),
        |(_, name)| name.to_owned(),
    )
}

/// The exit code that a shell reports for a process ended by a signal.
pub(crate) fn exit_code(signal: Signal) -> u8 {
    from_number(signal.as_raw())
}

pub(crate) fn from_number(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

/// The set of ignored signals, where the system reports it: `SigIgn` in proc(5).
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

fn bit(signal: i32) -> u64 {
    u32::try_from(signal - 1)
        .ok()
        .and_then(|shift| 1_u64.checked_shl(shift))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_told_by_their_names() {
        let names: Vec<_> = PASSED_ON.iter().map(|signal| name(*signal)).collect();
        assert_eq!(
            names,
            [
                "SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"
            ]
        );
        assert_eq!(
            name(Signal::CONT),
            format!("signal {}", Signal::CONT.as_raw())
        );
    }
}
