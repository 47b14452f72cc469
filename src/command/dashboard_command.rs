//! `vllm-perf dashboard`: a static site from a store, and its alarms.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use vllm_verdict::number::{count, plural};

use crate::dashboard::series::Setting;
use crate::dashboard::{self, Built};
use crate::exit::{Classify, Exit};
use crate::names::Repository;
use crate::names::plain_branch;
use crate::system::shell::Shell;
use crate::system::store::Store;

/// Builds the site and prints a summary. Objects that are not records are reported on standard error; if an object cannot be
/// read, the site lacks it and the exit code is 4.
pub(super) async fn dashboard(arguments: &DashboardArgs, shell: &Shell) -> Result<Exit> {
    let store = Store::open(&arguments.store, &shell.environment)?;
    let setting = setting(arguments, &store, shell).await?;
    let built = dashboard::build(&store, &setting, &arguments.out).await?;
    built.notes.iter().chain(&built.unread).for_each(|note| shell.say(note));
    shell.print(&summary(&built, arguments));
    Ok(if built.unread.is_empty() { Exit::Done } else { Exit::World })
}

async fn setting(arguments: &DashboardArgs, store: &Store, shell: &Shell) -> Result<Setting> {
    let repository = match &arguments.repository {
        Some(repository) => repository.clone(),
        None => only_repository(store).await?,
    };
    let repository: Repository = repository.parse().context("--repository").mistake()?;
    let server = shell.environment.get("GITHUB_SERVER_URL").unwrap_or("https://github.com");
    for (what, url) in [("GITHUB_SERVER_URL", Some(server)), ("--run-url", arguments.run_url.as_deref())] {
        let Some(url) = url else { continue };
        let parsed = url::Url::parse(url).with_context(|| format!("`{url}` of {what} is not a URL")).mistake()?;
        let is_web = ["http", "https"].contains(&parsed.scheme());
        ensure_mistake(is_web, || format!("`{url}` of {what} is not an http or https URL"))?;
    }
    Ok(Setting {
        repository: repository.into(),
        branch: plain_branch(&arguments.branch).to_owned(),
        server: server.trim_end_matches('/').to_owned(),
        run_url: arguments.run_url.clone(),
    })
}

/// The repository of the records, if the store has only one.
async fn only_repository(store: &Store) -> Result<String> {
    let all = dashboard::repositories(store).await?;
    let names: Vec<&str> = all.iter().map(String::as_str).take(10).collect();
    ensure_mistake(all.len() < 2, || {
        format!("the store has records of {}: select one with --repository", names.join(", "))
    })?;
    let only = all.first().cloned();
    only.with_context(|| format!("the store `{}` has no records: nothing below `v3/`", store.place())).mistake()
}

fn ensure_mistake(holds: bool, why: impl FnOnce() -> String) -> Result<()> {
    let check = || {
        ensure!(holds, why());
        Ok(())
    };
    check().mistake()
}

fn summary(built: &Built, arguments: &DashboardArgs) -> String {
    let (worse, better) = built.alarms;
    format!(
        "{}: {} with {} series from {} ({} read now); {} written, {} removed\nalarms: {worse} worse, {better} better ({})",
        arguments.out.display(),
        plural(built.pages, "page"),
        count(built.series),
        plural(built.objects, "object"),
        count(built.read),
        plural(built.written, "file"),
        count(built.removed),
        arguments.out.join("alarms.md").display(),
    )
}

/// `vllm-perf dashboard`.
#[derive(Debug, Args)]
#[command(before_help = "Example:\n  vllm-perf dashboard --store file:///srv/vllm-perf --out site")]
pub struct DashboardArgs {
    /// Where the records are: a folder, file:///FOLDER, s3://BUCKET/PREFIX, gs:// or az://
    #[arg(long, env = "VLLM_PERF_STORE", value_name = "STORE")]
    pub store: String,
    /// Folder of the site; an earlier build in it is updated
    #[arg(long, env = "VLLM_PERF_DASHBOARD_OUT", value_name = "DIR", default_value = "vllm-perf-site")]
    pub out: PathBuf,
    /// Branch whose commits are shown
    #[arg(long, env = "VLLM_PERF_BRANCH", value_name = "NAME", default_value = "main")]
    pub branch: String,
    /// OWNER/NAME; required if the store has records of several repositories
    #[arg(long, env = "VLLM_PERF_REPOSITORY", value_name = "NAME")]
    pub repository: Option<String>,
    /// URL of a CI run to link, with {id} for its number
    #[arg(long, env = "VLLM_PERF_RUN_URL", value_name = "URL")]
    pub run_url: Option<String>,
}
