//! Running commands: each is shown before it runs, and a failure names it.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    // Cargo sets the variable for `cargo run`. The compiled-in path may be that of another clone
    // that shares the target directory.
    let manifest_dir = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest_dir
        .parent()
        .map_or_else(|| manifest_dir.clone(), Path::to_path_buf)
}

/// A command line as a person types it: `NAME='a value' program argument`.
#[derive(Debug, Clone)]
pub(crate) struct CommandLine {
    env: Vec<(String, String)>,
    words: Vec<String>,
}

impl CommandLine {
    /// A command line of words separated by white space.
    pub(crate) fn new(line: &str) -> Self {
        Self {
            env: Vec::new(),
            words: line.split_whitespace().map(str::to_owned).collect(),
        }
    }

    /// A command line of this program.
    pub(crate) fn program(path: &Path) -> Self {
        Self {
            env: Vec::new(),
            words: vec![path.to_string_lossy().into_owned()],
        }
    }

    /// Adds an environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds one argument, without splitting it.
    pub(crate) fn arg(mut self, arg: impl Into<String>) -> Self {
        self.words.push(arg.into());
        self
    }

    /// Runs the command at the root of the workspace; any status but success is an error.
    pub(crate) fn run(&self, root: &Path) -> Result<()> {
        println!("$ {self}");
        let status = self
            .command(root)?
            .status()
            .with_context(|| self.cannot_run())?;
        if !status.success() {
            bail!("`{self}` failed ({status})");
        }
        Ok(())
    }

    /// Runs the command like [`CommandLine::run`], prints every line of its standard output at
    /// once, and passes it to `each_line` too. True on success.
    pub(crate) fn run_watched(&self, root: &Path, mut each_line: impl FnMut(&str)) -> Result<bool> {
        println!("$ {self}");
        let mut child = self
            .command(root)?
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| self.cannot_run())?;
        let stdout = child
            .stdout
            .take()
            .context("a piped output is there to take")?;
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            let text = String::from_utf8_lossy(&line);
            print!("{text}");
            each_line(text.trim_end());
            line.clear();
        }
        Ok(child.wait()?.success())
    }

    /// Runs the command and returns its standard output as text. Its stderr is shown.
    pub(crate) fn output(&self, root: &Path) -> Result<String> {
        let output = self
            .command(root)?
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| self.cannot_run())?;
        if !output.status.success() {
            bail!("`{self}` failed ({})", output.status);
        }
        String::from_utf8(output.stdout).with_context(|| format!("`{self}` wrote no valid UTF-8"))
    }

    /// The first line of the command's standard output; `None` if it cannot run or fails.
    pub(crate) fn probe(&self, root: &Path) -> Option<String> {
        let output = self
            .command(root)
            .ok()?
            .stderr(Stdio::null())
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        output
            .status
            .success()
            .then(|| text.lines().next().unwrap_or_default().to_owned())
    }

    fn command(&self, root: &Path) -> Result<Command> {
        let (program, args) = self.words.split_first().context("an empty command line")?;
        let mut command = Command::new(program);
        if let Some(protoc) = own_protoc(root).filter(|_| env::var_os("PROTOC").is_none()) {
            command.env("PROTOC", protoc);
        }
        command
            .args(args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(root)
            .stdin(Stdio::null());
        Ok(command)
    }

    fn cannot_run(&self) -> String {
        format!("cannot run `{self}`")
    }
}

impl std::fmt::Display for CommandLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let env = self
            .env
            .iter()
            .map(|(name, value)| format!("{name}={}", quoted(value)));
        let words = self.words.iter().map(|word| quoted(word));
        f.write_str(&env.chain(words).collect::<Vec<_>>().join(" "))
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@{}".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// The value for `PROTOC`, if builds must use the program below `target` instead of the
/// system's.
pub(crate) fn own_protoc(root: &Path) -> Option<PathBuf> {
    let protoc = root.join("target/tools/bin/protox");
    protoc.is_file().then_some(protoc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_shown_so_that_it_can_be_pasted() {
        let line = CommandLine::new("cargo doc --locked")
            .env("RUSTDOCFLAGS", "-D warnings")
            .arg("it's");
        assert_eq!(
            line.to_string(),
            r"RUSTDOCFLAGS='-D warnings' cargo doc --locked 'it'\''s'"
        );
    }

    #[test]
    fn a_failing_command_is_an_error_that_names_it() {
        let error = CommandLine::new("false").run(Path::new(".")).unwrap_err();
        assert!(error.to_string().starts_with("`false` failed"), "{error}");
        let error = CommandLine::new("no-such-program-here")
            .run(Path::new("."))
            .unwrap_err();
        assert!(error.to_string().starts_with("cannot run"), "{error}");
    }

    #[test]
    fn a_watched_command_hands_over_its_lines_and_its_result() {
        let mut lines = Vec::new();
        let line = CommandLine::new("sh -c").arg("echo one; echo two; exit 3");
        let success = line
            .run_watched(Path::new("."), |line| lines.push(line.to_owned()))
            .unwrap();
        assert_eq!(lines, ["one", "two"]);
        assert!(!success);
    }
}
