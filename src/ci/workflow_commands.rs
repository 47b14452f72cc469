//! Workflow commands of GitHub Actions, and untrusted text for CI logs. The lines are returned; the caller prints them.
//! Source: GitHub's "Workflow commands" and the runner's FileCommandManager and ActionCommandManager.

use anyhow::bail;

/// Annotations of one level per step. The runner accepts ten; one more line may state how many are left out.
const NOTICES: usize = 8;
/// Characters of a message that the runner keeps.
const MESSAGE_LIMIT: usize = 4096;

/// The level of an annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Error,
    Warning,
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
    pub level: Level,
    pub title: String,
    /// One or more lines.
    pub message: String,
}

/// The notices as workflow commands, one per line: the first eight of each level, and the number of the remaining ones.
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

/// An untrusted text for the log, in which GitHub executes no workflow command. `token` is a fresh random token; nothing
/// else may be printed between the lines.
///
/// # Errors
/// The text contains the token.
pub fn quoted(text: &str, token: &str) -> anyhow::Result<String> {
    if text.contains(token) {
        bail!("the text contains the token that ends the quotation");
    }
    Ok(format!("::stop-commands::{token}\n{}\n::{token}::\n", text.trim_end_matches('\n')))
}

/// An untrusted text for the log, without group headers (`--- `, `+++ `, `~~~ `, `^^^ `) and without the escape sequences
/// (OSC, APC) with which Buildkite shows links, images and times.
pub fn neutralised(log: &str) -> String {
    let mut out = String::with_capacity(log.len());
    let mut rest = log;
    while let Some((start, opener)) = find_sequence(rest) {
        out.push_str(&rest[..start]);
        rest = &rest[start + opener..];
        // A sequence ends with BEL or ST. Without an end, it is removed up to the end of its line.
        let end = rest.find(['\x07', '\u{9c}', '\n', '\x1b']).unwrap_or(rest.len());
        rest = &rest[end..];
        for terminator in ["\x07", "\u{9c}", "\x1b\\"] {
            if let Some(after) = rest.strip_prefix(terminator) {
                rest = after;
                break;
            }
        }
    }
    out.push_str(rest);
    let groups = ["--- ", "+++ ", "~~~ ", "^^^ "];
    let quote = |line: &str| {
        if groups.iter().any(|group| line.starts_with(group)) { format!("  {line}") } else { line.to_owned() }
    };
    out.split_inclusive(['\n', '\r']).map(quote).collect()
}

/// The start of the next OSC or APC sequence, and the length of its opener.
fn find_sequence(text: &str) -> Option<(usize, usize)> {
    let openers = ["\x1b]", "\x1b_", "\u{9d}", "\u{9f}"];
    openers.iter().filter_map(|opener| text.find(opener).map(|start| (start, opener.len()))).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(level: Level, title: &str, message: &str) -> Notice {
        Notice { level, title: title.to_owned(), message: message.to_owned() }
    }

    #[test]
    fn notices_are_escaped_and_more_than_eight_of_a_level_are_counted() {
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
    }
}
