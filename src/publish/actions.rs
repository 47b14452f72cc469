//! What GitHub Actions takes besides its API: the job summary and step outputs as files, and workflow commands as
//! lines for the log. The lines are returned; the shell prints them.
//! Source: GitHub's "Workflow commands" and the runner's FileCommandManager and ActionCommandManager.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, anyhow, bail};

use super::Outcome;
use crate::exit::Classify;

/// Bytes of a job summary above which the runner drops all of it.
const SUMMARY_LIMIT: u64 = 1024 * 1024;
/// Annotations of one level a step; the runner takes ten, and one more line may say how many are left out.
const NOTICES: usize = 8;
/// Characters of a message that the runner keeps.
const MESSAGE_LIMIT: usize = 4096;

/// Appends to the job summary. A text that would make the runner drop the whole summary is left out.
/// Errors: the file cannot be written.
pub fn append_summary(path: &Path, text: &str) -> anyhow::Result<Outcome> {
    let there = fs::metadata(path).map_or(0, |metadata| metadata.len());
    let size = there + text.len() as u64 + 1;
    if size > SUMMARY_LIMIT {
        return Ok(Outcome::Left(format!(
            "the job summary would have {size} bytes; GitHub drops one over {SUMMARY_LIMIT}"
        )));
    }
    append(path, &format!("{text}\n")).context("cannot write the job summary").world()?;
    Ok(Outcome::Done(format!("{} bytes", text.len())))
}

/// Appends step outputs. Errors: the file cannot be written, a name that the runner would misread.
pub fn append_outputs(path: &Path, outputs: &[(&str, &str)]) -> anyhow::Result<()> {
    let delimiter = format!("ghadelimiter_{}", random_word()?);
    let entries = outputs
        .iter()
        .map(|(name, value)| output_entry(name, value, &delimiter))
        .collect::<anyhow::Result<String>>()
        .context("cannot set the step's outputs")?;
    append(path, &entries).context("cannot set the step's outputs").world()
}

fn append(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || OpenOptions::new().append(true).create(true).open(path)?.write_all(text.as_bytes());
    write().with_context(|| format!("cannot append to {}", path.display()))
}

/// One output in the heredoc form: the only one in which a value can say anything.
fn output_entry(name: &str, value: &str, delimiter: &str) -> anyhow::Result<String> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
        bail!("`{name}` is not the name of an output: expected letters, digits, `-` and `_`");
    }
    if value.contains(delimiter) {
        bail!("the value of `{name}` contains the delimiter of outputs");
    }
    Ok(format!("{name}<<{delimiter}\n{value}\n{delimiter}\n"))
}

/// How loud a notice is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Red.
    Error,
    /// Yellow.
    Warning,
    /// Blue.
    Notice,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }
}

/// A line that GitHub shows on the page of the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// How loud.
    pub level: Level,
    /// In bold.
    pub title: String,
    /// One or more lines.
    pub message: String,
}

/// The notices as workflow commands, one a line. Of each level the first eight are given, and how many more there are.
pub fn commands(notices: &[Notice]) -> String {
    let mut lines = String::new();
    for level in [Level::Error, Level::Warning, Level::Notice] {
        let of_level: Vec<_> = notices.iter().filter(|notice| notice.level == level).collect();
        for notice in of_level.iter().take(NOTICES) {
            lines.push_str(&command(level, &notice.title, &notice.message));
        }
        if let Some(more @ 1..) = of_level.len().checked_sub(NOTICES) {
            lines.push_str(&command(level, "vllm-perf", &format!("{more} more: see the job summary")));
        }
    }
    lines
}

fn command(level: Level, title: &str, message: &str) -> String {
    let message: String = message.chars().take(MESSAGE_LIMIT).collect();
    format!(
        "::{} title={}::{}\n",
        level.as_str(),
        escaped(title).replace(':', "%3A").replace(',', "%2C"),
        escaped(&message)
    )
}

fn escaped(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

/// A text of strangers for the log, in which GitHub obeys no command. `token` is a fresh [`stop_token`]; nothing else
/// may be printed between the lines. Errors: the text contains the token.
pub fn quoted(text: &str, token: &str) -> anyhow::Result<String> {
    if text.contains(token) {
        bail!("the text contains the token that would end its quotation");
    }
    Ok(format!("::stop-commands::{token}\n{}\n::{token}::\n", text.trim_end_matches('\n')))
}

/// 128 random bits for one quotation. Errors: the system has no randomness.
pub fn stop_token() -> anyhow::Result<String> {
    random_word()
}

fn random_word() -> anyhow::Result<String> {
    let mut bits = [0; 16];
    let source = rustls::crypto::ring::default_provider().secure_random;
    source.fill(&mut bits).map_err(|_| anyhow!("cannot get random bits from the system")).world()?;
    Ok(format!("{:032x}", u128::from_be_bytes(bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(level: Level, title: &str, message: &str) -> Notice {
        Notice { level, title: title.to_owned(), message: message.to_owned() }
    }

    #[test]
    fn an_output_with_lines_and_equal_signs_stays_one_output() {
        let file = tempfile::NamedTempFile::new().unwrap();
        append_outputs(file.path(), &[("verdict", "regressed"), ("note", "a=b\nverdict=improved")]).unwrap();
        let text = fs::read_to_string(file.path()).unwrap();
        let delimiter = text.lines().next().unwrap().strip_prefix("verdict<<").unwrap();
        assert!(delimiter.starts_with("ghadelimiter_") && delimiter.len() == 45, "{delimiter}");
        assert_eq!(
            text,
            format!(
                "verdict<<{delimiter}\nregressed\n{delimiter}\nnote<<{delimiter}\na=b\nverdict=improved\n{delimiter}\n"
            )
        );
    }

    #[test]
    fn neither_a_value_nor_a_name_can_start_another_output() {
        let error = output_entry("note", "x\nD\nverdict<<D", "D").unwrap_err().to_string();
        assert_eq!(error, "the value of `note` contains the delimiter of outputs");
        let error = output_entry("a=b", "x", "D").unwrap_err().to_string();
        assert_eq!(error, "`a=b` is not the name of an output: expected letters, digits, `-` and `_`");
    }

    #[test]
    fn a_summary_that_github_would_drop_is_left_out_and_what_was_there_stays() {
        let file = tempfile::NamedTempFile::new().unwrap();
        append_summary(file.path(), "### first").unwrap();
        let outcome = append_summary(file.path(), &"x".repeat(1024 * 1024 - 10)).unwrap();
        assert_eq!(
            outcome,
            Outcome::Left("the job summary would have 1048577 bytes; GitHub drops one over 1048576".to_owned())
        );
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "### first\n");
    }

    #[test]
    fn notices_are_escaped_and_the_ninth_of_a_level_is_counted() {
        let mut notices = vec![notice(Level::Notice, "a: b, c", "50 %\nthen ::error::no")];
        notices.extend((1..=10).map(|n| notice(Level::Error, "t", &n.to_string())));
        insta::assert_snapshot!(commands(&notices), @r"
        ::error title=t::1
        ::error title=t::2
        ::error title=t::3
        ::error title=t::4
        ::error title=t::5
        ::error title=t::6
        ::error title=t::7
        ::error title=t::8
        ::error title=vllm-perf::2 more: see the job summary
        ::notice title=a%3A b%2C c::50 %25%0Athen ::error::no
        ");
    }

    #[test]
    fn a_quotation_cannot_end_itself() {
        assert_eq!(quoted("::error::fake\n", "t0k3n").unwrap(), "::stop-commands::t0k3n\n::error::fake\n::t0k3n::\n");
        assert!(quoted("::t0k3n::\n::error::fake", "t0k3n").is_err());
        assert_ne!(stop_token().unwrap(), stop_token().unwrap());
    }
}
