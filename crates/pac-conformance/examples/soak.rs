//! Random commands for as long as the caller asks: `cargo xtask soak` builds and runs this.
//!
//! Arguments: the first seed, the least number of cases, the least number of seconds. Ends with
//! the first failure, or once both numbers are reached.

#![allow(
    clippy::print_stdout,
    clippy::panic,
    reason = "a program for a person to watch, which fails by panicking"
)]

use std::env;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pac_conformance::Production;
use pac_conformance::random::{self, Failure, Search};
use pac_core::driver::Driver;
use pac_memory::{MemoryDriver, MemoryOptions};

/// The number of cases per seed: few enough to repeat one seed within seconds.
const CASES: u32 = 500;
/// One manager case for this many protocol cases: manager cases take longer.
const MANAGERS: u32 = 5;
/// The time between two progress lines.
const PROGRESS: Duration = Duration::from_secs(10);

fn main() {
    let mut arguments = env::args().skip(1).map(|argument| argument.parse::<u64>());
    let mut next = || match arguments.next() {
        Some(Ok(number)) => number,
        other => panic!("three numbers are needed: seed, cases, seconds; not {other:?}"),
    };
    let (first, cases, seconds) = (next(), next(), next());
    let (start, least) = (Instant::now(), Duration::from_secs(seconds));
    let mut told = Instant::now();
    let mut tried = 0_u64;
    let mut seed = first;
    while tried < cases || start.elapsed() < least {
        if let Err(failure) = try_seed(seed) {
            println!("{failure}");
            println!("to repeat it: cargo xtask soak --seed {seed} --cases 1 --sequences 0");
            std::process::exit(1);
        }
        tried += u64::from(CASES + CASES / MANAGERS);
        seed = seed.wrapping_add(1);
        if told.elapsed() > PROGRESS {
            told = Instant::now();
            let elapsed = start.elapsed().as_secs();
            println!("{tried} cases in {elapsed} s, up to seed {seed}");
        }
    }
    let elapsed = start.elapsed().as_secs();
    println!("nothing found in {tried} cases, {elapsed} s, from seed {first} on");
}

fn try_seed(seed: u64) -> Result<(), Failure> {
    let cases = |cases| Search { seed, cases };
    random::rules(&Production, cases(CASES))?;
    random::manager(&memory, cases(CASES / MANAGERS))
}

fn memory() -> Arc<dyn Driver> {
    Arc::new(MemoryDriver::new(MemoryOptions::default()))
}
