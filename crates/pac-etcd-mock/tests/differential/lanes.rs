//! Random sequences on two servers, in several lanes beside each other: each lane has its own pair.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use proptest::strategy::BoxedStrategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use super::operation::{Op, Txn, TxnOp};
use super::quirks::Quirks;
use super::servers::{Kind, Running};
use super::side::Side;

/// More than cores, since a lane often waits until etcd has looked for old events, which it does
/// every 100 ms.
const LANES: u64 = 4;

/// The search for a shorter sequence ends after so many attempts, or so long.
const ATTEMPTS: u32 = 2_000;
const SEARCH: Duration = Duration::from_secs(90);

/// The stack of a lane: strategies of nested transactions need more than the usual one.
const STACK: usize = 32 << 20;

/// What is compared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) left: Kind,
    pub(crate) right: Kind,
    /// Whether the sequences are about users and what they may do.
    pub(crate) with_users: bool,
    pub(crate) sequences: fn() -> BoxedStrategy<Vec<Op>>,
    pub(crate) count: u64,
    pub(crate) seed: u64,
}

/// The number of operations by kind.
type Tally = BTreeMap<&'static str, u64>;

impl Plan {
    /// Runs the sequences, and tells what was compared. The error is the shortest sequence that was
    /// found on which the servers differ.
    pub(crate) fn run(self) -> Result<(), String> {
        let begun = Instant::now();
        let lanes = LANES.min(self.count);
        let running: Vec<_> = (0..lanes)
            .map(|lane| {
                let builder = thread::Builder::new().stack_size(STACK);
                let run = move || self.lane(lane, self.count.div_ceil(lanes) as u32);
                builder.spawn(run).unwrap()
            })
            .collect();
        let mut tally = Tally::new();
        let mut versions = String::new();
        let mut differences = Vec::new();
        for lane in running {
            match lane.join().unwrap() {
                Ok((counted, named)) => {
                    versions = named;
                    for (kind, count) in counted {
                        *tally.entry(kind).or_default() += count;
                    }
                }
                Err(found) => differences.push(found),
            }
        }
        differences.sort_by_key(String::len);
        if let Some(difference) = differences.first() {
            let (name, seed) = (self.name, self.seed);
            return Err(format!(
                "{name}: {difference}\nto repeat it: PAC_TEST_SEED={seed}, and \
                 PAC_TEST_SEQUENCES as it was"
            ));
        }
        let all: u64 = tally.values().sum();
        let kinds: Vec<_> = tally
            .iter()
            .map(|(kind, n)| format!("{kind} {n}"))
            .collect();
        let kinds = kinds.join(", ");
        let (sequences, seconds) = (
            self.count.div_ceil(lanes) * lanes,
            begun.elapsed().as_secs(),
        );
        // Not through `println!`, which the test harness keeps to itself.
        let line = format!(
            "{}: {versions} agree on {sequences} sequences of {all} operations ({kinds}), \
             {seconds} s, seed {}\n",
            self.name, self.seed
        );
        std::io::stdout().write_all(line.as_bytes()).unwrap();
        Ok(())
    }

    fn lane(self, lane: u64, count: u32) -> Result<(Tally, String), String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let (pair, versions) = runtime.block_on(Pair::start(self));
        let pair = RefCell::new(pair);
        let tally = RefCell::new(Tally::new());
        let mut runner = self.runner(lane, count);
        let found = runner.run(&(self.sequences)(), |ops| {
            let difference = runtime.block_on(pair.borrow_mut().difference(&ops));
            match difference {
                Some(difference) => Err(TestCaseError::fail(difference)),
                None => {
                    let mut tally = tally.borrow_mut();
                    ops.iter().for_each(|op| count_op(op, &mut tally));
                    Ok(())
                }
            }
        });
        match found {
            Ok(()) => Ok((tally.into_inner(), versions)),
            // The reason has the sequence in it, with the answers.
            Err(TestError::Fail(reason, _)) => {
                Err(format!("lane {lane}: {versions} differ: {reason}"))
            }
            Err(found) => Err(format!("lane {lane}: {versions}: {found}")),
        }
    }

    fn runner(self, lane: u64, cases: u32) -> TestRunner {
        let config = Config {
            cases,
            failure_persistence: None,
            source_file: None,
            max_shrink_iters: ATTEMPTS,
            max_shrink_time: u32::try_from(SEARCH.as_millis()).unwrap(),
            ..Config::default()
        };
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&lane.to_le_bytes());
        seed[16] = u8::from(self.with_users);
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
    }
}

fn count_op(op: &Op, tally: &mut Tally) {
    *tally.entry(op.kind()).or_default() += 1;
    if let Op::Txn(txn) = op {
        count_txn(txn, tally);
    }
}

fn count_txn(txn: &Txn, tally: &mut Tally) {
    for op in txn.success.iter().chain(&txn.failure) {
        *tally.entry("in a txn").or_default() += 1;
        if let TxnOp::Txn(txn) = op {
            count_txn(txn, tally);
        }
    }
}

/// Two servers that should behave the same.
struct Pair {
    left: Side,
    right: Side,
    /// The last sequence.
    before: Vec<Op>,
    _servers: [Running; 2],
}

impl Pair {
    /// Starts both; returns their versions too.
    async fn start(plan: Plan) -> (Self, String) {
        let servers = [plan.left.start().await, plan.right.start().await];
        let [left, right] = &servers;
        let versions = [left.version().await, right.version().await];
        let [left_version, right_version] = &versions;
        // The mock does as the newest versions do, whatever version it claims to be.
        let of_etcd = |kind, version| match kind {
            Kind::Mock | Kind::Forgetful => "",
            _ => version,
        };
        let quirks = Quirks::of([
            of_etcd(plan.left, left_version),
            of_etcd(plan.right, right_version),
        ]);
        let names = format!(
            "{} and {}",
            named(plan.left, left_version),
            named(plan.right, right_version)
        );
        let side = |server: &Running| Side::new(&server.wire, plan.with_users, quirks);
        let pair = Self {
            left: side(left),
            right: side(right),
            before: Vec::new(),
            _servers: servers,
        };
        (pair, names)
    }

    /// Runs a sequence on both; describes the first difference.
    async fn difference(&mut self, ops: &[Op]) -> Option<String> {
        let before = std::mem::replace(&mut self.before, ops.to_vec());
        let (left, right) = match tokio::join!(self.left.run(ops), self.right.run(ops)) {
            (Ok(left), Ok(right)) => (left, right),
            (left, right) => {
                let (left, right) = (left.err(), right.err());
                // Nothing more can be found on a server that has crashed.
                self.before.clone_from(&before);
                return Some(format!(
                    "not cleaned: left {left:?}, right {right:?}, after {before:#?}"
                ));
            }
        };
        let count = left.len().max(right.len());
        let line = |lines: &[String], at: usize| lines.get(at).cloned().unwrap_or_default();
        let at = (0..count).find(|at| line(&left, *at) != line(&right, *at))?;
        let mut text = String::new();
        for (number, op) in ops.iter().enumerate().take(at) {
            let answer = line(&left, number);
            writeln!(text, "\n{number:>3}. {op:?}\n     {answer}").unwrap();
        }
        match ops.get(at) {
            Some(op) => writeln!(text, "\n{at:>3}. {op:?}, to which the answers differ:"),
            None => writeln!(text, "\nand what remains differs:"),
        }
        .unwrap();
        let (left, right) = (line(&left, at), line(&right, at));
        writeln!(text, "left  {left}\nright {right}").unwrap();
        Some(text)
    }
}

fn named(kind: Kind, version: &str) -> String {
    match kind {
        Kind::Etcd(_) => format!("etcd {version}"),
        Kind::Mock | Kind::Forgetful => format!("the mock of {version}"),
    }
}
