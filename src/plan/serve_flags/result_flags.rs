//! Flags for the result: its statistics and its file.

use std::path::PathBuf;

use clap::{ArgAction, Args};
use serde::{Serialize, Serializer};

use super::flag_values::{Objective, Timing, key_value};

/// The statistics of the result, and the file for it.
#[derive(Debug, Clone, PartialEq, Args, Serialize)]
pub struct ResultFlags {
    /// Metrics with statistics; the default is ttft, tpot and itl, and e2el where nothing is generated.
    #[arg(long, value_delimiter = ',')]
    #[serde(serialize_with = "timings")]
    pub percentile_metrics: Option<Vec<Timing>>,
    /// Percentiles of those metrics.
    #[arg(long, value_delimiter = ',', default_value = "99")]
    #[serde(serialize_with = "joined")]
    pub metric_percentiles: Vec<f64>,
    /// Longest times of a good request, in milliseconds, such as ttft:200 tpot:50 e2el:2000.
    #[arg(long, action = ArgAction::Set, num_args = 1.., value_name = "METRIC:MS")]
    #[serde(serialize_with = "objectives")]
    pub goodput: Vec<Objective>,
    /// Entry of the result, KEY=VALUE.
    #[arg(long, action = ArgAction::Set, num_args = 0.., value_name = "KEY=VALUE", value_parser = key_value)]
    #[serde(serialize_with = "pairs")]
    pub metadata: Vec<(String, String)>,
    /// Label of the result.
    #[arg(long)]
    pub label: Option<String>,
    /// Write the result to a file.
    #[arg(long)]
    pub save_result: bool,
    /// Append the result to the file, on its own line.
    #[arg(long)]
    pub append_result: bool,
    /// Write the numbers of every request too.
    #[arg(long)]
    pub save_detailed: bool,
    /// Folder of the result file.
    #[arg(long, value_name = "DIR")]
    pub result_dir: Option<PathBuf>,
    /// Name of the result file.
    #[arg(long, value_name = "FILE")]
    pub result_filename: Option<PathBuf>,
    /// No progress bar.
    #[arg(long)]
    pub disable_tqdm: bool,
}

fn timings<S: Serializer>(timings: &Option<Vec<Timing>>, serializer: S) -> Result<S::Ok, S::Error> {
    let text = |timings: &Vec<Timing>| timings.iter().map(|timing| timing.as_str()).collect::<Vec<_>>().join(",");
    timings.as_ref().map(text).serialize(serializer)
}

fn joined<S: Serializer>(numbers: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
    numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(",").serialize(serializer)
}

fn objectives<S: Serializer>(objectives: &[Objective], serializer: S) -> Result<S::Ok, S::Error> {
    let texts: Vec<String> = objectives.iter().map(Objective::to_string).collect();
    (!texts.is_empty()).then_some(texts).serialize(serializer)
}

fn pairs<S: Serializer>(pairs: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    let texts: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    (!texts.is_empty()).then_some(texts).serialize(serializer)
}
