//! The combiner's right.

use std::sync::Arc;

use crate::error::{Error, ErrorKind};
use crate::manager::registry::Cell;
use crate::manager::repository::effects::Effects;

/// The exclusive right to plan and commit for one repository. Exactly one exists while the
/// repository says that it is busy. Dropping it without [`done`](Self::done) fails all requests.
#[derive(Debug)]
pub(in crate::manager) struct Token(Option<Arc<Cell>>);

impl Token {
    /// For the caller that the repository gave the right to.
    pub(in crate::manager) fn new(cell: Arc<Cell>) -> Self {
        Self(Some(cell))
    }

    /// The repository; `None` once the right is [`done`](Self::done).
    pub(in crate::manager) fn cell(&self) -> Option<&Arc<Cell>> {
        self.0.as_ref()
    }

    /// The repository has taken the right back.
    pub(in crate::manager) fn done(mut self) {
        self.0 = None;
    }
}

/// The right, while its repository is still locked. It takes no [`Token`] where the call has given
/// it back before the lock is released; a panic in between fails all requests, as with a token.
#[derive(Debug)]
pub(in crate::manager) struct Claim<'a> {
    cell: &'a Arc<Cell>,
    pub(in crate::manager) is_granted: bool,
}

impl<'a> Claim<'a> {
    pub(in crate::manager) fn on(cell: &'a Arc<Cell>) -> Self {
        Self {
            cell,
            is_granted: false,
        }
    }

    /// The right, if it was given and not given back.
    pub(in crate::manager) fn token(mut self) -> Option<Token> {
        let granted = std::mem::take(&mut self.is_granted);
        granted.then(|| Token::new(Arc::clone(self.cell)))
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if self.is_granted {
            // A panic under the lock, which is released by now.
            drop(Token::new(Arc::clone(self.cell)));
        }
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        let Some(cell) = self.0.take() else {
            return;
        };
        let why = Error::new(
            ErrorKind::Closed,
            "commit",
            "the work on this repository ended before the answer came: the runtime was shut \
             down, or there is a bug; what was asked for may have happened",
        )
        .in_repository(cell.key());
        let mut effects = Effects::default();
        cell.lock().machine.right_was_dropped(&why, &mut effects);
        for answer in effects.replies {
            if let Some(asker) = answer.asker {
                // Nobody may be listening any more.
                let _ = asker.send(answer.result);
            }
        }
    }
}
