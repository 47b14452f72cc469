//! `vllm-perf publish`: comment, job summary or annotation, and artifacts, from an output folder.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::{Shell, prepare};
use crate::cli::PublishArgs;
use crate::compare::{Comparison, Verdict};
use crate::event::Provider;
use crate::exit::{Classify, Exit};
use crate::publish::actions::{self, Level, Notice};
use crate::publish::buildkite::Agent;
use crate::publish::github::{Github, Patience};
use crate::publish::{self, Publication, folder};
use crate::report::finding::{self, Finding};
use crate::report::{Links, markdown};

/// Publishes. A comment that cannot be written does not lose the results.
pub(super) async fn publish(arguments: &PublishArgs, shell: &Shell) -> Result<Exit> {
    let environment = &shell.environment;
    let (event, ci) = prepare::event(&arguments.event, &[], environment)?;
    let comparison = folder::read(&arguments.out)?;
    let links = Links {
        run: ci.completed_run.as_ref().and_then(|run| run.url.clone()).or_else(|| ci.run_url.clone()),
        artifact: arguments.artifact_url.clone(),
        server: ci.server_url.clone(),
        repository: event.repository.clone(),
    };
    let device = comparison.subject.device.as_ref().map(|device| device.name.as_str()).unwrap_or_default();
    let id = publish::comment_id(&ci, device);
    let github = environment
        .secret(&arguments.github_token_env)
        .map(|token| Github::new(ci.api_url.as_deref(), token, Patience::default()))
        .transpose()
        .mistake()?;
    let agent = (event.provider == Provider::Buildkite)
        .then(|| Agent::new(Path::new("buildkite-agent"), environment, Duration::from_secs(1)));
    let report = publish::publish(&Publication {
        event: &event,
        run: &ci,
        comparison: &comparison,
        comment_id: &id,
        comment: &|moved_to| markdown::comment(&comparison, &links, &id, moved_to),
        summary: &markdown::summary(&comparison, &links),
        annotation: &markdown::annotation(&comparison, &links),
        folder: &arguments.out,
        github: github.as_ref(),
        agent: agent.as_ref(),
    })
    .await?;
    if event.provider == Provider::Github {
        shell.print(&actions::commands(&notices(&comparison)));
    }
    shell.print(&report.to_string());
    if let (Some(path), Some(url)) = (&ci.output, &report.comment_url) {
        actions::append_outputs(path, &[("comment-url", url)])?;
    }
    Ok(report.exit(arguments.comment_failure))
}

/// What GitHub shows on the page of the run.
fn notices(comparison: &Comparison) -> Vec<Notice> {
    let notice = |finding: Finding| {
        let (verdict, metric, case, sentence) = match finding {
            Finding::Changed(row) => (row.verdict, row.label.clone(), row.case.clone(), row.why.clone()),
            Finding::Unmeasured(none) => {
                (Verdict::NotMeasured, none.metrics, none.case.to_owned(), none.reason.to_owned())
            }
        };
        let level = match verdict {
            Verdict::Regressed => Level::Error,
            Verdict::NotMeasured => Level::Warning,
            Verdict::Improved | Verdict::Unchanged | Verdict::Inconclusive => Level::Notice,
        };
        Notice { level, title: format!("{}: {metric}", verdict.as_str()), message: format!("{case}: {sentence}") }
    };
    finding::findings(comparison).into_iter().map(notice).collect()
}
