//! The comment of a configuration on a pull request. It is identified by its marker and its author, and edited instead of
//! repeated. Anyone can write the marker, so the author is checked; two jobs can write at the same time, so the oldest
//! comment is kept. A report of an earlier commit never takes the place of one of a later commit.

use anyhow::Context;
use serde::Deserialize;

use crate::exit::Classify;
use crate::report::markdown::{marker, marker_start};
use crate::system::github::{Github, PullRequest, root};
use crate::system::github_transport::{Posting, Request};

/// The author of comments written with a workflow's token.
const ACTIONS_LOGIN: &str = "github-actions[bot]";

/// How a comment was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Created,
    Edited,
    /// The existing comment already had this text.
    Unchanged,
    /// The existing comment tells of a later commit or run, and was not changed.
    Later,
}

/// What a report tells of, as its marker keeps it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stamp<'a> {
    /// The measured commit.
    pub head: Option<&'a str>,
    /// The number of the run, which grows.
    pub run: Option<u64>,
}

impl<'a> Stamp<'a> {
    /// Reads the marker of a comment.
    fn of(body: &'a str) -> Self {
        let marker = body.lines().next().unwrap_or_default();
        let fact = |name: &str| marker.split(' ').find_map(|word| word.strip_prefix(name));
        Self { head: fact("head="), run: fact("run=").and_then(|run| run.parse().ok()) }
    }

    /// Whether a report of a commit that is not the head any more comes after the one that is there.
    fn is_late(self, there: Self, head_now: &str) -> bool {
        if there.head.is_none() || there.head == self.head || self.head == Some(head_now) {
            return false;
        }
        there.head == Some(head_now) || there.run.zip(self.run).is_some_and(|(there, own)| there > own)
    }
}

/// A published comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// Page of the comment.
    pub url: String,
    pub action: Action,
    /// Newer comments with the same id that were deleted; two jobs had written at the same time.
    pub duplicates_removed: usize,
    /// Whether only the headline was written, because GitHub rejected the text as too long.
    pub shortened: bool,
}

/// The text of vllm-perf's comment with the id `id`, if there is one.
///
/// # Errors
/// The comments cannot be read (exit 4).
pub async fn existing(github: &Github, repository: &str, number: u64, id: &str) -> anyhow::Result<Option<String>> {
    let thread = Thread::new(github, repository, number, id)?;
    thread.text().await.with_context(|| format!("cannot read the comments of {repository}#{number}")).world()
}

/// Creates or edits vllm-perf's comment with the id `id`, so that exactly one exists, with the text `body`. The marker is
/// added if `body` lacks it.
///
/// # Errors
/// The comment cannot be written (exit 4).
pub async fn stick(github: &Github, repository: &str, number: u64, id: &str, body: &str) -> anyhow::Result<Posted> {
    let thread = Thread::new(github, repository, number, id)?;
    thread.stick(body).await.with_context(|| format!("cannot comment on {repository}#{number}")).world()
}

/// As [`stick`], for a report: where the comment tells of a later commit than `stamp`, it stays. `head_now` is the head of
/// the pull request.
///
/// # Errors
/// The comment cannot be written (exit 4).
pub async fn report(
    github: &Github,
    repository: &str,
    pull: &PullRequest,
    id: &str,
    stamp: Stamp<'_>,
    body: &str,
) -> anyhow::Result<Posted> {
    let number = pull.number;
    let mut thread = Thread::new(github, repository, number, id)?;
    thread.late = Some((stamp, &pull.head_sha));
    let head = stamp.head.map_or_else(String::new, |head| format!(" head={head}"));
    let run = stamp.run.map_or_else(String::new, |run| format!(" run={run}"));
    let text = body.strip_prefix(&marker(id)).map_or_else(|| format!("\n{body}"), str::to_owned);
    let body = format!("{}{head}{run} -->{text}", thread.marker);
    thread.stick(&body).await.with_context(|| format!("cannot comment on {repository}#{number}")).world()
}

/// Gives the comment with the id `id` the text `body`, if its text is still `expected`.
///
/// # Errors
/// The comment cannot be written (exit 4).
pub async fn replace(
    github: &Github,
    repository: &str,
    number: u64,
    id: &str,
    [expected, body]: [&str; 2],
) -> anyhow::Result<()> {
    match existing(github, repository, number, id).await? {
        Some(text) if same_text(&text, expected) => stick(github, repository, number, id, body).await.map(drop),
        _ => Ok(()),
    }
}

/// The comments of one pull request that have one marker.
struct Thread<'a> {
    github: &'a Github,
    /// API path of the repository.
    root: String,
    number: u64,
    /// The start of the marker.
    marker: String,
    /// The report that is written, and the head of the pull request.
    late: Option<(Stamp<'a>, &'a str)>,
}

impl<'a> Thread<'a> {
    fn new(github: &'a Github, repository: &str, number: u64, id: &str) -> anyhow::Result<Self> {
        Ok(Self { github, root: root(repository)?, number, marker: marker_start(id), late: None })
    }

    fn is_marked(&self, body: &str) -> bool {
        body.strip_prefix(&self.marker).is_some_and(|rest| rest.starts_with(' '))
    }

    /// Whether `comment` tells of a later commit than the report that is written.
    fn is_later(&self, comment: &Comment) -> bool {
        let there = Stamp::of(comment.body.as_deref().unwrap_or_default());
        self.late.is_some_and(|(stamp, head_now)| stamp.is_late(there, head_now))
    }

    /// Creates or edits the comment.
    async fn stick(&self, body: &str) -> anyhow::Result<Posted> {
        let body = if self.is_marked(body) { body.to_owned() } else { format!("{} -->\n{body}", self.marker) };
        let author = self.author().await?;
        let own = self.own_comments(&author).await?;
        if let Some(first) = own.first() {
            if self.is_later(first) {
                return self.keep(first, Action::Later, &own, false).await;
            }
            if first.has_text(&body) {
                return self.keep(first, Action::Unchanged, &own, false).await;
            }
            if let Some((edited, shortened)) = self.edit(first.id, &body).await? {
                return self.keep(&edited, Action::Edited, &own, shortened).await;
            }
        }
        let (created, shortened) = self.create(&body, &author).await?;
        // Another job may have created a comment in the meantime, and of an app the login is only known now: the oldest one
        // is kept and gets this text.
        let author = created.login().map_or(author, |login| Author::Login(login.to_owned()));
        let own = self.own_comments(&author).await?;
        if let Some(first) = own.iter().find(|other| other.id < created.id) {
            if self.is_later(first) {
                return self.keep(first, Action::Later, &own, false).await;
            }
            if let Some((edited, shortened)) = self.edit(first.id, &body).await? {
                return self.keep(&edited, Action::Edited, &own, shortened).await;
            }
        }
        self.keep(&created, Action::Created, &own, shortened).await
    }

    /// Text of the comment, if there is one.
    async fn text(&self) -> anyhow::Result<Option<String>> {
        let own = self.own_comments(&self.author().await?).await?;
        Ok(own.into_iter().next().and_then(|comment| comment.body))
    }

    /// The author of vllm-perf's comments. A workflow's token cannot query its user; a personal token can.
    async fn author(&self) -> anyhow::Result<Author> {
        match self.github.transport.call_if_allowed(Request::Get, "/user").await? {
            Some(reply) => Ok(Author::Login(reply.json::<User>()?.login)),
            None => Ok(Author::Installation),
        }
    }

    /// The comments of this author, oldest first.
    async fn own_comments(&self, author: &Author) -> anyhow::Result<Vec<Comment>> {
        let comments: Vec<Comment> =
            self.github.pages(&format!("{}/issues/{}/comments", self.root, self.number)).await?;
        let mut own: Vec<_> = comments
            .into_iter()
            .filter(|comment| self.is_marked(comment.body.as_deref().unwrap_or_default()))
            .filter(|comment| author.wrote(comment))
            .collect();
        own.sort_by_key(|comment| comment.id);
        Ok(own)
    }

    /// `None` if the comment was deleted or belongs to another app.
    async fn edit(&self, id: u64, body: &str) -> anyhow::Result<Option<(Comment, bool)>> {
        let path = format!("{}/issues/comments/{id}", self.root);
        let transport = &self.github.transport;
        let Some(mut reply) = transport.call_if_allowed(Request::Patch(body), &path).await? else { return Ok(None) };
        let shortened = reply.is_too_long();
        if shortened {
            reply = transport.call(Request::Patch(&headline(body)), &path).await?;
        }
        if reply.status == 404 { Ok(None) } else { Ok(Some((reply.json()?, shortened))) }
    }

    async fn create(&self, body: &str, author: &Author) -> anyhow::Result<(Comment, bool)> {
        let path = format!("{}/issues/{}/comments", self.root, self.number);
        let (mut text, mut shortened, mut attempt) = (body.to_owned(), false, 1);
        loop {
            match self.github.transport.post(&text, &path).await? {
                Posting::Answered(reply) if reply.is_too_long() && !shortened => {
                    (text, shortened) = (headline(body), true);
                }
                Posting::Answered(reply) => return Ok((reply.json()?, shortened)),
                Posting::Lost(why) => {
                    self.github.transport.pause(attempt, u64::from(attempt), &why).await?;
                    if let Some(there) =
                        self.own_comments(author).await?.into_iter().find(|comment| comment.has_text(&text))
                    {
                        return Ok((there, shortened));
                    }
                    attempt += 1;
                }
            }
        }
    }

    /// Deletes the newer duplicates of the comment that is kept.
    async fn keep(
        &self,
        comment: &Comment,
        action: Action,
        own: &[Comment],
        shortened: bool,
    ) -> anyhow::Result<Posted> {
        let mut duplicates_removed = 0;
        for newer in own.iter().filter(|other| other.id > comment.id && other.login() == comment.login()) {
            let path = format!("{}/issues/comments/{}", self.root, newer.id);
            // A failure is ignored: the job that wrote the duplicate also deletes it, and so does the next edit.
            let reply = self.github.transport.call(Request::Delete, &path).await;
            duplicates_removed += usize::from(reply.is_ok_and(|reply| reply.status == 204));
        }
        Ok(Posted { url: comment.html_url.clone(), action, duplicates_removed, shortened })
    }
}

/// The author of vllm-perf's comments.
#[derive(Debug, PartialEq)]
enum Author {
    /// The owner of a personal token, or the app that wrote a comment just now.
    Login(String),
    /// An app that may not ask who it is: `github-actions`, unless it turns out to be another. What other apps wrote is
    /// neither read nor changed.
    Installation,
}

impl Author {
    fn wrote(&self, comment: &Comment) -> bool {
        let Some(user) = &comment.user else { return false };
        match self {
            Self::Login(login) => user.login == *login,
            // A user who acts through an app is not a bot.
            Self::Installation => user.kind == "Bot" && user.login == ACTIONS_LOGIN,
        }
    }
}

#[derive(Deserialize)]
struct Comment {
    id: u64,
    html_url: String,
    body: Option<String>,
    user: Option<User>,
}

impl Comment {
    fn has_text(&self, body: &str) -> bool {
        self.body.as_deref().is_some_and(|there| same_text(there, body))
    }

    fn login(&self) -> Option<&str> {
        self.user.as_ref().map(|user| user.login.as_str())
    }
}

#[derive(Deserialize)]
struct User {
    login: String,
    #[serde(rename = "type")]
    kind: String,
}

/// GitHub may store line ends as CRLF and remove trailing ones.
fn same_text(there: &str, body: &str) -> bool {
    there.replace("\r\n", "\n").trim_end() == body.replace("\r\n", "\n").trim_end()
}

/// The marker, the headline, and a note on where the rest is.
fn headline(body: &str) -> String {
    let lines: Vec<_> = body.lines().filter(|line| !line.trim().is_empty()).take(2).collect();
    let mut short: String = lines.join("\n").chars().take(1_000).collect();
    short.push_str("\n\nThe report is too long for a comment. It is in the job summary and in the artifact.\n");
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_report_yields_to_one_of_the_present_head_or_of_a_later_run() {
        let stamp = |head: &'static str, run: u64| Stamp { head: Some(head), run: Some(run) };
        let late = |own: Stamp<'_>, there: Stamp<'_>| own.is_late(there, "ccc");
        assert!(
            late(stamp("aaa", 1), stamp("ccc", 3)) && late(stamp("aaa", 9), stamp("ccc", 3)),
            "of the present head"
        );
        assert!(late(stamp("aaa", 1), stamp("bbb", 2)), "of a later run");
        assert!(!late(stamp("bbb", 2), stamp("aaa", 1)), "of an earlier run");
        assert!(!late(stamp("ccc", 1), stamp("bbb", 2)) && !late(stamp("aaa", 1), stamp("aaa", 2)));
        assert!(!late(stamp("aaa", 1), Stamp::default()), "a comment of an older version");
    }

    #[test]
    fn the_stamp_of_a_comment_is_in_its_first_line() {
        let stamp = Stamp::of("<!-- vllm-perf:v1 id=1 head=abc run=7 -->\nhead=evil run=9");
        assert_eq!(stamp, Stamp { head: Some("abc"), run: Some(7) });
        assert_eq!(Stamp::of("<!-- vllm-perf:v1 id=1 -->\nhead=evil"), Stamp::default());
    }
}
