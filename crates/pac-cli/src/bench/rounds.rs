//! Measures two sides in turn, so that other load on the machine affects both alike.

use crate::exit::Failure;

use super::statistics::median;

/// The values of both sides, round by round.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    pub(super) ours: Vec<f64>,
    pub(super) raw: Vec<f64>,
}

impl Rounds {
    /// Alternates between the two sides; a first round of each does not count.
    pub(super) async fn alternate(
        rounds: usize,
        mut ours: impl AsyncFnMut(usize) -> Result<f64, Failure>,
        mut raw: impl AsyncFnMut(usize) -> Result<f64, Failure>,
    ) -> Result<Self, Failure> {
        let mut measured = Self::default();
        for round in 0..=rounds {
            let (store, we) = (raw(round).await?, ours(round).await?);
            if round > 0 {
                measured.raw.push(store);
                measured.ours.push(we);
            }
        }
        Ok(measured)
    }

    pub(super) fn raw(&self) -> f64 {
        median(&self.raw)
    }
}
