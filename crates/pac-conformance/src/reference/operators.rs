//! Runs that others end, ask to end, or move; and runs whose time is over.

use super::{Answer, Asker, Bump, GRACE, How, Place, Repository, Run, Way, Which};

/// What is done to a run.
enum Deed {
    End(How),
    Ask,
}

impl Repository {
    pub(super) fn cancel(
        &mut self,
        asker: Asker,
        (name, uid): (u8, Option<u8>),
        way: Way,
    ) -> Answer {
        match (self.place_of(name, uid), way) {
            (None, _) => Answer::Unknown,
            (Some(Place::Over { how, .. }), _) => Answer::EndedBefore(how),
            (Some(Place::Running { token, .. }), Way::IfWaiting) => Answer::Started(token),
            (Some(Place::Running { token, .. }), Way::Ask) => {
                self.ask_to_end(name);
                Answer::Asked(token)
            }
            (Some(_), _) => self.end(asker, name, How::Cancelled, false),
        }
    }

    pub(super) fn cancel_all(&mut self, asker: Asker, which: Which, way: Way) -> Answer {
        self.sweep(asker, |run| {
            let of_group = which
                .group
                .is_none_or(|group| run.terms.group == Some(group));
            let in_time = which.before.is_none_or(|before| run.queued < before);
            let end = Deed::End(How::Cancelled);
            match (run.place, way) {
                _ if !of_group || !in_time => None,
                (Place::Over { .. }, _) | (Place::Running { .. }, Way::IfWaiting) => None,
                (Place::Running { .. }, Way::Ask) => run.asked.is_none().then_some(Deed::Ask),
                _ => Some(end),
            }
        })
    }

    pub(super) fn time_out(&mut self, asker: Asker) -> Answer {
        let clock = self.clock;
        let is_over = |since: u64, longest: Option<u64>| {
            longest.is_some_and(|longest| since.saturating_add(longest) <= clock)
        };
        let end = || Some(Deed::End(How::TimedOut));
        self.sweep(asker, |run| match run.place {
            Place::Waiting { .. } if is_over(run.queued, run.terms.max_wait) => end(),
            Place::Running { .. } if is_over(run.started?, run.terms.max_hold) => match run.asked {
                None => Some(Deed::Ask),
                Some(asked) if is_over(asked, Some(GRACE)) => end(),
                Some(_) => None,
            },
            _ => None,
        })
    }

    /// Does to each run what is to be done to it, in the order of arrival.
    fn sweep(&mut self, asker: Asker, deed: impl Fn(&Run) -> Option<Deed>) -> Answer {
        let runs = self.runs.iter();
        let mut meant: Vec<_> = runs
            .filter_map(|run| Some((run.ticket, run.name, deed(run)?)))
            .collect();
        meant.sort_by_key(|(ticket, _, _)| *ticket);
        let mut touched = Vec::new();
        for (_, name, deed) in meant {
            touched.push(name);
            match deed {
                Deed::End(how) => self.finish(name, how, false),
                Deed::Ask => self.ask_to_end(name),
            }
        }
        Answer::Swept(touched, self.start_all(asker))
    }

    /// Once; the first time counts.
    pub(super) fn ask_to_end(&mut self, name: u8) {
        let clock = self.clock;
        self.change(name, |run| run.asked = run.asked.or(Some(clock)));
    }

    pub(super) fn bump(&mut self, asker: Asker, (name, uid): (u8, Option<u8>), to: Bump) -> Answer {
        let meant = |run: &&Run| run.is_waiting() && uid.is_none_or(|uid| uid == run.uid);
        let Some(run) = self.run(name).filter(meant) else {
            return Answer::Moved(Box::new(Answer::NotHeld), Vec::new());
        };
        let wanted = run.wanted.unwrap_or(run.priority);
        let priority = match to {
            Bump::To(priority) => priority,
            Bump::Back => wanted,
            Bump::First => match self.queue().first() {
                Some(first) if first.name != name => first.priority.saturating_add(1),
                _ => run.priority,
            },
        };
        self.change(name, |run| {
            run.priority = priority;
            run.wanted = Some(wanted).filter(|wanted| *wanted != priority);
        });
        let started = self.start_all(asker);
        Answer::Moved(Box::new(self.stands(name, false)), started)
    }
}
