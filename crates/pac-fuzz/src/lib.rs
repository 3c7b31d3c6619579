//! Fuzzing on stable Rust, as a test: the files of a small corpus as they are, and mutations of
//! them, are handed to a check that fails by a panic. A failing input is shrunk.
//!
//! A target takes one test, which may use what its crate keeps to itself, and one directory:
//!
//! ```no_run
//! // In `crates/pac-example/src/number.rs`; the corpus is `crates/pac-example/fuzz/number/*`.
//! #[cfg(test)]
//! mod fuzz {
//!     #[test]
//!     fn fuzz_number() {
//!         pac_fuzz::text(env!("CARGO_MANIFEST_DIR"), "number", |text| {
//!             let _ = text.parse::<u64>();
//!         });
//!     }
//! }
//! ```
//!
//! The name of the test begins with `fuzz_`, by which `cargo xtask soak` finds it; the crate has
//! `pac-fuzz` among its `dev-dependencies`.
//!
//! Without further ado a target tries the same few thousand inputs each time, for some seconds at
//! most. `PAC_FUZZ_SECONDS` has it go on for so long, and `PAC_FUZZ_SEED` begin elsewhere.

mod mutation;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};

/// How many mutations are tried without `PAC_FUZZ_SECONDS`: those of about ten corpora.
const USUAL_INPUTS: u64 = 4_096;

/// No longer than so many seconds without `PAC_FUZZ_SECONDS`, so that a slow check does not delay
/// all other tests.
const USUAL_SECONDS: u64 = 4;

/// Mutations that are tried between two looks at the clock.
const ROUND: u32 = 128;

/// A check of one input that takes longer than so counts as one that never ends. All checks take
/// milliseconds, also on a loaded machine.
const HANGS: Duration = Duration::from_secs(120);

/// How often a failing input is made smaller, at most.
const SHRINKS: u32 = 4_096;

/// Hands the corpus in `fuzz/{target}` of the crate at `crate_directory`, and mutations of it, to
/// `check`.
///
/// # Panics
/// If `check` panics; the message has the smallest input found for which it does. If there is no
/// corpus, or if one input takes minutes.
pub fn bytes(crate_directory: &str, target: &str, check: impl Fn(&[u8]) + Send + Sync + 'static) {
    let directory = Path::new(crate_directory).join("fuzz").join(target);
    let corpus = corpus(&directory);
    assert!(
        !corpus.is_empty(),
        "{}: holds no file; a target needs a corpus",
        directory.display()
    );
    let failure = watched(HANGS, move |trying| {
        first_failure(&corpus, Bounds::of_environment(), |input| {
            trying.of(input);
            check(input);
        })
    });
    let place = directory.display();
    assert!(
        failure.is_none(),
        "{}\nkeep it: a file with this input in {place}",
        failure.unwrap_or_default()
    );
}

/// Like [`bytes`], for a check of text: what is no UTF-8 is replaced.
///
/// # Panics
/// As [`bytes`].
pub fn text(crate_directory: &str, target: &str, check: impl Fn(&str) + Send + Sync + 'static) {
    bytes(crate_directory, target, move |input| {
        check(&String::from_utf8_lossy(input));
    });
}

/// How many inputs are tried, and which.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    seed: u64,
    inputs: u64,
    time: Duration,
}

impl Bounds {
    fn of_environment() -> Self {
        let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
        let seconds: Option<u64> = number("PAC_FUZZ_SECONDS");
        Self {
            seed: number("PAC_FUZZ_SEED").unwrap_or(0),
            inputs: if seconds.is_some() {
                u64::MAX
            } else {
                USUAL_INPUTS
            },
            time: Duration::from_secs(seconds.unwrap_or(USUAL_SECONDS)),
        }
    }
}

/// The files of a directory, in the order of their names. Empty if it cannot be read.
fn corpus(directory: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
        .iter()
        .filter_map(|path| fs::read(path).ok())
        .collect()
}

/// What came of the first input that `check` panics on.
fn first_failure(corpus: &[Vec<u8>], bounds: Bounds, check: impl Fn(&[u8])) -> Option<String> {
    let deadline = Instant::now() + bounds.time;
    let unchanged = proptest::sample::select(corpus.to_vec());
    let as_it_is = u32::try_from(corpus.len()).unwrap_or(u32::MAX);
    // Each file several times, so that none is left out by chance.
    if let Some(failure) = round(bounds.seed, as_it_is.saturating_mul(8), &unchanged, &check) {
        return Some(failure);
    }
    let mutated = mutation::inputs(corpus.to_vec());
    let mut tried = 0;
    let mut seed = bounds.seed;
    while tried < bounds.inputs && Instant::now() < deadline {
        if let Some(failure) = round(seed, ROUND, &mutated, &check) {
            return Some(failure);
        }
        tried += u64::from(ROUND);
        seed = seed.wrapping_add(1);
    }
    None
}

fn round(
    seed: u64,
    inputs: u32,
    strategy: &impl proptest::strategy::Strategy<Value = Vec<u8>>,
    check: &impl Fn(&[u8]),
) -> Option<String> {
    let config = Config {
        cases: inputs,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: SHRINKS,
        ..Config::default()
    };
    let tried = TestRunner::new(config).run(strategy, |input| {
        check(&input);
        Ok(())
    });
    match tried {
        Ok(()) => None,
        Err(TestError::Fail(why, input)) => Some(format!(
            "{why}\nfor the input \"{}\" (PAC_FUZZ_SEED={seed})",
            input.escape_ascii()
        )),
        Err(TestError::Abort(why)) => Some(format!("nothing could be tried: {why}")),
    }
}

/// The input that is being checked.
#[derive(Clone)]
struct Trying {
    input: Arc<Mutex<Vec<u8>>>,
    alive: Sender<()>,
}

impl Trying {
    fn of(&self, input: &[u8]) {
        let mut trying = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        input.clone_into(&mut trying);
        // The other side has gone only if it has given this one up.
        let _ = self.alive.send(());
    }
}

/// Does the work on a thread of its own, and gives it up when one input takes longer than `hangs`.
fn watched(
    hangs: Duration,
    work: impl FnOnce(&Trying) -> Option<String> + Send + 'static,
) -> Option<String> {
    let (alive, signs) = mpsc::channel();
    let trying = Trying {
        input: Arc::default(),
        alive,
    };
    let input = Arc::clone(&trying.input);
    let worker = thread::spawn(move || work(&trying));
    loop {
        match signs.recv_timeout(hangs) {
            Ok(()) => {}
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let input = input.lock().unwrap_or_else(PoisonError::into_inner);
                return Some(format!(
                    "the check does not end for the input \"{}\"",
                    input.escape_ascii()
                ));
            }
        }
    }
    worker
        .join()
        .unwrap_or_else(|_| Some("the thread of the checks has panicked".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        seed: 0,
        inputs: 4_096,
        time: Duration::from_secs(60),
    };

    #[test]
    fn an_input_that_panics_is_found_shrunk_and_shown() {
        let corpus = [b"key: value".to_vec(), b"other".to_vec()];
        let failure = first_failure(&corpus, BOUNDS, |input| {
            assert!(!input.contains(&b'\n'), "a line break");
        });
        let failure = failure.unwrap();
        assert!(failure.contains("a line break"), "{failure}");
        assert!(failure.contains("\\n"), "{failure}");
    }

    #[test]
    fn the_corpus_itself_is_tried() {
        let corpus: Vec<_> = (0..20).map(|n| format!("file {n}").into_bytes()).collect();
        let no_mutation = Bounds {
            inputs: 0,
            ..BOUNDS
        };
        let failure = first_failure(&corpus, no_mutation, |input| {
            assert_ne!(input, b"file 13");
        });
        assert!(failure.unwrap().contains("file 13"));
        assert_eq!(first_failure(&corpus, no_mutation, |_| {}), None);
    }

    #[test]
    fn the_same_seed_tries_the_same_inputs() {
        let inputs = |seed| {
            let seen = Mutex::new(Vec::new());
            let bounds = Bounds {
                seed,
                inputs: 256,
                ..BOUNDS
            };
            let none = first_failure(&[b"abc".to_vec()], bounds, |input| {
                seen.lock().unwrap().push(input.to_vec());
            });
            assert_eq!(none, None);
            seen.into_inner().unwrap()
        };
        let first = inputs(1);
        assert_eq!(first, inputs(1));
        assert_ne!(first, inputs(1_000));
        assert!(first.iter().any(|input| input.len() > 3));
        assert!(first.iter().any(|input| input.len() < 3));
    }

    #[test]
    fn an_input_that_takes_for_ever_is_shown() {
        let failure = watched(Duration::from_millis(50), |trying| {
            trying.of(b"for ever");
            thread::park();
            None
        });
        assert!(failure.unwrap().contains("for ever"));
    }

    #[test]
    #[should_panic(expected = "a target needs a corpus")]
    fn a_target_without_a_corpus_is_refused() {
        bytes(env!("CARGO_MANIFEST_DIR"), "none", |_| {});
    }
}
