//! Runs an external program to its end: with a time limit, bounded output, and its own words in the error.

use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::duration;
use crate::escape;
use crate::system::program_path;
use crate::system::sink::Sink;

/// After how long it is said what is waited for, and how often after that.
const FIRST_NOTICE: Duration = Duration::from_secs(10);
const NEXT_NOTICE: Duration = Duration::from_secs(60);

tokio::task_local! {
    /// Where it is said what is waited for.
    static NOTICES: Sink;
}

/// Does `work`, and says which external program it waits for where one takes long.
pub async fn announcing<T>(sink: Sink, work: impl Future<Output = T>) -> T {
    NOTICES.scope(sink, work).await
}

/// Most bytes of standard output, where the caller names no other limit.
const OUTPUT_LIMIT: usize = 64 << 20;
/// Bytes of standard error that are kept, from its end.
const ERROR_LIMIT: usize = 64 << 10;
/// Longest line of a program in an error, in characters.
const LINE_LIMIT: usize = 300;

/// A program to run.
#[derive(Debug)]
pub struct Program<'a> {
    /// A path, or a name that is looked for on `PATH`, in absolute folders alone.
    pub name: &'a Path,
    pub arguments: &'a [&'a str],
    /// Its whole environment.
    pub variables: &'a [(&'a str, &'a str)],
    /// Where it runs; `None` is the current folder.
    pub folder: Option<&'a Path>,
    pub stdin: &'a [u8],
    /// When this time has passed, its process group is killed.
    pub limit: Duration,
}

/// A program that ended by itself, whatever its status.
#[derive(Debug)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: Vec<u8>,
    stderr: Vec<u8>,
}

/// Why a program did not run to its end.
#[derive(Debug)]
pub enum Failure {
    NotFound,
    Io(std::io::Error),
    TooSlow(Duration),
    TooMuchOutput(usize),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no such program"),
            Self::Io(error) => write!(f, "{error}"),
            Self::TooSlow(limit) => write!(f, "it did not end within {}", duration::text(*limit)),
            Self::TooMuchOutput(limit) => write!(f, "it printed more than {} MiB", limit >> 20),
        }
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == ErrorKind::NotFound { Self::NotFound } else { Self::Io(error) }
    }
}

impl Output {
    /// Standard output as text, without white space at its end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }

    /// Standard output of a program that succeeded; else the error holds its status and the line that `line` picks.
    pub fn checked(self, line: fn(&Self) -> String) -> Result<Self> {
        if !self.status.success() {
            bail!("{}: {}", self.status, line(&self));
        }
        Ok(self)
    }

    /// The first line of what it printed as an error.
    pub fn first_line(&self) -> String {
        shown(self.message().lines().find(|line| !line.trim().is_empty()))
    }

    /// The last line of what it printed as an error.
    pub fn last_line(&self) -> String {
        shown(self.message().lines().rev().find(|line| !line.trim().is_empty()))
    }

    /// Standard error as text.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Standard error, or standard output where that is empty.
    pub fn message(&self) -> String {
        let stream = if self.stderr.trim_ascii().is_empty() { &self.stdout } else { &self.stderr };
        String::from_utf8_lossy(stream).into_owned()
    }
}

/// A line of bounded length, without control characters.
fn shown(line: Option<&str>) -> String {
    escape::clean(line.unwrap_or("no message").trim(), LINE_LIMIT)
}

/// Runs a program and returns what it printed. It gets a process group of its own, which is killed when the time limit has
/// passed, when it prints too much, and when the work is cancelled.
pub async fn run(program: &Program<'_>) -> Result<Output, Failure> {
    run_within(program, OUTPUT_LIMIT).await
}

/// [`run`] for a program that may print at most `output_limit` bytes to standard output.
#[expect(clippy::disallowed_methods, reason = "every external program that is run to its end is started here")]
pub async fn run_within(program: &Program<'_>, output_limit: usize) -> Result<Output, Failure> {
    let path = program.variables.iter().find(|(name, _)| *name == "PATH").map_or("", |(_, path)| path);
    let path = program_path::find(program.name, path).ok_or(Failure::NotFound)?;
    let mut command = Command::new(path);
    command.args(program.arguments).process_group(0).kill_on_drop(true);
    command.env_clear().envs(program.variables.iter().copied());
    if let Some(folder) = program.folder {
        command.current_dir(folder);
    }
    command.stdin(if program.stdin.is_empty() { Stdio::null() } else { Stdio::piped() });
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw));
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let work = async {
        let feed = async {
            if let Some(mut stdin) = stdin {
                // A program that ends before it reads closes the pipe; its status and message say more than that error.
                let _ = stdin.write_all(program.stdin).await;
            }
            Ok(())
        };
        let (_, stdout, stderr) = tokio::try_join!(feed, all_of(stdout, output_limit), end_of(stderr))?;
        Ok(Output { status: child.wait().await?, stdout, stderr })
    };
    let output = tokio::select! {
        output = tokio::time::timeout(program.limit, work) => output.unwrap_or(Err(Failure::TooSlow(program.limit)))?,
        never = announce(program) => never,
    };
    group.0 = None;
    Ok(output)
}

/// Says that the program is waited for, as long as it is.
async fn announce(program: &Program<'_>) -> ! {
    let (mut waited, mut pause) = (Duration::ZERO, FIRST_NOTICE);
    loop {
        tokio::time::sleep(pause).await;
        waited += pause;
        pause = NEXT_NOTICE;
        let _ = NOTICES.try_with(|sink| sink.err(&waiting(program, waited)));
    }
}

/// `docker image inspect` has not ended after 10 s (limit 2 min).
fn waiting(program: &Program<'_>, waited: Duration) -> String {
    let name = program.name.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let words = program.arguments.iter().take_while(|word| !word.starts_with('-')).take(2).copied();
    let command = std::iter::once(name.as_str()).chain(words).collect::<Vec<_>>().join(" ");
    let limit = match program.limit {
        Duration::MAX => String::new(),
        limit => format!(" (limit {})", duration::text(limit)),
    };
    format!("`{command}` has not ended after {}{limit}", duration::text(waited))
}

/// Kills a process group when it is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = killpg(group, Signal::SIGKILL);
        }
    }
}

async fn all_of(stream: Option<impl AsyncRead + Unpin>, limit: usize) -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    let Some(stream) = stream else { return Ok(content) };
    stream.take(limit as u64 + 1).read_to_end(&mut content).await?;
    if content.len() > limit { Err(Failure::TooMuchOutput(limit)) } else { Ok(content) }
}

async fn end_of(stream: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>, Failure> {
    let mut content = Vec::new();
    let Some(mut stream) = stream else { return Ok(content) };
    while stream.read_buf(&mut content).await? > 0 {
        let excess = content.len().saturating_sub(ERROR_LIMIT);
        content.drain(..excess);
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    async fn sh(script: &str, stdin: &[u8], limit: Duration) -> Result<Output, Failure> {
        let variables: &[(&str, &str)] = &[("PATH", "/usr/bin:/bin")];
        let arguments = ["-c", script];
        run(&Program { name: Path::new("sh"), arguments: &arguments, variables, folder: None, stdin, limit }).await
    }

    #[tokio::test]
    async fn a_program_gets_its_input_and_its_output_and_message_are_returned() {
        let output =
            sh("cat; echo first >&2; echo last >&2; exit 3", b"text\n", Duration::from_secs(60)).await.unwrap();
        assert_eq!((output.text().as_str(), output.first_line().as_str()), ("text", "first"));
        let error = output.checked(Output::last_line).unwrap_err();
        assert_eq!(error.to_string(), "exit status: 3: last");
    }

    #[tokio::test]
    async fn a_program_that_ends_before_it_reads_is_judged_by_its_status() {
        let output = sh("exit 4", &[b'x'; 1 << 20], Duration::from_secs(60)).await.unwrap();
        assert_eq!((output.status.code(), output.last_line().as_str()), (Some(4), "no message"));
    }

    #[tokio::test]
    async fn at_the_limit_the_whole_process_group_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("alive");
        let script = format!("(sleep 1; touch '{}') & sleep 60", file.display());
        let begun = Instant::now();
        let error = sh(&script, b"", Duration::from_millis(200)).await.unwrap_err();
        assert_eq!(error.to_string(), "it did not end within 200 ms");
        assert!(begun.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(!file.exists(), "a child of the program still ran");
    }

    #[test]
    fn what_is_waited_for_is_named_with_its_limit() {
        let said = |name: &str, arguments: &[&str], limit| {
            let program = Program { name: Path::new(name), arguments, variables: &[], folder: None, stdin: b"", limit };
            waiting(&program, Duration::from_secs(70))
        };
        let limit = Duration::from_secs(120);
        insta::assert_snapshot!(said("docker", &["image", "inspect", "--format", "x", "r"], limit), @"`docker image inspect` has not ended after 1 min 10 s (limit 2 min)");
        insta::assert_snapshot!(said("/opt/bin/nvidia-smi", &["--query-gpu=name"], limit), @"`nvidia-smi` has not ended after 1 min 10 s (limit 2 min)");
        insta::assert_snapshot!(said("/bin/vllm-perf", &["prompts", "--", "--model"], Duration::MAX), @"`vllm-perf prompts` has not ended after 1 min 10 s");
    }

    #[tokio::test]
    async fn of_a_long_message_the_end_is_kept_and_endless_output_is_an_error() {
        let script = "i=0; while [ $i -lt 9000 ]; do echo 0123456789abcdef >&2; i=$((i+1)); done; echo end >&2; exit 1";
        let output = sh(script, b"", Duration::from_secs(60)).await.unwrap();
        assert!(output.message().len() <= ERROR_LIMIT && output.last_line() == "end");
        let error = sh("yes", b"", Duration::from_secs(60)).await.unwrap_err();
        assert_eq!(error.to_string(), "it printed more than 64 MiB");
    }

    #[tokio::test]
    async fn a_program_that_does_not_exist_is_told_apart() {
        let variables: &[(&str, &str)] = &[("PATH", "/usr/bin:/bin")];
        let program = Program {
            name: Path::new("/nowhere/program"),
            arguments: &[],
            variables,
            folder: None,
            stdin: b"",
            limit: Duration::from_secs(60),
        };
        assert!(matches!(run(&program).await, Err(Failure::NotFound)));
    }
}
