//! A GitHub on the loopback interface, with a memory: comments, labels, pull requests, comparisons. Every request and
//! every answer is checked against GitHub's own OpenAPI description; what does not conform is kept as a violation and
//! answered with 500. Also the body of `examples/fake_github.rs`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test double may panic")]

#[path = "fake_github/openapi.rs"]
mod openapi;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::Barrier;
use tokio::task::JoinHandle;

use openapi::OpenApi;

/// A workflow's own token: `github-actions[bot]`, may write, may not ask who it is.
pub const ACTIONS_TOKEN: &str = "ghs_workflow0123456789";
/// The token of a workflow that a fork started: may only read.
pub const READ_TOKEN: &str = "ghs_forkreads0123456789";
/// A person's token: `perf-person`.
pub const PERSON_TOKEN: &str = "ghp_person0123456789";

const EXAMPLE: &str = include_str!("../data/github/events/pull_request.opened.json");

/// Compiled once: that takes longer than a test.
static OPENAPI: LazyLock<OpenApi> = LazyLock::new(OpenApi::default);

/// A running fake. It stops when it is dropped.
pub struct FakeGithub {
    /// Base URL of the API, without a trailing slash.
    pub url: String,
    pub state: Arc<State>,
    server: JoinHandle<()>,
}

/// What the fake knows. Lock it to look or to arrange.
#[derive(Default)]
pub struct State {
    pub world: Mutex<World>,
    /// Called with every request as it is answered.
    pub observer: Option<fn(&Seen)>,
}

pub struct World {
    /// `owner/name`; every other repository is 404.
    pub repository: String,
    /// By id, which grows.
    pub comments: BTreeMap<u64, Comment>,
    pub pulls: BTreeMap<u64, Pull>,
    /// The merge base that every comparison of commits has.
    pub merge_base: String,
    /// Kind and text of the files of commits, by commit and path.
    pub files: BTreeMap<(String, String), (&'static str, String)>,
    /// Who did what, of every pull request: entries of GitHub's timeline.
    pub timeline: Vec<Value>,
    pub reviews: Vec<Value>,
    /// Trouble for requests to come.
    pub faults: VecDeque<Fault>,
    /// Requests so far.
    pub seen: Vec<Seen>,
    /// What did not conform to the OpenAPI description or to GitHub's header rules.
    pub violations: Vec<String>,
    /// Where listings of comments wait for each other, each only once.
    meeting: Option<(Arc<Barrier>, usize)>,
    next_id: u64,
}

impl Default for World {
    fn default() -> Self {
        Self {
            repository: "octo-org/octo-repo".to_owned(),
            comments: BTreeMap::new(),
            pulls: BTreeMap::new(),
            merge_base: "5779607b49aab1200488439f02372c57b4f75444".to_owned(),
            files: BTreeMap::new(),
            timeline: Vec::new(),
            reviews: Vec::new(),
            faults: VecDeque::new(),
            seen: Vec::new(),
            violations: Vec::new(),
            meeting: None,
            next_id: 1_000,
        }
    }
}

#[derive(Clone)]
pub struct Comment {
    pub issue: u64,
    pub author: Who,
    pub body: String,
}

#[derive(Clone, PartialEq)]
pub struct Who {
    pub login: String,
    pub bot: bool,
}

#[derive(Clone)]
pub struct Pull {
    pub state: &'static str,
    pub head_sha: String,
    pub head_branch: String,
    /// `owner/name`.
    pub head_repository: String,
    pub labels: Vec<String>,
}

/// A request as it was answered.
#[derive(Clone, serde::Serialize)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub query: String,
    pub body: Value,
    /// Whether a token came with it.
    pub authorized: bool,
    pub status: u16,
}

/// Trouble for the next request with this method whose path contains this text.
pub struct Fault {
    pub method: &'static str,
    pub path: &'static str,
    pub trouble: Trouble,
}

#[derive(Clone)]
pub enum Trouble {
    /// 403, secondary limit, with `retry-after` in seconds.
    SecondaryLimit(u64),
    /// 429 with `retry-after` in seconds.
    TooManyRequests(u64),
    /// 502, and nothing was done.
    BadGateway,
    /// 502, but it was done.
    AnswerLost,
    /// 404.
    NotFound,
    /// 422, as if the body were too long.
    TooLong,
    /// 403, and the message repeats the request's token.
    TokenEchoed,
    /// 302 to another host.
    Elsewhere(String),
}

impl FakeGithub {
    pub async fn start() -> Self {
        Self::start_on(0, None).await
    }

    /// On a port of choice; 0 is any.
    pub async fn start_on(port: u16, observer: Option<fn(&Seen)>) -> Self {
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State { observer, ..State::default() });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, state, server }
    }

    pub fn world<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.state.world.lock().unwrap())
    }

    /// `GET /path`, ... of every request so far, without the query.
    pub fn requests(&self) -> Vec<String> {
        self.world(|world| world.seen.iter().map(|seen| format!("{} {}", seen.method, seen.path)).collect())
    }

    pub fn violations(&self) -> Vec<String> {
        self.world(|world| world.violations.clone())
    }
}

impl Drop for FakeGithub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl World {
    pub fn comment(&mut self, issue: u64, login: &str, bot: bool, body: &str) -> u64 {
        self.next_id += 1;
        let author = Who { login: login.to_owned(), bot };
        self.comments.insert(self.next_id, Comment { issue, author, body: body.to_owned() });
        self.next_id
    }

    pub fn fault(&mut self, method: &'static str, path: &'static str, trouble: Trouble) {
        self.faults.push_back(Fault { method, path, trouble });
    }

    /// The next `count` listings of comments are answered together.
    pub fn meet(&mut self, count: usize) {
        self.meeting = Some((Arc::new(Barrier::new(count)), count));
    }

    fn trouble(&mut self, method: &str, path: &str) -> Option<Trouble> {
        let found = self.faults.iter().position(|fault| fault.method == method && path.contains(fault.path))?;
        self.faults.remove(found).map(|fault| fault.trouble)
    }

    fn join_meeting(&mut self) -> Option<Arc<Barrier>> {
        let (barrier, left) = self.meeting.as_mut()?;
        *left = left.checked_sub(1)?;
        Some(Arc::clone(barrier))
    }
}

type Answer = (StatusCode, Vec<(&'static str, String)>, Value);

async fn answer(Shared(state): Shared<Arc<State>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let (method, path) = (parts.method.as_str().to_owned(), parts.uri.path().to_owned());
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let bytes = to_bytes(body, 4 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);

    let mut violations = header_violations(&parts.headers);
    violations.extend(OPENAPI.check_request(&method, &path, &query, &body));
    let base = format!("http://{}", parts.headers["host"].to_str().unwrap());
    let token = parts.headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let token = token.unwrap_or_default().to_owned();

    let meeting =
        if method == "GET" && path.ends_with("/comments") { state.world.lock().unwrap().join_meeting() } else { None };
    let (status, headers, reply) = {
        let mut world = state.world.lock().unwrap();
        let call = Call { base: &base, method: &method, path: &path, query: &query, body: &body, token: &token };
        match world.trouble(&method, &path) {
            _ if !violations.is_empty() => plain(500, "VIOLATIONS"),
            Some(Trouble::AnswerLost) => {
                call.answer(&mut world);
                plain(502, "Server Error")
            }
            Some(trouble) => call.troubled(trouble),
            None => call.answer(&mut world),
        }
    };
    if let Some(barrier) = meeting {
        barrier.wait().await;
    }
    if violations.is_empty() {
        violations.extend(OPENAPI.check_answer(&method, &path, status.as_u16(), &reply));
    }
    let (authorized, status_code) = (!token.is_empty(), if violations.is_empty() { status.as_u16() } else { 500 });
    let seen = Seen { method: method.clone(), path: path.clone(), query, body, authorized, status: status_code };
    if let Some(observe) = state.observer {
        observe(&seen);
    }
    let mut world = state.world.lock().unwrap();
    world.seen.push(seen);
    let mut response = Response::builder().status(status).header("content-type", "application/json; charset=utf-8");
    for (name, value) in headers {
        response = response.header(name, value);
    }
    if !violations.is_empty() {
        let text = json!({"message": format!("VIOLATIONS: {}", violations.join("; "))}).to_string();
        world.violations.extend(violations.into_iter().map(|violation| format!("{method} {path}: {violation}")));
        return Response::builder().status(500).body(Body::from(text)).unwrap();
    }
    response.body(if status == 204 { Body::empty() } else { Body::from(reply.to_string()) }).unwrap()
}

fn header_violations(headers: &HeaderMap) -> Vec<String> {
    let is = |name: &str, value: &str| headers.get(name).is_some_and(|there| there == value);
    let mut violations = Vec::new();
    if !is("accept", "application/vnd.github+json") {
        violations.push("no `accept: application/vnd.github+json`".to_owned());
    }
    if !is("x-github-api-version", "2022-11-28") {
        violations.push("no `x-github-api-version: 2022-11-28`".to_owned());
    }
    if !headers.contains_key("user-agent") {
        violations.push("no user agent".to_owned());
    }
    violations
}

fn plain(status: u16, message: &str) -> Answer {
    let documentation = "https://docs.github.com/rest";
    let reply = json!({"message": message, "documentation_url": documentation, "status": status.to_string()});
    (StatusCode::from_u16(status).unwrap(), Vec::new(), reply)
}

fn done(status: u16, reply: Value) -> Answer {
    (StatusCode::from_u16(status).unwrap(), Vec::new(), reply)
}

struct Call<'a> {
    base: &'a str,
    method: &'a str,
    path: &'a str,
    query: &'a str,
    body: &'a Value,
    token: &'a str,
}

impl Call<'_> {
    fn troubled(&self, trouble: Trouble) -> Answer {
        let limited = |status, seconds: u64, message: &str| {
            let (status, _, reply) = plain(status, message);
            (status, vec![("retry-after", seconds.to_string())], reply)
        };
        match trouble {
            Trouble::SecondaryLimit(seconds) => limited(
                403,
                seconds,
                "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.",
            ),
            Trouble::TooManyRequests(seconds) => limited(429, seconds, "API rate limit exceeded"),
            Trouble::BadGateway | Trouble::AnswerLost => plain(502, "Server Error"),
            Trouble::NotFound => plain(404, "Not Found"),
            Trouble::TooLong => too_long(),
            Trouble::TokenEchoed => plain(403, &format!("Bad Authorization: Bearer {}", self.token)),
            Trouble::Elsewhere(url) => {
                (StatusCode::FOUND, vec![("location", url)], json!({"message": "Moved temporarily"}))
            }
        }
    }

    fn answer(&self, world: &mut World) -> Answer {
        let Some(who) = self.who() else { return plain(401, "Bad credentials") };
        let parts: Vec<&str> = self.path.trim_start_matches('/').split('/').collect();
        if let ["repos", owner, name, ..] = parts[..]
            && format!("{owner}/{name}") != world.repository
        {
            return plain(404, "Not Found");
        }
        match (self.method, &parts[..]) {
            ("GET", ["user"]) if who.bot => plain(403, "Resource not accessible by integration"),
            ("GET", ["user"]) => done(200, self.account(&who)),
            (method, _) if method != "GET" && self.token == READ_TOKEN => {
                plain(403, "Resource not accessible by integration")
            }
            ("GET", ["repos", _, _, "issues", number, "labels"]) => self.with_pull(world, number, |pull| {
                let labels = pull.labels.iter().zip(1..).map(|(name, id)| self.label(name, id)).collect();
                self.page(labels)
            }),
            ("GET", ["repos", _, _, "issues", number, "comments"]) => {
                let of_issue = |comment: &&Comment| comment.issue.to_string() == *number;
                let all = world.comments.iter().filter(|(_, comment)| of_issue(comment));
                self.page(all.map(|(id, comment)| self.comment(&world.repository, *id, comment)).collect())
            }
            ("POST", ["repos", _, _, "issues", number, "comments"]) => {
                let Some(body) = self.text() else { return too_long() };
                let id = world.comment(number.parse().unwrap(), &who.login, who.bot, &body);
                done(201, self.comment(&world.repository, id, &world.comments[&id]))
            }
            (_, ["repos", _, _, "issues", "comments", id]) => self.one_comment(world, &who, id.parse().unwrap()),
            ("GET", ["repos", _, _, "pulls", number]) => {
                let (repository, number) = (world.repository.clone(), *number);
                self.with_pull(world, number, |pull| done(200, self.pull(&repository, number.parse().unwrap(), pull)))
            }
            ("GET", ["repos", _, _, "pulls"]) => {
                let head = openapi::parameters(self.query).into_iter().find(|(name, _)| name == "head");
                let matches = |pull: &&Pull| {
                    let owner = pull.head_repository.split('/').next().unwrap();
                    let named = format!("{owner}:{}", pull.head_branch);
                    pull.state == "open" && head.as_ref().is_none_or(|(_, head)| *head == named)
                };
                let found = world.pulls.iter().filter(|(_, pull)| matches(pull));
                self.page(found.map(|(number, pull)| self.pull(&world.repository, *number, pull)).collect())
            }
            ("GET", ["repos", _, _, "issues", _, "timeline"]) => self.page(world.timeline.clone()),
            ("GET", ["repos", _, _, "pulls", _, "reviews"]) => self.page(world.reviews.clone()),
            ("GET", ["repos", _, _, "commits", sha]) if world.files.keys().any(|(commit, _)| commit == sha) => {
                done(200, self.commit(sha))
            }
            ("GET", ["repos", _, _, "contents", path @ ..]) => self.file(world, &path.join("/")),
            ("GET", ["repos", _, _, "commits"]) => {
                let commits = [world.merge_base.as_str(), "7f42dc20bb2800d09faa72b26f25d54e26f1b694"];
                self.page(commits.map(|sha| self.commit(sha)).to_vec())
            }
            ("GET", ["repos", _, _, "compare", range]) => match range.split_once("...") {
                Some((base, _)) => done(200, self.compared(world, base)),
                None => plain(404, "Not Found"),
            },
            _ => plain(404, "Not Found"),
        }
    }

    fn file(&self, world: &World, path: &str) -> Answer {
        let commit = openapi::parameters(self.query).into_iter().find(|(name, _)| name == "ref").unwrap().1;
        match world.files.get(&(commit, path.to_owned())) {
            // GitHub follows a link, and answers with the path that it leads to.
            Some((kind, text)) => {
                let at = if *kind == "link" { "elsewhere.yml" } else { path };
                let kind = if *kind == "link" { "file" } else { kind };
                let content = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, text);
                done(
                    200,
                    json!({"type": kind, "encoding": "base64", "size": text.len(), "name": at, "path": at, "content": content, "sha": "1"}),
                )
            }
            None => plain(404, "Not Found"),
        }
    }

    fn one_comment(&self, world: &mut World, who: &Who, id: u64) -> Answer {
        let repository = world.repository.clone();
        let Some(comment) = world.comments.get_mut(&id) else { return plain(404, "Not Found") };
        match self.method {
            "GET" => done(200, self.comment(&repository, id, comment)),
            // Who may write may edit what persons wrote: only the client's own care keeps their comments whole.
            _ if comment.author.bot && comment.author != *who => plain(403, "Resource not accessible by integration"),
            "DELETE" => {
                world.comments.remove(&id);
                done(204, Value::Null)
            }
            _ => {
                let Some(body) = self.text() else { return too_long() };
                comment.body = body;
                done(200, self.comment(&repository, id, comment))
            }
        }
    }

    fn who(&self) -> Option<Who> {
        match self.token {
            ACTIONS_TOKEN | READ_TOKEN => Some(Who { login: "github-actions[bot]".to_owned(), bot: true }),
            PERSON_TOKEN => Some(Who { login: "perf-person".to_owned(), bot: false }),
            _ => None,
        }
    }

    /// The body of a comment; GitHub refuses one over 262,144 bytes.
    fn text(&self) -> Option<String> {
        self.body["body"].as_str().filter(|body| body.len() <= 262_144).map(str::to_owned)
    }

    fn with_pull(&self, world: &World, number: &str, then: impl FnOnce(&Pull) -> Answer) -> Answer {
        match number.parse().ok().and_then(|number: u64| world.pulls.get(&number)) {
            Some(pull) => then(pull),
            None => plain(404, "Not Found"),
        }
    }

    fn page(&self, entries: Vec<Value>) -> Answer {
        let parameters: BTreeMap<_, _> = openapi::parameters(self.query).into_iter().collect();
        let number = |name: &str, default| parameters.get(name).map_or(default, |value| value.parse().unwrap());
        let (size, page) = (number("per_page", 30_usize).min(100), number("page", 1));
        let more = entries.len() > page * size;
        let entries = entries.into_iter().skip((page - 1) * size).take(size).collect();
        // The real one names its own host; a careless client would follow it with the token.
        let link = format!("<https://api.github.example{}?page={}>; rel=\"next\"", self.path, page + 1);
        (StatusCode::OK, if more { vec![("link", link)] } else { Vec::new() }, Value::Array(entries))
    }

    fn user(&self, who: &Who) -> Value {
        let url = format!("{}/users/{}", self.base, who.login.replace(['[', ']'], "-"));
        json!({
            "login": who.login, "id": 41_898_282, "node_id": "MDM6Qm90", "avatar_url": url, "gravatar_id": "", "url": url,
            "html_url": url, "followers_url": url, "following_url": url, "gists_url": url, "starred_url": url,
            "subscriptions_url": url, "organizations_url": url, "repos_url": url, "events_url": url,
            "received_events_url": url, "type": if who.bot { "Bot" } else { "User" }, "site_admin": false,
        })
    }

    fn account(&self, who: &Who) -> Value {
        let mut account = self.user(who);
        let more = json!({
            "name": null, "company": null, "blog": "", "location": null, "email": null, "hireable": null, "bio": null,
            "public_repos": 0, "public_gists": 0, "followers": 0, "following": 0, "user_view_type": "public",
            "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
        });
        account.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        account
    }

    fn comment(&self, repository: &str, id: u64, comment: &Comment) -> Value {
        let issue = format!("{}/repos/{repository}/issues/{}", self.base, comment.issue);
        let app = comment.author.bot.then(|| {
            json!({
                "id": 15_368, "slug": comment.author.login.trim_end_matches("[bot]"), "node_id": "MDM6QXBw",
                "owner": self.user(&Who { login: "github".to_owned(), bot: false }), "name": "GitHub Actions",
                "description": null, "external_url": "https://help.github.com/en/actions",
                "html_url": "https://github.com/apps/github-actions", "created_at": "2018-07-30T09:30:17Z",
                "updated_at": "2019-12-10T19:04:12Z", "permissions": {"issues": "write"}, "events": [],
            })
        });
        json!({
            "id": id, "node_id": format!("IC_{id}"), "url": format!("{}/repos/{repository}/issues/comments/{id}", self.base),
            "html_url": format!("{}/{repository}/pull/{}#issuecomment-{id}", self.base, comment.issue),
            "body": comment.body, "user": self.user(&comment.author), "created_at": "2026-11-24T12:00:00Z",
            "updated_at": "2026-11-24T12:00:00Z", "issue_url": issue, "author_association": "NONE",
            "performed_via_github_app": app,
        })
    }

    fn label(&self, name: &str, id: u64) -> Value {
        let url = format!("{}/labels/{id}", self.base);
        json!({"id": id, "node_id": "LA", "url": url, "name": name, "description": null, "color": "ededed", "default": false})
    }

    /// GitHub's own example with this pull request's state in it.
    fn pull(&self, repository: &str, number: u64, pull: &Pull) -> Value {
        let example: Value = serde_json::from_str(EXAMPLE).unwrap();
        let mut payload = example["pull_request"].clone();
        payload["auto_merge"] = Value::Null;
        payload["number"] = json!(number);
        payload["state"] = json!(pull.state);
        payload["head"]["sha"] = json!(pull.head_sha);
        payload["head"]["ref"] = json!(pull.head_branch);
        payload["head"]["repo"]["full_name"] = json!(pull.head_repository);
        payload["base"]["repo"]["full_name"] = json!(repository);
        payload["labels"] = pull.labels.iter().zip(1..).map(|(name, id)| self.label(name, id)).collect();
        for label in payload["labels"].as_array_mut().unwrap() {
            label["description"] = json!("");
        }
        payload
    }

    fn compared(&self, world: &World, base: &str) -> Value {
        let url = format!("{}{}", self.base, self.path);
        json!({
            "url": url, "html_url": url, "permalink_url": url, "diff_url": url, "patch_url": url,
            "base_commit": self.commit(base), "merge_base_commit": self.commit(&world.merge_base), "status": "diverged",
            "ahead_by": 1, "behind_by": 2, "total_commits": 0, "commits": [], "files": [],
        })
    }

    fn commit(&self, sha: &str) -> Value {
        let url = format!("{}/commits/{sha}", self.base);
        let person = json!({"name": "Octo", "email": "octo@example.com", "date": "2026-11-24T12:00:00Z"});
        json!({
            "url": url, "sha": sha, "node_id": "C", "html_url": url, "comments_url": url, "author": null,
            "committer": null, "parents": [],
            "commit": {"url": url, "author": person, "committer": person, "message": "a commit", "comment_count": 0,
                "tree": {"sha": sha, "url": url}},
        })
    }
}

fn too_long() -> Answer {
    let message = "body is too long (maximum is 65536 characters)";
    let error = json!({"resource": "IssueComment", "code": "unprocessable", "field": "data", "message": message});
    let reply =
        json!({"message": "Validation Failed", "errors": [error], "documentation_url": "https://docs.github.com/rest"});
    done(422, reply)
}
