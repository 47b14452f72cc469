//! The comment of a configuration on a pull request. It is identified by its marker and its author, and edited instead of
//! repeated. Anyone can write the marker, so the author is checked; two jobs can write at the same time, so the oldest
//! comment is kept.

use anyhow::Context;
use serde::Deserialize;

use crate::exit::Classify;
use crate::report::markdown::marker;
use crate::system::github::{Github, root};
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
    let thread = Thread { github, root: root(repository)?, number, marker: marker(id) };
    thread.text().await.with_context(|| format!("cannot read the comments of {repository}#{number}")).world()
}

/// Creates or edits vllm-perf's comment with the id `id`, so that exactly one exists, with the text `body`. The marker is
/// added if `body` lacks it.
///
/// # Errors
/// The comment cannot be written (exit 4).
pub async fn stick(github: &Github, repository: &str, number: u64, id: &str, body: &str) -> anyhow::Result<Posted> {
    let thread = Thread { github, root: root(repository)?, number, marker: marker(id) };
    thread.stick(body).await.with_context(|| format!("cannot comment on {repository}#{number}")).world()
}

/// The comments of one pull request that have one marker.
struct Thread<'a> {
    github: &'a Github,
    /// API path of the repository.
    root: String,
    number: u64,
    marker: String,
}

impl Thread<'_> {
    /// Creates or edits the comment.
    async fn stick(&self, body: &str) -> anyhow::Result<Posted> {
        let body = if body.starts_with(&self.marker) { body.to_owned() } else { format!("{}\n{body}", self.marker) };
        let author = self.author().await?;
        let own = self.own_comments(&author).await?;
        if let Some(first) = own.first() {
            if first.has_text(&body) {
                return self.keep(first, Action::Unchanged, &own, false).await;
            }
            if let Some((edited, shortened)) = self.edit(first.id, &body).await? {
                return self.keep(&edited, Action::Edited, &own, shortened).await;
            }
        }
        let (created, shortened) = self.create(&body, &author).await?;
        // Another job may have created a comment in the meantime: the oldest one is kept and gets this text.
        let own = self.own_comments(&author).await?;
        if let Some(first) = own.iter().find(|other| other.id < created.id && other.login() == created.login())
            && let Some((edited, shortened)) = self.edit(first.id, &body).await?
        {
            return self.keep(&edited, Action::Edited, &own, shortened).await;
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

    /// The comments of this author, oldest first, with those that may be from another app last.
    async fn own_comments(&self, author: &Author) -> anyhow::Result<Vec<Comment>> {
        let comments: Vec<Comment> =
            self.github.pages(&format!("{}/issues/{}/comments", self.root, self.number)).await?;
        let mut own: Vec<_> = comments
            .into_iter()
            .filter(|comment| comment.body.as_deref().unwrap_or_default().starts_with(&self.marker))
            .filter(|comment| author.wrote(comment))
            .collect();
        own.sort_by_key(|comment| (author.may_be_another(comment), comment.id));
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
    /// The owner of a personal token.
    Login(String),
    /// An app: `github-actions`, or an app of the repository.
    Installation,
}

impl Author {
    fn wrote(&self, comment: &Comment) -> bool {
        let Some(user) = &comment.user else { return false };
        match self {
            Self::Login(login) => user.login == *login,
            // A user who acts through an app is not a bot; the login of a bot is the slug of its app.
            Self::Installation => {
                let app = comment.performed_via_github_app.as_ref().and_then(|app| app.slug.as_deref());
                user.kind == "Bot"
                    && (user.login == ACTIONS_LOGIN || app.is_some_and(|slug| user.login == format!("{slug}[bot]")))
            }
        }
    }

    fn may_be_another(&self, comment: &Comment) -> bool {
        *self == Self::Installation && comment.login() != Some(ACTIONS_LOGIN)
    }
}

#[derive(Deserialize)]
struct Comment {
    id: u64,
    html_url: String,
    body: Option<String>,
    user: Option<User>,
    performed_via_github_app: Option<App>,
}

impl Comment {
    fn has_text(&self, body: &str) -> bool {
        // GitHub may store line ends as CRLF and remove trailing ones.
        self.body.as_deref().is_some_and(|there| there.replace("\r\n", "\n").trim_end() == body.trim_end())
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

#[derive(Deserialize)]
struct App {
    slug: Option<String>,
}

/// The marker, the headline, and a note on where the rest is.
fn headline(body: &str) -> String {
    let lines: Vec<_> = body.lines().filter(|line| !line.trim().is_empty()).take(2).collect();
    let mut short: String = lines.join("\n").chars().take(1_000).collect();
    short.push_str("\n\nThe report is too long for a comment. It is in the job summary and in the artifact.\n");
    short
}
