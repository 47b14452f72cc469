//! Names whose form is checked once: commits, repositories, branches and labels.

use anyhow::Context;
use anyhow::bail;
use url::Host;
use url::Url;
/// Characters that a label may have beside ASCII letters and digits.
const LABEL_PUNCTUATION: &str = " ._:/+-";

/// Longest label, in characters: GitHub's own limit.
pub const LABEL_LENGTH: usize = 50;

/// Longest branch name that is believed, in bytes: what a file system allows git.
const BRANCH_LENGTH: usize = 255;

/// Whether `text` can be the name of a label that decides anything: 1 to 50 of `A-Z a-z 0-9`, space and `._:/+-`.
pub fn is_label(text: &str) -> bool {
    (1..=LABEL_LENGTH).contains(&text.len()) && text.chars().all(is_label_character)
}

fn is_label_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || LABEL_PUNCTUATION.contains(character)
}

/// A label for showing: what is not a label's character reads `?`, so it never equals a configured label.
pub fn shown_label(name: &str) -> String {
    let mut shown: String =
        name.chars().take(LABEL_LENGTH).map(|c| if is_label_character(c) { c } else { '?' }).collect();
    if name.chars().nth(LABEL_LENGTH).is_some() {
        shown.push('?');
    }
    shown
}

/// A full commit hash (SHA-1 or SHA-256). All zeros, git's way to say "none", is none.
pub fn commit(text: &str) -> Option<String> {
    let full = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (full && text.bytes().any(|byte| byte != b'0')).then(|| text.to_ascii_lowercase())
}

/// `owner/name` as GitHub allows it.
pub fn repository(text: &str) -> Option<String> {
    let part = |part: &str| {
        (1..=100).contains(&part.len()) && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let (owner, name) = text.split_once('/')?;
    (part(owner) && part(name)).then(|| text.to_owned())
}

/// A branch name, with or without `refs/heads/` before it. Any other reference, a tag for one, is none.
pub fn branch(text: &str) -> Option<String> {
    let name = text.strip_prefix("refs/heads/").unwrap_or(text);
    let plain = (1..=BRANCH_LENGTH).contains(&name.len()) && !name.contains(char::is_control);
    (plain && !name.starts_with("refs/")).then(|| name.to_owned())
}

/// Whether a text is `owner/name`, and nothing that could lead a path elsewhere.
pub fn is_repository(text: &str) -> bool {
    let is_name = |name: &str| {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        plain && !name.is_empty() && name.len() <= 100 && name != "." && name != ".."
    };
    text.split_once('/').is_some_and(|(owner, name)| is_name(owner) && is_name(name))
}

/// Whether a text is a commit hash, in full or shortened.
pub fn is_hash(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether `text` is 40 hexadecimal digits in lower case, as git prints them.
pub fn is_full_hash(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The token goes over TLS, or does not leave the machine.
pub fn is_safe(api_url: &str) -> anyhow::Result<()> {
    let url = Url::parse(api_url).context("not a URL")?;
    let loopback = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if loopback => Ok(()),
        _ => bail!("a token is only sent over https: check `GITHUB_API_URL`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shown_label_never_equals_a_configured_one() {
        assert_eq!(shown_label("ready"), "ready");
        assert_eq!(shown_label("🐛 bug"), "? bug");
        assert!(!is_label(&shown_label(&"x".repeat(51))));
    }

    #[test]
    fn only_a_full_hash_is_a_commit() {
        let sha = "ec26c3e57ca3a959ca5aad62de7213c562f8c821";
        assert_eq!(commit(sha).as_deref(), Some(sha));
        for text in ["HEAD", "ec26c3e", "", &"0".repeat(40), &format!("{sha}0"), &"g".repeat(40)] {
            assert_eq!(commit(text), None, "{text}");
        }
    }

    #[test]
    fn a_tag_is_not_a_branch() {
        assert_eq!(branch("refs/heads/releases/v1").as_deref(), Some("releases/v1"));
        assert_eq!(branch("main").as_deref(), Some("main"));
        assert_eq!(branch("refs/tags/v1"), None);
        assert_eq!(branch("a\u{1b}[2J"), None);
    }
}
