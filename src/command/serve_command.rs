//! `vllm-perf bench serve`: the load client, with the flags and the output of `vllm bench serve`.

use std::task::Poll;
use std::time::Duration;

use anyhow::{Result, anyhow};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::oneshot;

use crate::exit::{Classify, Exit};
use crate::plan::serve_flags;
use crate::run::native_client::{self, ServingResult, prompt_process, serving_summary};
use crate::system::interrupt::interrupt;
use crate::system::shell::Shell;

const INSECURE: &str = "WARNING: --insecure: the certificate of the server is not checked; anyone on the way can read and \
    change the requests, with their API key, and the answers";

/// How long an interrupted load may take to end.
const LAST: Duration = Duration::from_millis(500);

/// Measures a server, with the output and the files of `vllm bench serve`.
pub(super) async fn serve(words: &[String], shell: &Shell) -> Result<Exit> {
    let arguments = serve_flags::parse(words).mistake()?;
    let interrupted = interrupt();
    tokio::pin!(interrupted);
    // The signal handlers are set before anything is printed.
    let ready = std::future::poll_fn(|context| Poll::Ready(interrupted.as_mut().poll(context))).await;
    if let Poll::Ready(signal) = ready {
        return Ok(Exit::Signal(signal));
    }
    shell.print(&serving_summary::opening(&arguments));
    if arguments.server.insecure {
        shell.say(INSECURE);
    }
    let bar = (shell.terminal && !arguments.result.disable_tqdm).then(bar);
    // As `vllm bench serve` does: this command measures a server of the user.
    let key = shell.environment.secret("OPENAI_API_KEY");
    let progress = |ended, total| {
        if let Some(bar) = &bar {
            bar.set_length(total as u64);
            bar.set_position(ended as u64);
        }
    };
    let (stopper, stopped) = oneshot::channel::<()>();
    let stopped = async {
        let _ = stopped.await;
    };
    let measuring = async {
        let prompts = prompt_process::prompts(&shell.program, words, &shell.environment).await?;
        native_client::run_until(&arguments, prompts, key.as_ref(), stopped, progress).await
    };
    tokio::pin!(measuring);
    let (result, signal) = tokio::select! {
        result = &mut measuring => (result?, None),
        signal = &mut interrupted => {
            let _ = stopper.send(());
            // Whatever is not the load ends at once.
            let ended = tokio::time::timeout(LAST, measuring).await;
            let Ok(Ok(result)) = ended else { return Ok(Exit::Signal(signal)) };
            (result, Some(signal))
        }
    };
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    if let Some(signal) = signal {
        return report_partial(&result, shell).map(|()| Exit::Signal(signal));
    }
    shell.print(&serving_summary::block(&result));
    let saved = native_client::save(&arguments, &result, &shell.environment).world()?;
    if let Some(path) = saved {
        shell.say(&format!("wrote {}", path.display()));
    }
    for warning in result.warnings() {
        shell.say(&format!("warning: {warning}"));
    }
    check_complete(&result).unmeasured().map(|()| Exit::Done)
}

/// Prints and writes what an interrupted load has measured, if it has.
fn report_partial(result: &ServingResult, shell: &Shell) -> Result<()> {
    let (completed, total) = (result.summary.completed, result.arguments.dataset.num_prompts);
    if completed == 0 {
        return Ok(());
    }
    shell.print(&serving_summary::block(result));
    let saved = native_client::save_partial(&result.arguments, result).world()?;
    let wrote = saved.map(|path| format!("; wrote {}", path.display())).unwrap_or_default();
    shell.say(&format!("interrupted: {completed} of {total} requests were completed{wrote}"));
    Ok(())
}

/// A result with failed requests does not describe the requested load.
fn check_complete(result: &ServingResult) -> Result<()> {
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

/// `vllm-perf bench`.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure a running server, as `vllm bench serve` does: same flags, same output, same files
    #[command(
        before_help = "Example:\n  vllm-perf bench serve --model meta-llama/Llama-3.1-8B --port 8000 --num-prompts 200 --max-concurrency 16",
        after_help = SERVE
    )]
    Serve(ServeArgs),
}

const SERVE: &str = "\
Flags of `vllm bench serve`, with its defaults. Any other flag is an error that names it.
  Server:      --base-url | --host --port, --endpoint, --header KEY=VALUE, --insecure
               --backend vllm|openai|openai-chat|openai-embeddings|vllm-pooling
               --ready-check-timeout-sec (s), --stall-timeout-sec (s without data; not in `vllm bench serve`)
  Model:       --model, --served-model-name, --tokenizer
  Prompts:     --dataset-name random|sharegpt|sonnet|custom, --dataset-path, --num-prompts, --seed
               --random-input-len, --random-output-len (tokens), --random-range-ratio
  Load:        --request-rate (requests/s, or inf), --burstiness, --max-concurrency, --num-warmups, --ramp-up-strategy
  Sampling:    --temperature, --top-p, --top-k, --ignore-eos, --extra-body JSON
  Result:      --save-result, --save-detailed, --result-dir, --result-filename, --metadata KEY=VALUE
               --percentile-metrics, --metric-percentiles, --goodput METRIC:MS
Times are in milliseconds. Connections are opened before the clock starts. Exit code 3: a request failed.";

/// `vllm-perf bench serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Flags of `vllm bench serve`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, num_args = 0.., value_name = "FLAGS")]
    pub words: Vec<String>,
}
