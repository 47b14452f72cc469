//! What the command that reproduces a run repeats of this command line.

use std::time::Duration;

use clap::ValueEnum;
use vllm_verdict::v1::{Event, Provider};

use crate::command::planning_flags::{Client, Planning};
use crate::command::run_flags::{CASE_TIMEOUT, SERVER_TIMEOUT, Timeouts};
use crate::duration;
use crate::plan::config::Config;
use crate::plan::reproduce::MadeWith;
use crate::system::shell::Shell;

/// The suite, flags and variables that a plan of `event` was made with. The config file and the store are places of this
/// machine: a report that is published does not name them.
pub(super) fn made_with<'a>(
    planning: &Planning,
    timeouts: &Timeouts,
    event: &Event,
    config: &'a Config,
    shell: &'a Shell,
) -> MadeWith<'a> {
    let mut flags = Vec::new();
    let mut add = |flag: &'static str, value: Option<String>| flags.extend(value.map(|value| (flag, value)));
    add("--device-type", planning.device.device_type.clone());
    add("--device-count", planning.device.device_count.map(|count| count.to_string()));
    add("--only", planning.only.clone());
    let client = planning.client.to_possible_value().filter(|_| planning.client != Client::Auto);
    add("--client", client.map(|client| client.get_name().to_owned()));
    add("--budget", planning.runs.budget.map(typed));
    let changed = |value: Duration, default: Duration| (value != default).then(|| typed(value));
    add("--server-timeout", changed(timeouts.server_timeout, SERVER_TIMEOUT));
    add("--case-timeout", changed(timeouts.case_timeout, CASE_TIMEOUT));
    if event.provider == Provider::Local {
        add("--config", planning.config.as_ref().map(|path| path.display().to_string()));
        add("--store", planning.store.clone());
    }
    MadeWith { suite: &config.suite, flags, environment: &shell.environment }
}

/// A duration as a flag takes it.
fn typed(time: Duration) -> String {
    duration::setting(time)
}
