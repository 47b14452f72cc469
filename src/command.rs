//! The commands: their arguments, and what each one does. Everything that a command prints goes through `Shell`.

pub mod announcement;
pub mod arguments;
pub mod base_commit;
pub mod base_fallback;
pub mod base_settings;
pub mod build_choice;
pub mod calibrate_command;
pub mod client_choice;
pub mod compare_command;
pub mod conclude;
pub mod config_command;
mod consent;
pub mod dashboard_command;
pub mod event_flags;
pub mod head_records;
pub mod head_rows;
pub mod hub_token;
pub mod identity_flags;
pub mod matrix_command;
pub mod needed_data_sets;
pub mod plan_command;
pub mod plan_output;
pub mod planning_flags;
pub mod plugin_options;
mod preflight;
pub mod prepare;
pub mod publish_command;
mod publish_settings;
pub mod record_notices;
pub mod records_command;
pub mod report_command;
mod reproduction;
pub mod run_command;
pub mod run_flags;
pub mod serve_command;
pub mod shared_flags;
pub mod sim_server_command;
pub mod sim_vllm;
pub mod verdict_command;

use anyhow::Result;

use crate::command::arguments::Command;
use crate::command::serve_command::BenchCommand;
use crate::environment::Environment;
use crate::exit::{Classify, Exit};
use crate::run::native_client::prompt_process;
use crate::system::interrupt::{self, until_signal};
use crate::system::program;
use crate::system::shell::Shell;

/// Runs a command to its end.
///
/// # Errors
/// Those of the command, with its exit code.
pub fn run(command: Command, shell: &Shell) -> Result<Exit> {
    block_on(async {
        if !is_own_server(&command) {
            tokio::spawn(interrupt::end_after_signal(shell.sink.clone()));
        }
        program::announcing(shell.sink.clone(), interruptible(command, shell)).await
    })
}

/// Runs as the simulated `vllm`: its image has this binary under that name.
///
/// # Errors
/// As [`sim_vllm::run`].
pub fn run_as_vllm(words: Vec<String>, environment: &Environment) -> Result<Exit> {
    block_on(async { sim_vllm::run(words, environment).await.map(|()| Exit::Done) })
}

fn block_on(work: impl Future<Output = Result<Exit>>) -> Result<Exit> {
    // The cryptography provider is set once for the process; it is not an error that it is set already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(work);
    runtime.shutdown_background();
    result
}

/// Commands that end in their own way after a signal, as the server under test does.
fn is_own_server(command: &Command) -> bool {
    matches!(command, Command::SimServer(_) | Command::SimVllm(_))
}

/// The whole of every command can be interrupted. `run`, `calibrate` and `bench` have something to end or to keep first, and
/// see to it themselves.
async fn interruptible(command: Command, shell: &Shell) -> Result<Exit> {
    if matches!(command, Command::Run(_) | Command::Calibrate(_) | Command::Bench(_)) || is_own_server(&command) {
        return dispatch(command, shell).await;
    }
    until_signal(dispatch(command, shell)).await.unwrap_or_else(|signal| Ok(Exit::Signal(signal)))
}

async fn dispatch(command: Command, shell: &Shell) -> Result<Exit> {
    match command {
        Command::Plan(arguments) => plan_command::plan(&arguments, shell).await,
        Command::Run(arguments) => run_command::run(&arguments, shell).await,
        Command::Calibrate(mut arguments) => calibrate_command::calibrate(&mut arguments, shell).await,
        Command::Publish(arguments) => publish_command::publish(&arguments, shell).await,
        Command::Verdict(arguments) => verdict_command::verdict(&arguments, shell),
        Command::Compare(arguments) => compare_command::compare(&arguments, shell).await,
        Command::Report(arguments) => report_command::report(&arguments, shell),
        Command::Records(arguments) => records_command::records(&arguments, shell).await,
        Command::Dashboard(arguments) => dashboard_command::dashboard(&arguments, shell).await,
        Command::Matrix(arguments) => matrix_command::matrix(&arguments, shell).await,
        Command::Config(arguments) => config_command::config(&arguments, shell).await,
        Command::Bench(BenchCommand::Serve(arguments)) => serve_command::serve(&arguments.words, shell).await,
        Command::SimServer(arguments) => sim_server_command::sim_server(&arguments, shell).await,
        Command::SimVllm(arguments) => sim_vllm::run(arguments.words, &shell.environment).await.map(|()| Exit::Done),
        Command::Prompts(arguments) => {
            shell.sink.out_json(&prompt_process::make(&arguments.words, &shell.environment)?);
            Ok(Exit::Done)
        }
        Command::Guard(_) => Err(anyhow::anyhow!("`guard` runs before anything else is set up")).mistake(),
    }
}
