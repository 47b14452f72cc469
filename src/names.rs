//! Names that are checked where they come in: commits, repositories, branches, labels and API URLs.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, anyhow, bail};
use url::{Host, Url};

/// Characters that a label may have in addition to ASCII letters and digits.
const LABEL_PUNCTUATION: &str = " ._:/+-";

/// Longest label, in characters: GitHub's own limit.
pub const LABEL_LENGTH: usize = 50;

/// Longest branch name that is accepted, in bytes: what a file system allows git.
const BRANCH_LENGTH: usize = 255;

/// Longest owner or name of a repository, in bytes: GitHub's own limit.
const REPOSITORY_LENGTH: usize = 100;

/// The plain name of a branch that a record spells as `refs/heads/main`, `main(main)` or `main(refs/heads/main)`.
pub fn plain_branch(branch: &str) -> &str {
    let plain = |name| str::strip_prefix(name, "refs/heads/").unwrap_or(name);
    match branch.strip_suffix(')').and_then(|text| text.split_once('(')) {
        Some((name, inner)) if plain(inner) == name => name,
        _ => plain(branch),
    }
}

/// A full commit hash in lower case: 40 digits, or the 64 of a SHA-256 repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit(String);

impl Commit {
    /// A commit as CI names it: a full hash in any case. `None` for anything else, and for all zeros,
    /// which is how git writes "no commit".
    pub fn of_event(text: &str) -> Option<Self> {
        let full = matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        (full && text.bytes().any(|byte| byte != b'0')).then(|| Self(text.to_ascii_lowercase()))
    }

    /// Whether `text` is 40 hexadecimal digits in lower case: a full hash as git prints it and images are tagged.
    pub fn is_full(text: &str) -> bool {
        text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }

    /// Whether `text` is a commit hash, in full or shortened.
    pub fn is_hash(text: &str) -> bool {
        (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    /// The hash.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Commit {
    type Err = anyhow::Error;

    /// A full hash as git prints it; see [`Commit::is_full`].
    fn from_str(text: &str) -> anyhow::Result<Self> {
        match Self::is_full(text) {
            true => Ok(Self(text.to_owned())),
            false => Err(anyhow!("`{text}` is not a full commit hash (40 hexadecimal digits)")),
        }
    }
}

impl fmt::Display for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Commit> for String {
    fn from(commit: Commit) -> Self {
        commit.0
    }
}

/// `owner/name` of a repository on GitHub. It can be part of a path and of a URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository(String);

impl Repository {
    /// Whether `text` is `owner/name`, without a part that a path would read as a folder above.
    pub fn is_valid(text: &str) -> bool {
        let is_name = |name: &str| {
            let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            plain && (1..=REPOSITORY_LENGTH).contains(&name.len()) && name != "." && name != ".."
        };
        text.split_once('/').is_some_and(|(owner, name)| is_name(owner) && is_name(name))
    }

    /// `owner/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Repository {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match Self::is_valid(text) {
            true => Ok(Self(text.to_owned())),
            false => Err(anyhow!("`{text}` is not a repository: expected owner/name")),
        }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Repository> for String {
    fn from(repository: Repository) -> Self {
        repository.0
    }
}

/// A branch name, with or without `refs/heads/` before it. `None` for any other reference, such as a tag.
pub fn branch(text: &str) -> Option<String> {
    let name = text.strip_prefix("refs/heads/").unwrap_or(text);
    let plain = (1..=BRANCH_LENGTH).contains(&name.len()) && !name.contains(char::is_control);
    (plain && !name.starts_with("refs/")).then(|| name.to_owned())
}

/// Whether `text` can be the name of a configured label: 1 to 50 of `A-Z a-z 0-9`, space and `._:/+-`.
pub fn is_label(text: &str) -> bool {
    (1..=LABEL_LENGTH).contains(&text.len()) && text.chars().all(is_label_character)
}

fn is_label_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || LABEL_PUNCTUATION.contains(character)
}

/// A label for display: every other character becomes `?`, so that the result never equals a configured label.
pub fn shown_label(name: &str) -> String {
    let mut shown: String =
        name.chars().take(LABEL_LENGTH).map(|c| if is_label_character(c) { c } else { '?' }).collect();
    if name.chars().nth(LABEL_LENGTH).is_some() {
        shown.push('?');
    }
    shown
}

/// Checks that a token sent to `api_url` goes over TLS, or does not leave this machine.
///
/// # Errors
/// A text that is not a URL, or a URL that is neither https nor http to loopback.
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
        assert_eq!(Commit::of_event(sha).unwrap().as_str(), sha);
        assert_eq!(Commit::of_event(&sha.to_uppercase()).unwrap().as_str(), sha);
        assert_eq!(sha.parse::<Commit>().unwrap().as_str(), sha);
        for text in ["HEAD", "ec26c3e", "", &format!("{sha}0"), &"g".repeat(40)] {
            assert_eq!(Commit::of_event(text), None, "{text}");
            assert!(text.parse::<Commit>().is_err(), "{text}");
        }
        assert_eq!(Commit::of_event(&"0".repeat(40)), None);
        assert!(sha.to_uppercase().parse::<Commit>().is_err());
    }

    #[test]
    fn a_repository_leads_no_path_elsewhere() {
        for text in ["vllm-project/vllm", "a/b.c_d"] {
            assert_eq!(text.parse::<Repository>().unwrap().as_str(), text);
        }
        for text in ["", "a", "a/", "/b", "a/b/c", "a/..", "./b", "a/b?c", &format!("a/{}", "b".repeat(101))] {
            let error = text.parse::<Repository>().unwrap_err().to_string();
            assert_eq!(error, format!("`{text}` is not a repository: expected owner/name"));
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
