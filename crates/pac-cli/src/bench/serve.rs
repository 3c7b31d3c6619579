//! What a worker process does, for each kind of work.

use super::place::Place;
use super::worker::{Asked, Task, Work};
use super::{contended, peers, size, wakeup};
use crate::exit::Failure;

/// Does the task, until the other process closes this one's standard input.
pub(super) async fn run(place: &Place, task: &Task) -> Result<(), Failure> {
    let mut asked = Asked::here();
    match task.work {
        Work::Contend { number, round } => {
            contended::take_part(place, number, round, &mut asked).await
        }
        Work::Wait => wakeup::take_part(place, &mut asked).await,
        Work::Keep { peer, limit, tasks } => {
            peers::take_part(place, peer, limit, tasks, &mut asked).await
        }
        Work::Populate { repositories } => size::populate(place, repositories, &mut asked).await,
        Work::Queue { ref tag, entries } => size::queue(place, tag, entries, &mut asked).await,
        Work::Know {
            ref tag,
            repositories,
        } => size::know(place, tag, repositories, &mut asked).await,
    }
}
