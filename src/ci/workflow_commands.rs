//! Workflow commands of GitHub Actions. The lines are returned; the caller prints them.
//! Source: GitHub's "Workflow commands" and the runner's FileCommandManager and ActionCommandManager.

use super::log_text::harmless;

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
    // Newer and older runners read these lines, and others show them.
    harmless(text).replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
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
    fn a_message_has_no_older_command_and_no_control_character() {
        let hostile = notice(Level::Error, "a\n::b::", "##[add-mask]x\u{9d}\x1b]x\r::error::y");
        insta::assert_snapshot!(commands(&[hostile]), @r"::error title=a%0A%3A %3Ab%3A%3A::## [add-mask]x\x9d\x1b]x%0A: :error::y");
    }
}
