//! Flags for the load: its traffic, and the sampling of its answers.

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use vllm_load::{Api, RampUp, RampUpStrategy, Sampling};

use super::flag_values::json_object;

/// The traffic: when requests are sent, and how many at once.
#[derive(Debug, Clone, PartialEq, Args, Serialize)]
pub struct LoadFlags {
    /// Requests a second; inf sends all at once.
    #[arg(long, default_value_t = f64::INFINITY, value_name = "PER_SECOND")]
    #[serde(serialize_with = "number")]
    pub request_rate: f64,
    /// Shape of the gaps between requests: 1 is a Poisson process, less is burstier.
    #[arg(long, default_value_t = 1.0)]
    #[serde(serialize_with = "number")]
    pub burstiness: f64,
    /// Growth of the request rate from a first to a last one, instead of --request-rate.
    #[arg(long, value_parser = ramp_up_strategies())]
    pub ramp_up_strategy: Option<RampUpStrategy>,
    /// Requests a second at the start.
    #[arg(long, value_name = "PER_SECOND")]
    pub ramp_up_start_rps: Option<u32>,
    /// Requests a second at the end.
    #[arg(long, value_name = "PER_SECOND")]
    pub ramp_up_end_rps: Option<u32>,
    /// Most requests in flight at once.
    #[arg(long)]
    pub max_concurrency: Option<usize>,
    /// Requests before the measurement.
    #[arg(long, default_value_t = 0)]
    pub num_warmups: usize,
    /// How long the first request is repeated until the server answers, in seconds.
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub ready_check_timeout_sec: u64,
    /// How long a server may send nothing before a request fails, in seconds; `vllm bench serve` has no such flag.
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    #[serde(skip)]
    pub stall_timeout_sec: u64,
}

/// How answers are sampled.
#[derive(Debug, Clone, PartialEq, Args, Serialize)]
pub struct SamplingFlags {
    /// Answers run to their full length; always so with random prompts.
    #[arg(long)]
    pub ignore_eos: bool,
    /// Sampling temperature.
    #[arg(long)]
    pub temperature: Option<f64>,
    /// Top-p sampling.
    #[arg(long)]
    pub top_p: Option<f64>,
    /// Top-k sampling.
    #[arg(long, allow_negative_numbers = true)]
    pub top_k: Option<i64>,
    /// Min-p sampling.
    #[arg(long)]
    pub min_p: Option<f64>,
    /// Penalty of tokens by their frequency in the text.
    #[arg(long, allow_negative_numbers = true)]
    pub frequency_penalty: Option<f64>,
    /// Penalty of tokens that are in the text.
    #[arg(long, allow_negative_numbers = true)]
    pub presence_penalty: Option<f64>,
    /// Factor for repeated tokens.
    #[arg(long)]
    pub repetition_penalty: Option<f64>,
    /// Log-probabilities for each token; completions only.
    #[arg(long)]
    pub logprobs: Option<u32>,
    /// JSON object of fields that every request has.
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    pub extra_body: Option<Map<String, Value>>,
}

impl LoadFlags {
    /// How the request rate grows, if it does.
    pub fn ramp_up(&self) -> Option<RampUp> {
        let (strategy, start, end) = (self.ramp_up_strategy?, self.ramp_up_start_rps?, self.ramp_up_end_rps?);
        Some(RampUp { strategy, start, end })
    }
}

impl SamplingFlags {
    /// The fields of a request body in addition to the prompt. The fields of --extra-body replace the others.
    pub fn fields(&self, api: Api) -> Sampling {
        let extra = self.extra_body.clone().unwrap_or_default();
        if !api.generates() {
            // As in vLLM: nothing is sampled.
            let ignored = self.ignore_eos.then(|| ("ignore_eos".to_owned(), Value::from(true)));
            return ignored.into_iter().chain(extra).collect();
        }
        let logprobs = self.logprobs.filter(|_| api == Api::Completions);
        let set = [
            ("logprobs", logprobs.map(Value::from)),
            ("ignore_eos", self.ignore_eos.then_some(Value::from(true))),
            ("top_p", self.top_p.map(Value::from)),
            ("top_k", self.top_k.map(Value::from)),
            ("min_p", self.min_p.map(Value::from)),
            ("temperature", self.temperature.map(Value::from)),
            ("frequency_penalty", self.frequency_penalty.map(Value::from)),
            ("presence_penalty", self.presence_penalty.map(Value::from)),
            ("repetition_penalty", self.repetition_penalty.map(Value::from)),
        ];
        let set = set.into_iter().filter_map(|(name, value)| value.map(|value| (name.to_owned(), value)));
        set.chain(extra).collect()
    }
}

fn number<S: Serializer>(number: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if number.is_infinite() { serializer.serialize_str("inf") } else { serializer.serialize_f64(*number) }
}

fn ramp_up_strategies() -> impl TypedValueParser<Value = RampUpStrategy> {
    let named = |text: String| RampUpStrategy::ALL.into_iter().find(|strategy| strategy.as_str() == text);
    PossibleValuesParser::new(RampUpStrategy::ALL.map(RampUpStrategy::as_str))
        .try_map(move |text| named(text).ok_or("not a strategy"))
}
