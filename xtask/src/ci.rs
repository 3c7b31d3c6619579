//! `cargo xtask ci`: everything that a change must pass, stage by stage.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::mutants;
use crate::run::CommandLine;
use crate::tools::{self, Tool};

/// The command that runs the tests, as the README gives it.
pub(crate) const TEST_COMMAND: &str = "cargo xtask test";

/// Which stages to run; all of them by default.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Run this stage alone
    #[arg(long, value_name = "STAGE", conflicts_with = "from")]
    only: Option<Stage>,
    /// Run this stage and those after it
    #[arg(long, value_name = "STAGE")]
    from: Option<Stage>,
}

/// Runs the stages in order and stops at the first that fails.
pub(crate) fn run(root: &Path, options: &Options) -> Result<()> {
    let mut durations = Vec::new();
    for stage in options.stages() {
        println!("\n==> {stage}");
        let start = Instant::now();
        stage.run(root).with_context(|| {
            format!("stage {stage} failed (rerun it: `cargo xtask ci --only {stage}`)")
        })?;
        let duration = start.elapsed();
        println!("==> {stage} passed in {}", seconds(duration));
        durations.push((stage, duration));
    }
    println!("\n{}", table(&durations));
    Ok(())
}

/// The stages that a change must pass, in this order: the quick ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Stage {
    Fmt,
    Tidy,
    Clippy,
    Deny,
    Features,
    Docs,
    Model,
    Test,
}

impl Stage {
    fn run(self, root: &Path) -> Result<()> {
        for tool in self.tools() {
            tools::ensure(root, tool)?;
        }
        self.commands()
            .iter()
            .try_for_each(|command| command.run(root))
    }

    fn tools(self) -> &'static [Tool] {
        match self {
            Self::Fmt => &[tools::RUSTFMT],
            Self::Tidy => &[tools::GIT],
            Self::Clippy | Self::Features => &[tools::CLIPPY, tools::PROTOC],
            Self::Deny => &[tools::CARGO_DENY],
            Self::Docs => &[tools::PROTOC],
            Self::Model | Self::Test => &[],
        }
    }

    fn commands(self) -> Vec<CommandLine> {
        let lines: &[&str] = match self {
            Self::Fmt => &["cargo fmt --all --check"],
            Self::Tidy => &["cargo xtask tidy"],
            // With fewer features: the stage after the next.
            Self::Clippy => {
                &["cargo clippy --workspace --all-targets --all-features --locked -- -D warnings"]
            }
            // cargo-deny also reads crates that only other platforms build, which a build has
            // not fetched.
            Self::Deny => &[
                "cargo fetch --locked",
                "cargo deny --offline check bans licenses sources",
            ],
            Self::Features => &["cargo xtask features"],
            Self::Docs => {
                let doc = "cargo doc --workspace --no-deps --all-features --locked";
                return vec![CommandLine::new(doc).env("RUSTDOCFLAGS", "-D warnings")];
            }
            Self::Model => &[mutants::MODEL_CHECK],
            Self::Test => &[TEST_COMMAND],
        };
        lines.iter().copied().map(CommandLine::new).collect()
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}

impl Options {
    fn stages(&self) -> Vec<Stage> {
        let chosen = |stage: &Stage| match (self.only, self.from) {
            (Some(only), _) => *stage == only,
            (None, Some(from)) => *stage >= from,
            (None, None) => true,
        };
        Stage::value_variants()
            .iter()
            .copied()
            .filter(chosen)
            .collect()
    }
}

fn table(durations: &[(Stage, Duration)]) -> String {
    let total = durations.iter().map(|(_, duration)| duration).sum();
    let rows = durations
        .iter()
        .map(|(stage, duration)| row(stage, *duration));
    rows.chain([row("total", total)]).collect()
}

fn row(name: impl fmt::Display, duration: Duration) -> String {
    format!("{name:<10}{:>10}\n", seconds(duration))
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_stages_run_by_default_and_the_tests_come_last() {
        let options = Options {
            only: None,
            from: None,
        };
        assert_eq!(options.stages(), Stage::value_variants());
        assert_eq!(options.stages().last(), Some(&Stage::Test));
    }

    #[test]
    fn stages_can_be_chosen() {
        let only = Options {
            only: Some(Stage::Deny),
            from: None,
        };
        assert_eq!(only.stages(), [Stage::Deny]);
        let from = Options {
            only: None,
            from: Some(Stage::Docs),
        };
        assert_eq!(from.stages(), [Stage::Docs, Stage::Model, Stage::Test]);
    }

    #[test]
    fn the_table_ends_with_the_sum() {
        let second = Duration::from_secs(1);
        let table = table(&[(Stage::Fmt, second), (Stage::Test, second)]);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(
            lines,
            [
                "fmt            1.0 s",
                "test           1.0 s",
                "total          2.0 s"
            ]
        );
    }
}
