//! What we ask of GitHub: labels, pull requests, the merge base, and one comment that is edited rather than repeated.
//! How a request is sent and repeated is `transport`'s.

use anyhow::{Context, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::form_urlencoded::byte_serialize;

use super::transport::{Posting, Request, Transport};
use crate::environment::Secret;
use crate::event::CompletedRun;
use crate::exit::Classify;

pub use super::transport::Patience;

/// GitHub's own API, where the environment names no other.
pub const API_URL: &str = "https://api.github.com";
/// Entries a page: the most that GitHub gives.
const PAGE: usize = 100;
/// Pages that are read before we give up: 10,000 comments.
const PAGES: usize = 100;
/// Who writes with a workflow's own token.
const ACTIONS_LOGIN: &str = "github-actions[bot]";

/// GitHub, with one token.
pub struct Github {
    transport: Transport,
}

/// What we use of a pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequest {
    /// Its number.
    pub number: u64,
    /// `open` or `closed`; a merged one is closed.
    pub state: String,
    /// Full hash of the commit at its head, now.
    pub head_sha: String,
    /// `owner/name` that holds the head branch; `None` where it was deleted.
    pub head_repository: Option<String>,
    /// Full hash of the tip of the target branch.
    pub base_sha: String,
    /// The target branch.
    pub base_branch: String,
}

/// What became of a comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// There was none.
    Created,
    /// There was one, with another text.
    Edited,
    /// There was one with this text: nothing was written.
    Unchanged,
}

/// A comment that is in place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// Its page.
    pub url: String,
    /// How it came to be.
    pub action: Action,
    /// Newer comments of ours with the same id that were deleted: two jobs had written at once.
    pub duplicates_removed: usize,
    /// GitHub found the text too long, and got the headline alone.
    pub shortened: bool,
}

/// First line of the comment with this id. It is how the comment is found again.
pub fn marker(id: &str) -> String {
    format!("<!-- vllm-perf:v1 id={id} -->")
}

impl Github {
    /// `api_url` is `CiRun::api_url`, or [`API_URL`]. Must be called inside a tokio runtime.
    /// Errors: a URL that is neither https nor loopback, a token that is none (the user's mistake).
    pub fn new(api_url: Option<&str>, token: Secret, patience: Patience) -> anyhow::Result<Self> {
        Ok(Self { transport: Transport::new(api_url.unwrap_or(API_URL), token, patience)? })
    }

    /// Names of the labels that a pull request has now.
    pub async fn labels(&self, repository: &str, number: u64) -> anyhow::Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Label {
            name: String,
        }
        let path = format!("{}/issues/{number}/labels", root(repository)?);
        let labels: Vec<Label> = self
            .pages(&path)
            .await
            .with_context(|| format!("cannot read the labels of {repository}#{number}"))
            .world()?;
        Ok(labels.into_iter().map(|label| label.name).collect())
    }

    /// A pull request as it is now.
    pub async fn pull_request(&self, repository: &str, number: u64) -> anyhow::Result<PullRequest> {
        let path = format!("{}/pulls/{number}", root(repository)?);
        let pull: PullPayload =
            self.read(&path).await.with_context(|| format!("cannot read {repository}#{number}")).world()?;
        Ok(pull.into())
    }

    /// The pull request that a completed run belongs to, by what GitHub says of the run and never by what the run
    /// wrote. `None`: no open pull request has that commit at its head any more.
    pub async fn resolve_pull_request(
        &self,
        run: &CompletedRun,
        repository: &str,
    ) -> anyhow::Result<Option<PullRequest>> {
        if let Some(&number) = run.pull_requests.first() {
            return self.pull_request(repository, number).await.map(Some);
        }
        // GitHub names no pull requests for runs of forks: search by the head branch, believe only the commit.
        let Some(head_repository) = &run.head_repository else { return Ok(None) };
        let owner = head_repository.split('/').next().unwrap_or_default();
        let head: String = byte_serialize(format!("{owner}:{}", run.head_branch).as_bytes()).collect();
        let path = format!("{}/pulls?state=open&head={head}", root(repository)?);
        let pulls: Vec<PullPayload> = self
            .pages(&path)
            .await
            .with_context(|| format!("cannot find the pull request of {head_repository}:{}", run.head_branch))
            .world()?;
        let mut found = pulls.into_iter().map(PullRequest::from).filter(|pull| {
            pull.head_sha == run.head_sha && pull.head_repository.as_deref() == Some(head_repository.as_str())
        });
        match (found.next(), found.next()) {
            (Some(one), Some(two)) => Err(anyhow::anyhow!(
                "pull requests {} and {} of {repository} both have {} at their head: cannot tell which was measured",
                one.number,
                two.number,
                run.head_sha
            ))
            .world(),
            (found, _) => Ok(found),
        }
    }

    /// Full hash of the merge base of two commits, both named by hash.
    pub async fn merge_base(&self, repository: &str, base: &str, head: &str) -> anyhow::Result<String> {
        #[derive(Deserialize)]
        struct Compared {
            merge_base_commit: Commit,
        }
        #[derive(Deserialize)]
        struct Commit {
            sha: String,
        }
        for commit in [base, head] {
            if !is_hash(commit) {
                return Err(anyhow::anyhow!("`{commit}` is not a commit hash")).mistake();
            }
        }
        let path = format!("{}/compare/{base}...{head}?per_page=1", root(repository)?);
        let compared: Compared = self
            .read(&path)
            .await
            .with_context(|| format!("cannot find the merge base of {base} and {head}"))
            .world()?;
        Ok(compared.merge_base_commit.sha)
    }

    /// Text of our comment with this id, where there is one.
    pub async fn existing_comment(&self, repository: &str, number: u64, id: &str) -> anyhow::Result<Option<String>> {
        let thread = Thread { github: self, root: root(repository)?, number, marker: marker(id) };
        let find = async { thread.ours(&self.author().await?).await };
        let mut ours =
            find.await.with_context(|| format!("cannot read the comments of {repository}#{number}")).world()?;
        Ok(if ours.is_empty() { None } else { ours.swap_remove(0).body })
    }

    /// Leaves exactly one comment of ours with this id on the pull request, saying `body`. The marker is put before a
    /// body that lacks it.
    pub async fn sticky_comment(&self, repository: &str, number: u64, id: &str, body: &str) -> anyhow::Result<Posted> {
        let thread = Thread { github: self, root: root(repository)?, number, marker: marker(id) };
        thread.stick(body).await.with_context(|| format!("cannot comment on {repository}#{number}")).world()
    }

    /// Whose comments are ours. A workflow's token may not ask who it is; a person's may.
    async fn author(&self) -> anyhow::Result<Author> {
        match self.transport.call_if_allowed(Request::Get, "/user").await? {
            Some(reply) => Ok(Author::Login(reply.json::<User>()?.login)),
            None => Ok(Author::Installation),
        }
    }

    async fn read<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.transport.call(Request::Get, path).await?.json()
    }

    /// Every entry of a list. Pages are counted: a `Link` header could lead the token to another host.
    async fn pages<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Vec<T>> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut all = Vec::new();
        for page in 1..=PAGES {
            let entries: Vec<T> = self.read(&format!("{path}{separator}per_page={PAGE}&page={page}")).await?;
            let last = entries.len() < PAGE;
            all.extend(entries);
            if last {
                return Ok(all);
            }
        }
        bail!("more than {} entries in {path}", PAGE * PAGES)
    }
}

/// The comments of one pull request, as far as they carry one marker.
struct Thread<'a> {
    github: &'a Github,
    root: String,
    number: u64,
    marker: String,
}

impl Thread<'_> {
    async fn stick(&self, body: &str) -> anyhow::Result<Posted> {
        let body = if body.starts_with(&self.marker) { body.to_owned() } else { format!("{}\n{body}", self.marker) };
        let author = self.github.author().await?;
        let ours = self.ours(&author).await?;
        if let Some(first) = ours.first() {
            if first.says(&body) {
                return self.kept(first, Action::Unchanged, &ours, false).await;
            }
            if let Some((edited, shortened)) = self.edit(first.id, &body).await? {
                return self.kept(&edited, Action::Edited, &ours, shortened).await;
            }
        }
        let (created, shortened) = self.create(&body, &author).await?;
        // Another job may have written between our look and our comment: the oldest stays, and says what we say.
        let ours = self.ours(&author).await?;
        if let Some(first) = ours.iter().find(|other| other.id < created.id && other.login() == created.login())
            && let Some((edited, shortened)) = self.edit(first.id, &body).await?
        {
            return self.kept(&edited, Action::Edited, &ours, shortened).await;
        }
        self.kept(&created, Action::Created, &ours, shortened).await
    }

    /// Our comments, oldest first; those of an app that may be another's come last.
    async fn ours(&self, author: &Author) -> anyhow::Result<Vec<Comment>> {
        let comments: Vec<Comment> =
            self.github.pages(&format!("{}/issues/{}/comments", self.root, self.number)).await?;
        let mut ours: Vec<_> = comments
            .into_iter()
            .filter(|comment| comment.body.as_deref().unwrap_or_default().starts_with(&self.marker))
            .filter(|comment| author.wrote(comment))
            .collect();
        ours.sort_by_key(|comment| (author.may_be_another(comment), comment.id));
        Ok(ours)
    }

    /// `None`: the comment is gone, or another app's.
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
                    if let Some(there) = self.ours(author).await?.into_iter().find(|comment| comment.says(&text)) {
                        return Ok((there, shortened));
                    }
                    attempt += 1;
                }
            }
        }
    }

    /// Deletes our newer duplicates of a comment that stays.
    async fn kept(
        &self,
        comment: &Comment,
        action: Action,
        ours: &[Comment],
        shortened: bool,
    ) -> anyhow::Result<Posted> {
        let mut duplicates_removed = 0;
        for newer in ours.iter().filter(|other| other.id > comment.id && other.login() == comment.login()) {
            let path = format!("{}/issues/comments/{}", self.root, newer.id);
            // The job that wrote the duplicate deletes it as well: 404 is as good.
            let reply = self.github.transport.call(Request::Delete, &path).await?;
            duplicates_removed += usize::from(reply.status == 204);
        }
        Ok(Posted { url: comment.html_url.clone(), action, duplicates_removed, shortened })
    }
}

/// Whose comments are ours.
#[derive(Debug, PartialEq)]
enum Author {
    /// The owner of a personal token.
    Login(String),
    /// An app: `github-actions`, or one of the repository's own.
    Installation,
}

impl Author {
    fn wrote(&self, comment: &Comment) -> bool {
        let Some(user) = &comment.user else { return false };
        match self {
            Self::Login(login) => user.login == *login,
            // A person who acts through an app is no bot; a bot's login is its app's slug.
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
    fn says(&self, body: &str) -> bool {
        // GitHub may store line ends as CRLF and drop the last ones.
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

#[derive(Deserialize)]
struct PullPayload {
    number: u64,
    state: String,
    head: Ref,
    base: Ref,
}

#[derive(Deserialize)]
struct Ref {
    sha: String,
    #[serde(rename = "ref")]
    branch: String,
    repo: Option<Repository>,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

impl From<PullPayload> for PullRequest {
    fn from(pull: PullPayload) -> Self {
        Self {
            number: pull.number,
            state: pull.state,
            head_sha: pull.head.sha,
            head_repository: pull.head.repo.map(|repository| repository.full_name),
            base_sha: pull.base.sha,
            base_branch: pull.base.branch,
        }
    }
}

/// The marker, the headline, and where the rest is.
fn headline(body: &str) -> String {
    let lines: Vec<_> = body.lines().filter(|line| !line.trim().is_empty()).take(2).collect();
    let mut short: String = lines.join("\n").chars().take(1_000).collect();
    short.push_str("\n\nThe report is too long for a comment: the job summary and the artifact hold it.\n");
    short
}

fn root(repository: &str) -> anyhow::Result<String> {
    if !is_repository(repository) {
        return Err(anyhow::anyhow!("`{repository}` is not a repository: expected owner/name")).mistake();
    }
    Ok(format!("/repos/{repository}"))
}

/// Whether a text is `owner/name`, and nothing that could lead a path elsewhere.
pub(super) fn is_repository(text: &str) -> bool {
    let is_name = |name: &str| {
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        plain && !name.is_empty() && name.len() <= 100 && name != "." && name != ".."
    };
    text.split_once('/').is_some_and(|(owner, name)| is_name(owner) && is_name(name))
}

/// Whether a text is a commit hash, in full or shortened.
pub(super) fn is_hash(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
