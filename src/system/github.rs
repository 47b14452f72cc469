//! GitHub's API: labels, pull requests, branches and merge bases.

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::form_urlencoded::byte_serialize;

use super::github_transport::{Request, Transport};
use super::retry_policy::RetryPolicy;
use crate::ci::event::CompletedRun;
use crate::environment::Secret;
use crate::exit::Classify;
use crate::names::{self, Commit};

/// GitHub's own API, where the environment names no other.
pub const API_URL: &str = "https://api.github.com";
/// Entries on a page: the most that GitHub allows.
const PAGE: usize = 100;
/// Most pages of a list: 10,000 comments.
const PAGES: usize = 100;

/// GitHub, with one token.
pub struct Github {
    pub transport: Transport,
}

/// A pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequest {
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
    /// Login of the author; `None` where the account was deleted.
    pub author: Option<String>,
}

impl Github {
    /// `api_url` is `CiRun::api_url`, or [`API_URL`]. Must be called inside a tokio runtime.
    /// Errors (the user's mistake): a URL that is neither https nor loopback, or a text that cannot be a token.
    pub fn new(api_url: Option<&str>, token: Secret, policy: RetryPolicy) -> anyhow::Result<Self> {
        Ok(Self { transport: Transport::new(api_url.unwrap_or(API_URL), token, policy)? })
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

    /// The pull request of a completed run, from GitHub's data about the run and never from what the run wrote. `None`: no
    /// open pull request has that commit at its head any more.
    pub async fn resolve_pull_request(
        &self,
        run: &CompletedRun,
        repository: &str,
    ) -> anyhow::Result<Option<PullRequest>> {
        if let Some(&number) = run.pull_requests.first() {
            return self.pull_request(repository, number).await.map(Some);
        }
        // GitHub names no pull requests for runs of forks: search by the head branch, and accept only the right commit.
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

    /// Full hash of the tip of a branch.
    pub async fn tip(&self, repository: &str, branch: &str) -> anyhow::Result<String> {
        let cannot = || format!("cannot find the branch {branch} of {repository}");
        let path = format!("{}/commits?sha={}&per_page=1", root(repository)?, branch.replace('+', "%2B"));
        let commits: Vec<CommitPayload> = self.read(&path).await.with_context(cannot).world()?;
        commits.into_iter().next().map(|commit| commit.sha).with_context(cannot).world()
    }

    /// At most `most` (up to 99) commits before a commit, nearest first, as full hashes.
    pub async fn before(&self, repository: &str, commit: &str, most: u32) -> anyhow::Result<Vec<String>> {
        let path = format!("{}/commits?sha={commit}&per_page={}", root(repository)?, most.min(99) + 1);
        let commits: Vec<CommitPayload> =
            self.read(&path).await.with_context(|| format!("cannot list the commits before {commit}")).world()?;
        Ok(commits.into_iter().skip(1).map(|commit| commit.sha).collect())
    }

    /// Full hash of the merge base of two commits, both named by hash.
    pub async fn merge_base(&self, repository: &str, base: &str, head: &str) -> anyhow::Result<String> {
        #[derive(Deserialize)]
        struct Compared {
            merge_base_commit: CommitPayload,
        }
        for commit in [base, head] {
            if !Commit::is_hash(commit) {
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

    /// The text of a file of a commit; `None` where there is no such file, or the token may not see it. `limit` is the most
    /// bytes that it may have.
    pub async fn file_of(
        &self,
        repository: &str,
        commit: &str,
        path: &str,
        limit: usize,
    ) -> anyhow::Result<Option<String>> {
        let read = async {
            ensure!(Commit::is_hash(commit), "`{commit}` is not a commit hash");
            let plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            let safe = path.split('/').all(|part| plain(part) && !matches!(part, "" | "." | ".."));
            ensure!(safe, "its path has characters that are not asked for");
            let asked = format!("{}/contents/{path}?ref={commit}", root(repository)?);
            let reply = self.transport.call(Request::Get, &asked).await?;
            if reply.status == 404 {
                return Ok(None);
            }
            let file: FilePayload = reply.json().context("it is not a file")?;
            ensure!(file.kind == "file", "it is a {}", file.kind);
            // GitHub answers a link with the file that it leads to, under that file's path.
            ensure!(file.path.as_deref().is_none_or(|at| at == path), "it is a symbolic link");
            ensure!(file.content.len() <= limit * 2, "it is too large");
            let encoded: String = file.content.split_ascii_whitespace().collect();
            Ok(Some(String::from_utf8(BASE64_STANDARD.decode(encoded)?)?))
        };
        read.await.with_context(|| format!("cannot read `{path}` of {commit}"))
    }

    /// Whether the token may see a commit.
    pub async fn has_commit(&self, repository: &str, commit: &str) -> bool {
        let Ok(root) = root(repository) else { return false };
        Commit::is_hash(commit) && self.read::<CommitPayload>(&format!("{root}/commits/{commit}")).await.is_ok()
    }

    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.transport.call(Request::Get, path).await?.json()
    }

    /// Every entry of a list. Pages are requested by number: a `Link` header could send the token to another host.
    pub async fn pages<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<Vec<T>> {
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

#[derive(Deserialize)]
struct FilePayload {
    #[serde(rename = "type")]
    kind: String,
    path: Option<String>,
    #[serde(default)]
    content: String,
}

#[derive(Deserialize)]
struct PullPayload {
    number: u64,
    state: String,
    head: Ref,
    base: Ref,
    user: Option<Login>,
}

#[derive(Deserialize)]
struct Login {
    login: String,
}

#[derive(Deserialize)]
struct Ref {
    sha: String,
    #[serde(rename = "ref")]
    branch: String,
    repo: Option<Repository>,
}

#[derive(Deserialize)]
struct CommitPayload {
    sha: String,
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
            author: pull.user.map(|user| user.login),
        }
    }
}

pub fn root(repository: &str) -> anyhow::Result<String> {
    let repository: names::Repository = repository.parse().mistake()?;
    Ok(format!("/repos/{repository}"))
}
