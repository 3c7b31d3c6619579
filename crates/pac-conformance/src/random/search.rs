//! The search for a sequence of steps that fails, and its reduction.

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::check::Check;

/// The random sequences to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Search {
    /// The same seed tries the same sequences.
    pub seed: u64,
    /// The number of sequences.
    pub cases: u32,
}

impl Search {
    pub(super) fn runner(self) -> TestRunner {
        let config = Config {
            cases: self.cases,
            // A failure is repeated by its seed, without a file beside the sources.
            failure_persistence: None,
            source_file: None,
            max_shrink_iters: 1_000,
            ..Config::default()
        };
        let mut seed = [0; 32];
        for (part, byte) in seed.chunks_mut(8).zip(1_u64..) {
            part.copy_from_slice(&(self.seed.wrapping_mul(byte)).to_le_bytes());
        }
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        TestRunner::new_with_rng(config, rng)
    }
}

/// A violation, and a sequence of steps of which none could be left out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{check}: {message}\nshown by these {} steps:\n{}found with seed {} in at most {} cases",
    .steps.len(),
    listed(.steps),
    .search.seed,
    .search.cases
)]
pub struct Failure {
    /// The check that failed.
    pub check: Check,
    /// The check's message.
    pub message: String,
    /// The steps and their results, in words.
    pub steps: Vec<String>,
    /// The search that found it, which finds it again.
    pub search: Search,
}

/// The steps, numbered, each on a line of its own.
fn listed(steps: &[String]) -> String {
    let lines = (1..).zip(steps);
    lines
        .map(|(number, step)| format!("{number:>4}. {step}\n"))
        .collect()
}

/// Leaves out, one after the other, the steps without which the sequence still fails.
pub(super) fn shortest<S: Clone>(mut steps: Vec<S>, fails: impl Fn(&[S]) -> bool) -> Vec<S> {
    let mut at = steps.len();
    while at > 0 {
        at -= 1;
        let mut fewer = steps.clone();
        fewer.remove(at);
        if fails(&fewer) {
            steps = fewer;
            at = steps.len();
        }
    }
    steps
}
