//! Flags and environment variables in the table of `vllm-perf config show`.

use clap::Command;
use vllm_verdict::v1::DeviceName;

use crate::command::planning_flags::Planning;
use crate::duration;
use crate::environment::Environment;
use crate::plan::config::{Setting, Source};

/// Replaces the settings of the file by those of flags and environment. `definition` is the whole command line.
pub fn override_settings(
    settings: &mut Vec<Setting>,
    planning: &Planning,
    definition: &Command,
    environment: &Environment,
) {
    let Some(command) = definition.find_subcommand("plan") else { return };
    for (name, value) in values(planning) {
        let Some(value) = value else { continue };
        let Some(argument) = command.get_arguments().find(|argument| argument.get_long() == Some(name)) else {
            continue;
        };
        let variable = argument.get_env().and_then(|name| name.to_str()).unwrap_or_default();
        let default = argument.get_default_values().first().and_then(|value| value.to_str());
        let source = match environment.get(variable) {
            Some(set) if set == value => Source::Environment,
            _ if default == Some(value.as_str()) => Source::Default,
            _ => Source::Flag,
        };
        settings.retain(|setting| setting.key != name);
        settings.push(Setting { key: name.to_owned(), value, source });
    }
}

/// The flags that the table shows, in its order, and their values.
fn values(planning: &Planning) -> [(&'static str, Option<String>); 11] {
    let Planning { sides, runs, .. } = planning;
    [
        ("suite", planning.suite.as_ref().map(|path| path.display().to_string())),
        ("base", sides.base.clone()),
        ("head", sides.head.clone()),
        ("only", planning.only.clone()),
        ("device", planning.device.name.0.map(|name: DeviceName| name.to_string())),
        ("strategy", runs.strategy.map(|strategy| strategy.as_str().to_owned())),
        ("store", planning.store.clone()),
        ("pairs", Some(runs.pairs.to_string())),
        ("seed", Some(runs.seed.to_string())),
        ("budget", runs.budget.map(duration::text)),
        ("out", Some(planning.out.display().to_string())),
    ]
}
