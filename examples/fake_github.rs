//! The fake GitHub of the integration tests as a program: prints its URL, then every request as a line of JSON.
//!
//! Example: `cargo run --example fake_github -- --port 8001 --pull-request 42 --head-sha 1da94e6... --label ready`

#![allow(clippy::print_stdout, reason = "a program for tests that prints its requests")]

#[allow(dead_code, reason = "shared with the integration tests, which use all of it")]
#[path = "../tests/integration/fake_github.rs"]
mod fake_github;

use clap::Parser;
use fake_github::{FakeGithub, Pull, Seen};

#[derive(Parser)]
struct Arguments {
    /// Port on 127.0.0.1; 0 is any
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Repository, owner/name
    #[arg(long, default_value = "octo-org/octo-repo")]
    repository: String,
    /// Number of its one open pull request
    #[arg(long, default_value_t = 42)]
    pull_request: u64,
    /// Full hash of the commit at the pull request's head
    #[arg(long, default_value = "34c5c7793cb3b279e22454cb6750c80560547b3a")]
    head_sha: String,
    /// Head branch of the pull request
    #[arg(long, default_value = "change")]
    head_branch: String,
    /// Repository of the head branch, owner/name; default: the repository itself
    #[arg(long)]
    head_repository: Option<String>,
    /// Full hash of the merge base of any two commits
    #[arg(long, default_value = "5779607b49aab1200488439f02372c57b4f75444")]
    merge_base: String,
    /// A label of the pull request; repeatable
    #[arg(long = "label")]
    labels: Vec<String>,
}

fn print(seen: &Seen) {
    println!("{}", serde_json::to_string(seen).unwrap_or_default());
}

#[tokio::main]
async fn main() {
    let arguments = Arguments::parse();
    let fake = FakeGithub::start_on(arguments.port, Some(print)).await;
    fake.world(|world| {
        let pull = Pull {
            state: "open",
            head_sha: arguments.head_sha,
            head_branch: arguments.head_branch,
            head_repository: arguments.head_repository.unwrap_or_else(|| arguments.repository.clone()),
            labels: arguments.labels,
        };
        world.pulls.insert(arguments.pull_request, pull);
        world.repository = arguments.repository;
        world.merge_base = arguments.merge_base;
    });
    println!("{}", fake.url);
    std::future::pending::<()>().await;
}
