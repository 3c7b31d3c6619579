//! Waits for a slot, and shows the position in the queue.

use std::borrow::Cow;
use std::io::{self, IsTerminal};
use std::pin::pin;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use pac_concurrency::{
    Error, ErrorKind, Event, Events, Heard, LeaseLoss, RepositoryKey, Turn, WaitReason, Waiter,
    Weight,
};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::held::Held;
use super::patience::{Stop, until};
use super::renewals;
use super::signals::Signals;
use crate::output::note;
use crate::time::humanise;
use crate::why::{self, Waiting};

/// How often the position is checked for a change.
const LOOK: Duration = Duration::from_millis(100);

/// The least time between two log lines.
const LINE: Duration = Duration::from_secs(1);

/// How long the store may take to confirm that the place is given up. It is given up in any case:
/// at the latest with the session.
const CONFIRM_WITHIN: Duration = Duration::from_secs(2);

/// The wait of one invocation, which may need several places, one after the other.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Where it waits, as it is shown.
    place: String,
    since: Instant,
    shown: Option<(usize, WaitReason)>,
    shown_at: Option<Instant>,
    spinner: Option<ProgressBar>,
    events: Events,
}

/// The end of waiting in one place.
#[derive(Debug)]
pub(crate) enum Waited {
    Turn(Turn),
    /// The store has ended the session while the run waited.
    PlaceLost,
    /// A slot that was held meanwhile, of this repository, is lost.
    HeldLost(RepositoryKey, LeaseLoss),
    /// The run that holds a slot of this repository meanwhile was asked to end.
    HeldAsked(RepositoryKey),
}

impl Queue {
    pub(crate) fn new(events: Events) -> Self {
        Self {
            place: String::new(),
            since: Instant::now(),
            shown: None,
            shown_at: None,
            spinner: None,
            events,
        }
    }

    /// Waits in a place of `repository` for `weight` slots, while `held` are held. At the end the place is given up or
    /// has become a slot; after a signal, or if the store does not confirm it in time, it is being
    /// given up.
    pub(crate) async fn wait(
        &mut self,
        repository: &RepositoryKey,
        mut waiter: Waiter,
        weight: Weight,
        held: &Held,
        deadline: Option<Instant>,
        signals: &mut Signals,
    ) -> Result<Waited, Stop> {
        let place = place(repository, held);
        if place != self.place {
            self.place = place;
            self.since = Instant::now();
        }
        self.shown = None;
        let (mut lost, mut asked) = (held.lost(), pin!(held.asked()));
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                // Dropped, the waiter gives up its place, and a slot granted at this moment.
                (held, why) = &mut lost => return Ok(Waited::HeldLost(held, why)),
                turn = &mut waiter => return of(turn),
                held = &mut asked => return Ok(Waited::HeldAsked(held)),
                signal = signals.next() => return Err(Stop::Signal(signal)),
                () = until(deadline) => return give_up(waiter, repository).await,
                Some(heard) = self.events.next() => self.tell(&heard),
                _ = look.tick() => {
                    if let (Some(position), Some(reason)) = (waiter.position(), waiter.reason()) {
                        let queue = waiter.queue();
                        let by_slots = queue.is_some_and(|all| why::by_slots(all.slots_taken, all.running));
                        self.show(position, reason, Waiting { weight, by_slots });
                    }
                }
            }
        }
    }

    /// Removes the spinner from the terminal.
    pub(crate) fn finish(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
        }
    }

    /// Says that the store is away, and that it is back. Neither costs the place.
    fn tell(&self, heard: &Heard) {
        let text: Cow<'_, str> = match heard {
            Heard::Event(Event::LeasesLost(_)) => {
                "the store does not answer; waiting on in the place that it may have kept".into()
            }
            Heard::Event(Event::SessionKept(_)) => {
                "the store is back, and has kept the place".into()
            }
            heard => match renewals::news(heard, "the place is kept for at least") {
                Some(news) => Cow::Owned(news),
                None => return,
            },
        };
        let say = || note(&text);
        match &self.spinner {
            Some(spinner) => spinner.suspend(say),
            None => say(),
        }
    }

    fn show(&mut self, position: usize, reason: WaitReason, waiting: Waiting) {
        let known = self.shown.as_ref();
        let news = known.is_none_or(|(at, why)| (*at, why) != (position, &reason));
        if io::stderr().is_terminal() {
            let spinner = self.spinner.get_or_insert_with(spinner);
            if news {
                spinner.set_message(describe(&self.place, position, &reason, waiting));
            }
            spinner.tick();
        } else if news && self.shown_at.is_none_or(|at| at.elapsed() >= LINE) {
            let waited = self.since.elapsed();
            let since = if waited < LINE {
                String::new()
            } else {
                format!(" after {}", humanise(waited))
            };
            note(format_args!(
                "{}{since}",
                describe(&self.place, position, &reason, waiting)
            ));
            self.shown_at = Some(Instant::now());
        } else {
            return;
        }
        self.shown = Some((position, reason));
    }
}

/// Where a run waits, and what it holds meanwhile.
fn place(repository: &RepositoryKey, held: &Held) -> String {
    let held = held.own.iter().map(|lease| lease.repository().to_string());
    let held: Vec<_> = held.collect();
    match held.is_empty() {
        true => format!("queued in {repository}"),
        false => format!("holding {}, queued in {repository}", held.join(" and ")),
    }
}

fn describe(place: &str, position: usize, reason: &WaitReason, waiting: Waiting) -> String {
    let why = match reason {
        WaitReason::LimitReached { limit, running } => {
            why::limit_reached(*limit, *running, waiting)
        }
        WaitReason::Behind { .. } | WaitReason::Paused(_) | WaitReason::TooHeavy { .. } => {
            why::reason(reason, waiting)
        }
        _ => "next".to_owned(),
    };
    format!("{place} at position {position} ({why})")
}

fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} pac: {msg}  {elapsed}");
    ProgressBar::new_spinner()
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}

fn of(turn: Result<Turn, Error>) -> Result<Waited, Stop> {
    match turn {
        Ok(turn) => Ok(Waited::Turn(turn)),
        Err(error) if error.kind() == ErrorKind::SessionLost => Ok(Waited::PlaceLost),
        Err(error) => Err(error.into()),
    }
}

/// Gives the place up, unless the turn has come at this moment.
async fn give_up(waiter: Waiter, repository: &RepositoryKey) -> Result<Waited, Stop> {
    match timeout(CONFIRM_WITHIN, waiter.wait_for(Duration::ZERO)).await {
        Ok(Ok(Some(turn))) => Ok(Waited::Turn(turn)),
        Ok(Ok(None)) | Err(_) => Err(Stop::TimedOut(repository.clone())),
        Ok(Err(error)) => Err(error.into()),
    }
}
