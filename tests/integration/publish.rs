//! Publishing against a stateful fake of GitHub and a recording fake of the Buildkite agent.

#![allow(clippy::unwrap_used, reason = "tests: the functions that they share may panic as they do")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use vllm_perf::ci::event::{CiRun, CompletedRun};
use vllm_perf::environment::{Environment, Secret};
use vllm_perf::exit::{self, Exit};
use vllm_perf::plan::config::record_rules::KeyCase;
use vllm_perf::publish::comment::{self, Action, Stamp};
use vllm_perf::publish::{CommentFailure, MainTargets, Publication, Texts, comment_id, configuration, publish};
use vllm_perf::report::markdown::marker;
use vllm_perf::system::buildkite_agent::{Agent, Style};
use vllm_perf::system::delivery::Delivery;
use vllm_perf::system::github::{Github, PullRequest};
use vllm_perf::system::retry_policy::RetryPolicy;
use vllm_verdict::Untrusted;
use vllm_verdict::v1::{Comparison, Event, LabelsSource, Provider};

use crate::fake_github::{ACTIONS_TOKEN, FakeGithub, PERSON_TOKEN, Pull, READ_TOKEN, Trouble};

const REPOSITORY: &str = "octo-org/octo-repo";
const HEAD: &str = "34c5c7793cb3b279e22454cb6750c80560547b3a";
const MOVED: &str = "ffffffff93cb3b279e22454cb6750c80560547b3";
const ID: &str = "3f9c0a1b2c4d";
const COMMENTS: &str = "/repos/octo-org/octo-repo/issues/42/comments";

fn github(fake: &FakeGithub, token: &str) -> Github {
    let policy = RetryPolicy { second: Duration::from_millis(1), ..RetryPolicy::default() };
    Github::new(Some(&fake.url), Secret::from(token.to_owned()), policy).unwrap()
}

pub(super) fn pull(head_repository: &str) -> Pull {
    Pull {
        state: "open",
        head_sha: HEAD.to_owned(),
        head_branch: "faster & #1".to_owned(),
        head_repository: head_repository.to_owned(),
        labels: vec!["perf-benchmarks".to_owned(), "ready".to_owned()],
    }
}

async fn fake_with_pull() -> FakeGithub {
    let fake = FakeGithub::start().await;
    fake.world(|world| world.pulls.insert(42, pull(REPOSITORY)));
    fake
}

/// Author and text of every comment.
fn comments(fake: &FakeGithub) -> Vec<(String, String)> {
    fake.world(|world| world.comments.values().map(|c| (c.author.login.clone(), c.body.clone())).collect())
}

fn own(text: &str) -> (String, String) {
    ("github-actions[bot]".to_owned(), format!("{}\n{text}", marker(ID)))
}

/// The comment of a report of [`HEAD`].
fn reported(text: &str) -> (String, String) {
    ("github-actions[bot]".to_owned(), format!("<!-- vllm-perf:v1 id={ID} head={HEAD} -->\n{text}"))
}

fn none() -> Vec<String> {
    Vec::new()
}

#[tokio::test]
async fn a_comment_is_created_then_edited_and_left_alone_where_nothing_changed() {
    let fake = fake_with_pull().await;
    let github = github(&fake, ACTIONS_TOKEN);
    let mut actions = Vec::new();
    for body in ["first", "second", "second\n"] {
        actions.push(comment::stick(&github, REPOSITORY, 42, ID, body).await.unwrap());
    }
    assert_eq!(
        actions.iter().map(|posted| posted.action).collect::<Vec<_>>(),
        [Action::Created, Action::Edited, Action::Unchanged]
    );
    assert_eq!(comments(&fake), [own("second")]);
    assert!(actions.iter().all(|posted| posted.url == actions[0].url), "{actions:?}");
    assert_eq!(comment::existing(&github, REPOSITORY, 42, ID).await.unwrap(), Some(own("second").1));
    assert_eq!(comment::existing(&github, REPOSITORY, 42, "000000000000").await.unwrap(), None);
    assert_eq!(fake.violations(), none());
    let writes: Vec<_> = fake.requests().into_iter().filter(|request| !request.starts_with("GET")).collect();
    assert_eq!(writes, [format!("POST {COMMENTS}"), "PATCH /repos/octo-org/octo-repo/issues/comments/1001".to_owned()]);
}

#[tokio::test]
async fn the_comment_is_found_behind_250_others_and_no_link_header_is_followed() {
    let fake = fake_with_pull().await;
    fake.world(|world| {
        for n in 0..250 {
            world.comment(42, "someone", false, &format!("comment {n}"));
        }
        world.comment(42, "github-actions[bot]", true, &own("old").1);
    });
    let posted = comment::stick(&github(&fake, ACTIONS_TOKEN), REPOSITORY, 42, ID, "new").await.unwrap();
    assert_eq!(posted.action, Action::Edited);
    let all = comments(&fake);
    assert_eq!((all.len(), all.last()), (251, Some(&own("new"))));
    let pages = fake.world(|world| {
        world.seen.iter().filter(|seen| seen.path == COMMENTS).map(|seen| seen.query.clone()).collect::<Vec<_>>()
    });
    assert_eq!(pages, ["per_page=100&page=1", "per_page=100&page=2", "per_page=100&page=3"]);
    assert_eq!(fake.violations(), none());
}

#[tokio::test]
async fn a_comment_of_another_user_with_the_marker_is_never_touched() {
    let fake = fake_with_pull().await;
    let planted = format!("{}\nregressed nothing, merge me", marker(ID));
    fake.world(|world| {
        world.comment(42, "stranger", false, &planted);
        world.comment(42, "other-app[bot]", true, &planted);
        world.comment(42, "github-actions[bot]", true, &format!("quoted:\n{planted}"));
    });
    let github = github(&fake, ACTIONS_TOKEN);
    for text in ["one", "two"] {
        comment::stick(&github, REPOSITORY, 42, ID, text).await.unwrap();
    }
    let all = comments(&fake);
    assert_eq!(all[0], ("stranger".to_owned(), planted.clone()));
    assert_eq!(all[1], ("other-app[bot]".to_owned(), planted.clone()));
    assert_eq!(all[2].1, format!("quoted:\n{planted}"));
    assert_eq!(all[3..], [own("two")]);
}

#[tokio::test]
async fn a_personal_token_only_edits_comments_of_its_user() {
    let fake = fake_with_pull().await;
    fake.world(|world| world.comment(42, "github-actions[bot]", true, &own("of the workflow").1));
    let github = github(&fake, PERSON_TOKEN);
    for text in ["one", "two"] {
        comment::stick(&github, REPOSITORY, 42, ID, text).await.unwrap();
    }
    let person = ("perf-person".to_owned(), own("two").1);
    assert_eq!(comments(&fake), [own("of the workflow"), person]);
    assert_eq!(fake.violations(), none());
}

#[tokio::test]
async fn two_jobs_at_once_leave_one_comment() {
    // As large as a comment may be.
    let [first, second] = ["1", "2"].map(|digit| digit.repeat(59_900));
    for _ in 0..10 {
        let fake = fake_with_pull().await;
        fake.world(|world| world.meet(2));
        let (one, two) = (github(&fake, ACTIONS_TOKEN), github(&fake, ACTIONS_TOKEN));
        let both = tokio::join!(
            comment::stick(&one, REPOSITORY, 42, ID, &first),
            comment::stick(&two, REPOSITORY, 42, ID, &second),
        );
        both.0.unwrap();
        both.1.unwrap();
        let posts = fake.requests().into_iter().filter(|request| request.starts_with("POST")).count();
        let left = comments(&fake);
        assert_eq!((posts, left.len()), (2, 1), "{:?}", fake.requests());
        assert!(left[0] == own(&first) || left[0] == own(&second), "{}: {} bytes", left[0].0, left[0].1.len());
        assert_eq!(fake.violations(), none());
    }
}

#[tokio::test]
async fn duplicates_of_an_older_race_are_removed_with_the_next_edit() {
    let fake = fake_with_pull().await;
    fake.world(|world| {
        for text in ["a", "b", "c"] {
            world.comment(42, "github-actions[bot]", true, &own(text).1);
        }
    });
    let posted = comment::stick(&github(&fake, ACTIONS_TOKEN), REPOSITORY, 42, ID, "d").await.unwrap();
    assert_eq!((posted.action, posted.duplicates_removed), (Action::Edited, 2));
    assert_eq!(comments(&fake), [own("d")]);
}

#[tokio::test]
async fn a_missing_permission_is_explained_after_one_request() {
    let fake = fake_with_pull().await;
    let error = comment::stick(&github(&fake, READ_TOKEN), REPOSITORY, 42, ID, "text").await.unwrap_err();
    assert_eq!(exit::of(&error), Exit::World);
    insta::assert_snapshot!(format!("{error:#}"), @"cannot comment on octo-org/octo-repo#42: the token is not allowed to POST /repos/octo-org/octo-repo/issues/42/comments (Resource not accessible by integration): give the job `permissions: {pull-requests: write}`; for a pull request from a fork or from Dependabot the token only ever reads, so comment from a `workflow_run` workflow");
    let posts = fake.requests().into_iter().filter(|request| request.starts_with("POST")).count();
    assert_eq!(posts, 1);
}

#[tokio::test]
async fn requests_are_retried_after_rate_limits_and_server_errors() {
    let fake = fake_with_pull().await;
    fake.world(|world| {
        world.fault("GET", "/comments", Trouble::TooManyRequests(3));
        world.fault("POST", "/comments", Trouble::SecondaryLimit(5));
        world.fault("POST", "/comments", Trouble::SecondaryLimit(5));
        world.fault("PATCH", "/comments", Trouble::BadGateway);
    });
    let github = github(&fake, ACTIONS_TOKEN);
    assert_eq!(comment::stick(&github, REPOSITORY, 42, ID, "one").await.unwrap().action, Action::Created);
    assert_eq!(comment::stick(&github, REPOSITORY, 42, ID, "two").await.unwrap().action, Action::Edited);
    assert_eq!(comments(&fake), [own("two")]);
    assert_eq!(fake.violations(), none());
}

#[tokio::test]
async fn retries_end_at_the_limit_of_attempts_and_of_time() {
    let fake = fake_with_pull().await;
    fake.world(|world| {
        for _ in 0..3 {
            world.fault("GET", "/labels", Trouble::BadGateway);
        }
        world.fault("GET", "/pulls", Trouble::SecondaryLimit(600));
    });
    let github = github(&fake, ACTIONS_TOKEN);
    let given_up = github.labels(REPOSITORY, 42).await.unwrap_err();
    let too_long = github.pull_request(REPOSITORY, 42).await.unwrap_err();
    insta::assert_snapshot!(format!("{given_up:#}\n{too_long:#}"), @r"
    cannot read the labels of octo-org/octo-repo#42: GitHub answered 502 to GET /repos/octo-org/octo-repo/issues/42/labels?per_page=100&page=1: Server Error; gave up after 3 attempts
    cannot read octo-org/octo-repo#42: GitHub answered 403 to GET /repos/octo-org/octo-repo/pulls/42: You have exceeded a secondary rate limit. Please wait a few minutes before you try again.; the next attempt should wait 600 s, but only 117 s of waiting remain
    ");
    assert_eq!(fake.requests().len(), 4);
}

#[tokio::test]
async fn a_post_without_a_response_is_looked_up_before_it_is_repeated() {
    let fake = fake_with_pull().await;
    fake.world(|world| world.fault("POST", "/comments", Trouble::AnswerLost));
    let github = github(&fake, ACTIONS_TOKEN);
    comment::stick(&github, REPOSITORY, 42, ID, "text").await.unwrap();
    assert_eq!(comments(&fake), [own("text")]);
    fake.world(|world| {
        world.comments.clear();
        world.fault("POST", "/comments", Trouble::BadGateway);
    });
    comment::stick(&github, REPOSITORY, 42, ID, "text").await.unwrap();
    assert_eq!(comments(&fake), [own("text")]);
}

#[tokio::test]
async fn a_comment_that_was_deleted_during_an_edit_is_created_again() {
    let fake = fake_with_pull().await;
    let github = github(&fake, ACTIONS_TOKEN);
    fake.world(|world| world.comment(7, "github-actions[bot]", true, "of another pull request"));
    comment::stick(&github, REPOSITORY, 42, ID, "one").await.unwrap();
    fake.world(|world| {
        world.fault("PATCH", "/comments", Trouble::NotFound);
        world.fault("PATCH", "/comments", Trouble::NotFound);
    });
    let posted = comment::stick(&github, REPOSITORY, 42, ID, "two").await.unwrap();
    assert_eq!(posted.action, Action::Created);
    assert_eq!(comments(&fake).last(), Some(&own("two")));
}

#[tokio::test]
async fn a_text_that_github_finds_too_long_becomes_its_headline() {
    let fake = fake_with_pull().await;
    let body = format!("### vLLM performance on `cpu`: 2 regressed\n\n{}", "| row |\n".repeat(40_000));
    let github = github(&fake, ACTIONS_TOKEN);
    let posted = comment::stick(&github, REPOSITORY, 42, ID, &body).await.unwrap();
    assert!(posted.shortened);
    fake.world(|world| world.fault("PATCH", "/comments", Trouble::TooLong));
    assert!(comment::stick(&github, REPOSITORY, 42, ID, "### one line").await.unwrap().shortened);
    fake.world(|world| world.comments.clear());
    comment::stick(&github, REPOSITORY, 42, ID, &body).await.unwrap();
    insta::assert_snapshot!(comments(&fake)[0].1, @r"
    <!-- vllm-perf:v1 id=3f9c0a1b2c4d -->
    ### vLLM performance on `cpu`: 2 regressed

    The report is too long for a comment. It is in the job summary and in the artifact.
    ");
    assert_eq!(fake.violations(), none());
}

#[tokio::test]
async fn the_token_is_never_in_an_error_even_if_github_echoes_it() {
    let fake = fake_with_pull().await;
    fake.world(|world| {
        world.fault("GET", "/labels", Trouble::TokenEchoed);
        world.fault("POST", "/comments", Trouble::TokenEchoed);
    });
    let github = github(&fake, ACTIONS_TOKEN);
    let wrong = github_with_wrong_token(&fake);
    let errors = [
        github.labels(REPOSITORY, 42).await.unwrap_err(),
        comment::stick(&github, REPOSITORY, 42, ID, "text").await.unwrap_err(),
        github.labels(REPOSITORY, 43).await.unwrap_err(),
        github.labels("octo-org/../user", 43).await.unwrap_err(),
        wrong.labels(REPOSITORY, 42).await.unwrap_err(),
    ];
    let texts = errors.iter().map(|error| format!("{error:#}")).collect::<Vec<_>>().join("\n");
    let debugged = errors.iter().map(|error| format!("{error:?}")).collect::<String>();
    assert!(!texts.contains("ghs_") && !debugged.contains("ghs_"), "{texts}\n{debugged}");
    insta::assert_snapshot!(texts, @r"
    cannot read the labels of octo-org/octo-repo#42: the token is not allowed to GET /repos/octo-org/octo-repo/issues/42/labels?per_page=100&page=1 (Bad Authorization: Bearer ***): give the job `permissions: {pull-requests: read}`; for a pull request from a fork or from Dependabot the token only ever reads, so comment from a `workflow_run` workflow
    cannot comment on octo-org/octo-repo#42: the token is not allowed to POST /repos/octo-org/octo-repo/issues/42/comments (Bad Authorization: Bearer ***): give the job `permissions: {pull-requests: write}`; for a pull request from a fork or from Dependabot the token only ever reads, so comment from a `workflow_run` workflow
    cannot read the labels of octo-org/octo-repo#43: GitHub answered 404 to GET /repos/octo-org/octo-repo/issues/43/labels?per_page=100&page=1: Not Found; it does not exist, or the token may not see it
    `octo-org/../user` is not a repository: expected owner/name
    cannot read the labels of octo-org/octo-repo#42: GitHub refused the token (Bad credentials): it is wrong, expired or revoked
    ");
}

fn github_with_wrong_token(fake: &FakeGithub) -> Github {
    github(fake, "ghs_revoked0123456789")
}

#[tokio::test]
async fn a_redirect_to_another_host_does_not_take_the_token_along() {
    let (fake, elsewhere) = (fake_with_pull().await, FakeGithub::start().await);
    fake.world(|world| world.fault("GET", "/labels", Trouble::Elsewhere(format!("{}/user", elsewhere.url))));
    github(&fake, ACTIONS_TOKEN).labels(REPOSITORY, 42).await.unwrap_err();
    let authorized = elsewhere.world(|world| world.seen.iter().map(|seen| seen.authorized).collect::<Vec<_>>());
    assert_eq!(authorized, [false]);
}

#[tokio::test]
async fn labels_merge_base_and_pull_request_are_read_as_they_are_now() {
    let fake = fake_with_pull().await;
    let github = github(&fake, ACTIONS_TOKEN);
    assert_eq!(github.labels(REPOSITORY, 42).await.unwrap(), ["perf-benchmarks", "ready"]);
    let base = "a10867b14bb761a232cd80139fbd4c0d33264240";
    assert_eq!(github.merge_base(REPOSITORY, base, HEAD).await.unwrap(), "5779607b49aab1200488439f02372c57b4f75444");
    assert_eq!(
        github.pull_request(REPOSITORY, 42).await.unwrap(),
        PullRequest {
            number: 42,
            state: "open".to_owned(),
            head_sha: HEAD.to_owned(),
            head_repository: Some(REPOSITORY.to_owned()),
            base_sha: "f95f852bd8fca8fcc58a9a2d6c842781e32a215e".to_owned(),
            base_branch: "master".to_owned(),
            author: Some("Codertocat".to_owned()),
        }
    );
    assert_eq!(github.tip(REPOSITORY, "main").await.unwrap(), "5779607b49aab1200488439f02372c57b4f75444");
    let before = github.before(REPOSITORY, "5779607b49aab1200488439f02372c57b4f75444", 1).await.unwrap();
    assert_eq!(before, ["7f42dc20bb2800d09faa72b26f25d54e26f1b694"]);
    let error = github.merge_base(REPOSITORY, "main", HEAD).await.unwrap_err();
    assert_eq!((exit::of(&error), error.to_string().as_str()), (Exit::Mistake, "`main` is not a commit hash"));
    assert_eq!(fake.violations(), none());
}

fn completed() -> CompletedRun {
    CompletedRun {
        event: "pull_request".to_owned(),
        conclusion: Some("success".to_owned()),
        head_sha: HEAD.to_owned(),
        head_branch: "faster & #1".to_owned(),
        head_repository: Some("stranger/octo-repo".to_owned()),
        pull_requests: Vec::new(),
        url: None,
        number: Some(7),
    }
}

#[tokio::test]
async fn the_pull_request_of_a_forks_run_is_the_one_with_its_branch_and_its_commit() {
    let fake = fake_with_pull().await;
    let github = github(&fake, ACTIONS_TOKEN);
    let number = async |run: &CompletedRun| {
        github.resolve_pull_request(run, REPOSITORY).await.map(|pull| pull.map(|pull| pull.number))
    };
    assert_eq!(number(&completed()).await.unwrap(), None);
    fake.world(|world| world.pulls.insert(7, pull("stranger/octo-repo")));
    assert_eq!(number(&completed()).await.unwrap(), Some(7));
    assert_eq!(number(&CompletedRun { pull_requests: vec![42], ..completed() }).await.unwrap(), Some(42));
    assert_eq!(number(&CompletedRun { head_sha: MOVED.to_owned(), ..completed() }).await.unwrap(), None);
    assert_eq!(number(&CompletedRun { head_repository: None, ..completed() }).await.unwrap(), None);
    fake.world(|world| world.pulls.insert(8, pull("stranger/octo-repo")));
    assert_eq!(
        number(&completed()).await.unwrap_err().to_string(),
        format!("pull requests 7 and 8 of {REPOSITORY} both have {HEAD} at their head: cannot tell which was measured")
    );
    assert_eq!(fake.violations(), none());
}

fn event(name: &str, pull_request: Option<u64>) -> Event {
    Event {
        provider: Provider::Github,
        name: name.to_owned(),
        action: None,
        changed_label: None,
        repository: Some(REPOSITORY.to_owned()),
        branch: None,
        head_sha: Some(HEAD.to_owned()),
        base_sha: None,
        base_branch: None,
        pull_request,
        labels: Vec::new(),
        labels_source: LabelsSource::Payload,
        configuration: None,
        fork: false,
    }
}

fn comparison() -> Comparison {
    serde_json::from_str(include_str!("../data/comparison/comparison.json")).unwrap()
}

/// The inputs of a publishing step, without the destinations.
struct Step {
    event: Event,
    run: CiRun,
    comparison: Comparison,
    folder: tempfile::TempDir,
}

impl Step {
    fn new(event: Event) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("vllm-perf-out")).unwrap();
        fs::File::create(folder.path().join("vllm-perf-out/plan.json")).unwrap();
        let run = CiRun { step_summary: Some(folder.path().join("summary.md")), ..CiRun::default() };
        Self { event, run, comparison: comparison(), folder }
    }

    async fn publish(
        &self,
        github: Option<&Github>,
        agent: Option<&Agent>,
    ) -> anyhow::Result<vllm_perf::publish::Deliveries> {
        let comment = |moved: Option<&str>| format!("measured, head is now {}", moved.unwrap_or("the same"));
        publish(&Publication {
            event: &self.event,
            run: &self.run,
            commit: self.event.head_sha.as_deref(),
            comparison: &self.comparison,
            comment_id: ID,
            texts: Texts { comment: &comment, summary: "### summary", annotation: "**annotation**" },
            folder: &self.folder.path().join("vllm-perf-out"),
            github,
            agent,
            main: MainTargets { branches: &["main".to_owned()], model_key: KeyCase::Kept, records: None, rows: None },
        })
        .await
    }

    fn summary(&self) -> String {
        fs::read_to_string(self.folder.path().join("summary.md")).unwrap_or_default()
    }
}

#[tokio::test]
async fn a_pull_request_gets_its_comment_and_the_job_its_summary() {
    let fake = fake_with_pull().await;
    let step = Step::new(event("pull_request", Some(42)));
    let report = step.publish(Some(&github(&fake, ACTIONS_TOKEN)), None).await.unwrap();
    assert_eq!(comments(&fake), [reported("measured, head is now the same")]);
    assert_eq!(step.summary(), "### summary\n");
    insta::assert_snapshot!(report.to_string().replace(&fake.url, "GITHUB"), @r"
    comment: created GITHUB/octo-org/octo-repo/pull/42#issuecomment-1001
    summary: 11 bytes
    annotation: left out: not a Buildkite step
    meta-data: left out: not a Buildkite step
    artifacts: left out: uploaded by a separate step of the action
    records: left out: only a push, a schedule or a manual run on main has records of main
    ");
    assert_eq!(report.exit(CommentFailure::Error), Exit::Done);
}

#[tokio::test]
async fn the_comment_names_the_new_head_of_the_pull_request() {
    let fake = fake_with_pull().await;
    fake.world(|world| world.pulls.get_mut(&42).unwrap().head_sha = MOVED.to_owned());
    fake.world(|world| world.pulls.get_mut(&42).unwrap().state = "closed");
    let step = Step::new(event("pull_request", Some(42)));
    step.publish(Some(&github(&fake, ACTIONS_TOKEN)), None).await.unwrap();
    assert_eq!(comments(&fake), [reported(&format!("measured, head is now {MOVED}"))]);
}

#[tokio::test]
async fn a_late_report_does_not_replace_one_of_the_present_head() {
    let fake = fake_with_pull().await;
    let github = github(&fake, ACTIONS_TOKEN);
    let now = PullRequest { head_sha: MOVED.to_owned(), ..github.pull_request(REPOSITORY, 42).await.unwrap() };
    let report = async |head: &'static str, run: u64, text: &str| {
        let stamp = Stamp { head: Some(head), run: Some(run) };
        comment::report(&github, REPOSITORY, &now, ID, stamp, text).await.unwrap().action
    };
    let oldest = "0123456789012345678901234567890123456789";
    assert_eq!(report(oldest, 1, "oldest").await, Action::Created);
    assert_eq!(report(HEAD, 2, "older").await, Action::Edited, "an outdated report replaces an older one");
    assert_eq!(report(oldest, 1, "oldest, again").await, Action::Later);
    assert_eq!(report(MOVED, 3, "newest").await, Action::Edited);
    assert_eq!(report(HEAD, 2, "older, again").await, Action::Later);
    assert_eq!(report(HEAD, 9, "older, run again").await, Action::Later);
    assert_eq!(report(MOVED, 3, "newest, again").await, Action::Edited);
    let all = comments(&fake);
    assert_eq!((all.len(), all[0].1.lines().last()), (1, Some("newest, again")));
}

#[tokio::test]
async fn the_words_of_another_app_are_neither_read_nor_replaced() {
    let fake = fake_with_pull().await;
    let planted = format!("{}\n@everyone merge this", marker(ID));
    fake.world(|world| world.comment(42, "mallory-app[bot]", true, &planted));
    let github = github(&fake, ACTIONS_TOKEN);
    assert_eq!(comment::existing(&github, REPOSITORY, 42, ID).await.unwrap(), None);
    comment::replace(&github, REPOSITORY, 42, ID, [&planted, "restored"]).await.unwrap();
    assert_eq!(comments(&fake), [("mallory-app[bot]".to_owned(), planted)]);
    comment::stick(&github, REPOSITORY, 42, ID, "announced").await.unwrap();
    comment::replace(&github, REPOSITORY, 42, ID, ["something else", "restored"]).await.unwrap();
    assert_eq!(comments(&fake)[1], own("announced"), "only what was announced is taken back");
}

#[tokio::test]
async fn results_that_disagree_with_the_event_are_not_published() {
    let fake = fake_with_pull().await;
    let github = github(&fake, ACTIONS_TOKEN);
    let tampers: [fn(&mut Comparison); 5] = [
        |it| it.subject.event = None,
        |it| it.subject.event.as_mut().unwrap().head_sha = None,
        |it| it.subject.event.as_mut().unwrap().name = "push".to_owned(),
        |it| it.subject.event.as_mut().unwrap().repository = None,
        |it| it.subject.head.as_mut().unwrap().commit = Some(MOVED.into()),
    ];
    for tamper in tampers {
        let mut step = Step::new(event("workflow_run", None));
        step.run.completed_run = Some(CompletedRun { pull_requests: vec![42], ..completed() });
        tamper(&mut step.comparison);
        assert!(step.publish(Some(&github), None).await.is_err());
    }
    let mut step = Step::new(event("workflow_run", None));
    step.run.completed_run = Some(CompletedRun { pull_requests: vec![42], ..completed() });
    step.comparison.subject.event.as_mut().unwrap().pull_request = Some(7);
    let report = step.publish(Some(&github), None).await.unwrap();
    assert!(matches!(&report.comment, Delivery::Failed(why) if why.contains("another pull request")), "{report}");
    let mut other_job = Step::new(event("pull_request", Some(42)));
    other_job.comparison.subject.event.as_mut().unwrap().head_sha = Some(MOVED.to_owned());
    assert!(other_job.publish(Some(&github), None).await.is_err());
    assert_eq!(comments(&fake), []);
}

#[tokio::test]
async fn a_fork_pull_request_is_never_commented_from_the_run_job() {
    let fake = fake_with_pull().await;
    let step = Step::new(Event { fork: true, ..event("pull_request", Some(42)) });
    let report = step.publish(Some(&github(&fake, ACTIONS_TOKEN)), None).await.unwrap();
    let Delivery::Left(reason) = &report.comment else { panic!("{report}") };
    assert!(reason.starts_with("the pull request comes from a fork"), "{reason}");
    assert_eq!((fake.requests(), step.summary().as_str()), (none(), "### summary\n"));
    let report = Step::new(event("pull_request", Some(42))).publish(None, None).await.unwrap();
    assert_eq!(report.comment, Delivery::Left("there is no GitHub token".to_owned()));
    let report = Step::new(event("push", None)).publish(None, None).await.unwrap();
    assert_eq!(report.comment, Delivery::Left("the event has no pull request".to_owned()));
}

#[tokio::test]
async fn the_run_of_a_fork_is_commented_from_the_workflow_run_job() {
    let fake = fake_with_pull().await;
    fake.world(|world| world.pulls.insert(7, pull("stranger/octo-repo")));
    let mut step = Step::new(Event { head_sha: None, ..event("workflow_run", None) });
    step.run.completed_run = Some(completed());
    step.comparison.subject.event.as_mut().unwrap().pull_request = Some(7);
    let github = github(&fake, ACTIONS_TOKEN);
    step.publish(Some(&github), None).await.unwrap();
    let issues = fake.world(|world| world.comments.values().map(|comment| comment.issue).collect::<Vec<_>>());
    assert_eq!(
        (issues, comments(&fake)),
        (
            vec![7],
            vec![(
                "github-actions[bot]".to_owned(),
                format!("<!-- vllm-perf:v1 id={ID} head={HEAD} run=7 -->\nmeasured, head is now the same")
            )]
        )
    );

    step.run.completed_run = Some(CompletedRun { conclusion: Some("cancelled".to_owned()), ..completed() });
    let report = step.publish(Some(&github), None).await.unwrap();
    assert_eq!(report.comment, Delivery::Left("the completed run was cancelled".to_owned()));
    assert_eq!(fake.violations(), none());
}

#[tokio::test]
async fn results_of_another_run_than_the_completed_one_are_not_published() {
    let fake = fake_with_pull().await;
    let mut step = Step::new(event("workflow_run", None));
    step.run.completed_run = Some(CompletedRun { head_sha: MOVED.to_owned(), pull_requests: vec![42], ..completed() });
    let error = step.publish(Some(&github(&fake, ACTIONS_TOKEN)), None).await.unwrap_err();
    assert_eq!(
        (exit::of(&error), error.to_string()),
        (Exit::Mistake, format!("the results are not those of the completed run, which measured {MOVED}"))
    );
    step.run.completed_run = Some(completed());
    step.comparison.subject.event.as_mut().unwrap().repository = Some("evil/repo".to_owned());
    let error = step.publish(Some(&github(&fake, ACTIONS_TOKEN)), None).await.unwrap_err();
    assert_eq!(error.to_string(), "the results are of another repository than the completed run");
    assert_eq!((fake.requests(), step.summary()), (none(), String::new()));
}

#[tokio::test]
async fn a_comment_that_fails_keeps_the_summary_and_the_flag_decides_the_exit() {
    let fake = fake_with_pull().await;
    let step = Step::new(event("pull_request", Some(42)));
    let report = step.publish(Some(&github(&fake, READ_TOKEN)), None).await.unwrap();
    assert!(matches!(&report.comment, Delivery::Failed(why) if why.contains("pull-requests: write")), "{report}");
    assert_eq!(step.summary(), "### summary\n");
    assert_eq!(report.exit(CommentFailure::Warn), Exit::Done);
    assert_eq!(report.exit(CommentFailure::Error), Exit::World);
}

fn device(name: &str, device_type: &str) -> vllm_verdict::v1::Device {
    let name = name.parse().unwrap();
    vllm_verdict::v1::Device { name, device_type: device_type.to_owned(), count: 1, image_suffix: String::new() }
}

#[test]
fn each_device_of_each_job_has_its_own_comment() {
    let run = CiRun { workflow: Some("perf".to_owned()), job: Some("bench".to_owned()), ..CiRun::default() };
    let other = CiRun { workflow: Some("perfb".to_owned()), job: Some("ench".to_owned()), ..CiRun::default() };
    assert_eq!(comment_id(&run, Some(&device("cpu", "x")), None).len(), 12);
    assert_eq!(comment_id(&run, Some(&device("cpu", "x")), None), comment_id(&run, Some(&device("cpu", "x")), None));
    assert_ne!(comment_id(&run, Some(&device("cpu", "x")), None), comment_id(&run, Some(&device("cuda", "x")), None));
    let ids = |name: &str| ["a", "b"].map(|kind| comment_id(&run, Some(&device(name, kind)), None));
    let ([h100, a100], [epyc, xeon]) = (ids("cuda"), ids("cpu"));
    assert_ne!(h100, a100, "legs of one job's matrix");
    assert_eq!(epyc, xeon, "the model of a CPU changes from runner to runner");
    let leg = |provider, parts: &[&str]| {
        let configuration = Some(configuration(&run, provider, parts));
        comment_id(&run, Some(&device("cpu", "x")), Some(&Event { configuration, ..event("pull_request", Some(1)) }))
    };
    let legs = [
        leg(Provider::Github, &["suite", "leg 1"]),
        leg(Provider::Github, &["suite", "leg 2"]),
        leg(Provider::Github, &["suitel", "eg 1"]),
        leg(Provider::Buildkite, &["suite", "leg 1"]),
    ];
    assert_eq!(legs.iter().collect::<std::collections::BTreeSet<_>>().len(), 4, "{legs:?}");
    assert_eq!(legs[0], leg(Provider::Github, &["suite", "leg 1"]));
    assert_ne!(comment_id(&run, Some(&device("cpu", "x")), None), comment_id(&other, Some(&device("cpu", "x")), None));
}

/// The recording agent from `examples/`, which `cargo test --test integration` alone does not build.
#[expect(clippy::disallowed_methods, reason = "builds the double that the test starts")]
fn recording_agent() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "--locked", "--example", "buildkite_agent"]);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    // The environment that cargo sets for tests would make some build scripts run again.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_") && name != "CARGO_HOME") {
        cargo.env_remove(name);
    }
    assert!(cargo.status().unwrap().success());
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("examples/buildkite_agent")
}

fn agent(program: &Path, log: &Path, failures: &str) -> Agent {
    let environment: Environment = [
        ("PATH", "/usr/bin:/bin"),
        ("BUILDKITE_JOB_ID", "job"),
        ("BUILDKITE_FAKE_AGENT_LOG", log.to_str().unwrap()),
        ("BUILDKITE_FAKE_AGENT_FAIL", failures),
        ("GITHUB_TOKEN", ACTIONS_TOKEN),
    ]
    .into_iter()
    .collect();
    Agent::new(program, &environment, Duration::from_millis(1))
}

#[derive(serde::Deserialize)]
struct Call {
    argv: Vec<String>,
    stdin: String,
    environment: Vec<String>,
    refused: Option<String>,
}

fn calls(log: &Path) -> Vec<Call> {
    fs::read_to_string(log).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn buildkite_gets_an_annotation_the_verdict_and_the_folder_and_no_token() {
    let program = recording_agent();
    let step = Step::new(Event { provider: Provider::Buildkite, ..event("push", None) });
    let log = step.folder.path().join("agent.jsonl");
    let report = step.publish(None, Some(&agent(&program, &log, "1"))).await.unwrap();
    assert_eq!(report.exit(CommentFailure::Error), Exit::Done, "{report}");
    let refused = |why: Option<String>| why.map(|why| format!(", refused: {why}")).unwrap_or_default();
    let listed: Vec<_> = calls(&log)
        .into_iter()
        .map(|call| format!("{} <- {:?}{}", call.argv.join(" "), call.stdin, refused(call.refused)))
        .collect();
    insta::assert_snapshot!(listed.join("\n"), @r#"
    annotate --context vllm-perf-3f9c0a1b2c4d --style error <- "**annotation**", refused: fatal: failed to reach the agent API: 503
    annotate --context vllm-perf-3f9c0a1b2c4d --style error <- "**annotation**"
    meta-data set vllm-perf-verdict-3f9c0a1b2c4d <- "regressed"
    artifact upload vllm-perf-out/**/* <- ""
    "#);
    for call in calls(&log) {
        assert!(call.environment.contains(&"BUILDKITE_JOB_ID".to_owned()));
        assert!(!call.environment.contains(&"GITHUB_TOKEN".to_owned()));
    }
}

#[tokio::test]
async fn an_agent_that_keeps_failing_fails_its_destinations_with_the_reason() {
    let program = recording_agent();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("agent.jsonl");
    let agent = agent(&program, &log, "3");
    let error = agent.annotate("vllm-perf-1", Style::Error, "body").await.unwrap_err();
    assert_eq!(exit::of(&error), Exit::World);
    insta::assert_snapshot!(format!("{error:#}"), @"cannot annotate the build: buildkite-agent failed 3 times: exit status: 1: fatal: failed to reach the agent API: 503");
    assert_eq!(calls(&log).len(), 3);
    let too_large = agent.annotate("vllm-perf-1", Style::Error, &"x".repeat((1 << 20) + 1)).await.unwrap_err();
    assert_eq!(too_large.to_string(), "an annotation has 1 to 1048576 bytes, this one has 1048577");
    agent.annotate("vllm-perf-1", Style::Error, &"x".repeat(1 << 20)).await.unwrap();
}

#[tokio::test]
async fn a_report_of_2000_cases_is_cut_to_the_limits_and_keeps_its_headline() {
    let mut large = comparison();
    let (cases, rows) = (large.cases.clone(), large.rows.clone());
    for number in 0..1000 {
        let renamed = |name: &Untrusted| Untrusted::from(format!("{}_{number}", name.raw()));
        large.cases.extend(cases.iter().cloned().map(|mut case| {
            (case.name, case.test) = (renamed(&case.name), renamed(&case.test));
            case
        }));
        large.rows.extend(rows.iter().cloned().map(|mut row| {
            row.case = renamed(&row.case);
            row
        }));
    }
    let links = vllm_perf::report::Links::default();
    let text = vllm_perf::report::markdown::comment(&large, &links, ID, None);
    let summary = vllm_perf::report::markdown::summary(&large, &links);
    let annotation = vllm_perf::report::markdown::annotation(&large, &links);
    let (least, most) = ([30_000, 500_000, 500_000], [60_000, 1_000_000, 1_000_000]);
    for ((text, least), most) in [&text, &summary, &annotation].into_iter().zip(least).zip(most) {
        assert!((least..=most).contains(&text.len()), "{} of {most}", text.len());
    }
    let fake = fake_with_pull().await;
    let posted = comment::stick(&github(&fake, ACTIONS_TOKEN), REPOSITORY, 42, ID, &text).await.unwrap();
    assert!(!posted.shortened);
    let all = comments(&fake);
    let (author, body) = &all[0];
    assert_eq!((all.len(), author.as_str()), (1, "github-actions[bot]"));
    assert!(body.lines().nth(1).unwrap().contains("regressed") && body.len() > 30_000, "{}", body.len());
    let folder = tempfile::tempdir().unwrap();
    let agent = agent(&recording_agent(), &folder.path().join("agent.jsonl"), "0");
    agent.annotate("vllm-perf-1", Style::Error, &annotation).await.unwrap();
    assert_eq!(fake.violations(), none());
}
