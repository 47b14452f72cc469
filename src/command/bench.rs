//! `vllm-perf bench serve`: the load client alone, with the flags and the output of `vllm bench serve`.

use std::task::Poll;

use anyhow::{Result, anyhow};
use indicatif::{ProgressBar, ProgressStyle};

use super::Shell;
use super::run::interrupt;
use crate::client::{self, ServingResult, arguments, summary};
use crate::exit::{Classify, Exit};

/// Measures the server that the words name, prints what `vllm bench serve` prints, and writes what it writes.
pub(super) async fn serve(words: &[String], shell: &Shell) -> Result<Exit> {
    let arguments = arguments::parse(words).mistake()?;
    let interrupted = interrupt();
    tokio::pin!(interrupted);
    // The handlers are there before anyone is told that something began.
    let ready = std::future::poll_fn(|context| Poll::Ready(interrupted.as_mut().poll(context))).await;
    if let Poll::Ready(signal) = ready {
        return Ok(Exit::Signal(signal));
    }
    shell.print(&summary::opening(&arguments));
    let bar = (shell.terminal && !arguments.disable_tqdm).then(bar);
    let measuring = client::run(&arguments, &shell.environment, |ended, total| {
        if let Some(bar) = &bar {
            bar.set_length(total as u64);
            bar.set_position(ended as u64);
        }
    });
    let result = tokio::select! {
        result = measuring => result?,
        // Files are written whole and after the last request: there is none yet.
        signal = &mut interrupted => return Ok(Exit::Signal(signal)),
    };
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    shell.print(&summary::block(&result));
    let saved = client::save(&arguments, &result, &shell.environment).world()?;
    if let Some(path) = saved {
        shell.say(&format!("wrote {}", path.display()));
    }
    for warning in result.warnings() {
        shell.say(&format!("warning: {warning}"));
    }
    whole(&result).unmeasured().map(|()| Exit::Done)
}

/// A load with failed requests measured something else than what was asked.
fn whole(result: &ServingResult) -> Result<()> {
    let failures: Vec<_> = result.failures().iter().map(|(kind, count)| format!("{kind}: {count}")).collect();
    if failures.is_empty() {
        return Ok(());
    }
    let (failed, total) = (result.summary.failed, result.answers.len());
    Err(anyhow!("{failed} of {total} requests failed ({})", failures.join(", ")))
}

fn bar() -> ProgressBar {
    let style =
        ProgressStyle::with_template("{elapsed_precise} [{bar:30}] {pos}/{len} requests, {per_sec}, {eta} left");
    ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
