//! The result file of `vllm bench serve`: the same keys, types and order, and after them the keys of vllm-perf.

use indexmap::IndexMap;
use jiff::SignedDuration;
use serde::Serialize;
use serde_json::{Map, Value};
use vllm_load::{Answer, RampUpStrategy};

use super::decoding::Decoding;
use super::serving_metrics::{ServingResult, output_tokens};

/// A number of requests a second; infinity is the word `inf`.
#[derive(Serialize)]
#[serde(untagged)]
enum Rate {
    Finite(f64),
    Infinite(&'static str),
}

/// The result file, in vLLM's order.
#[derive(Serialize)]
struct ResultFile<'a> {
    #[serde(flatten)]
    benchmark: BenchmarkKeys<'a>,
    #[serde(flatten)]
    traffic: TrafficKeys,
    #[serde(flatten)]
    measured: MeasuredKeys<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rps_change_events: Option<Vec<RateChange>>,
    #[serde(flatten)]
    decoding: &'a Decoding,
    #[serde(flatten)]
    statistics: &'a IndexMap<String, f64>,
}

/// What was measured.
#[derive(Serialize)]
struct BenchmarkKeys<'a> {
    date: String,
    endpoint_type: &'static str,
    backend: &'static str,
    label: Option<&'a str>,
    model_id: &'a str,
    tokenizer_id: &'a str,
    num_prompts: usize,
    #[serde(flatten)]
    metadata: IndexMap<&'a str, &'a str>,
}

/// The traffic that was requested.
#[derive(Serialize)]
struct TrafficKeys {
    request_rate: Rate,
    burstiness: f64,
    max_concurrency: Option<usize>,
    #[serde(flatten)]
    ramp_up: Option<RampUpKeys>,
}

/// What was measured of the requests.
#[derive(Serialize)]
#[serde(untagged)]
enum MeasuredKeys<'a> {
    /// Answers with tokens.
    Generated {
        #[serde(flatten)]
        totals: TotalKeys,
        #[serde(flatten)]
        requests: RequestKeys<'a>,
        max_output_tokens_per_s: f64,
        max_concurrent_requests: usize,
        rtfx: f64,
    },
    /// Answers that are embeddings, or what else a pooling model gives.
    Pooled(PooledKeys),
}

/// The totals and the numbers of each request where nothing is generated.
#[derive(Serialize)]
struct PooledKeys {
    duration: f64,
    completed: usize,
    total_input_tokens: u64,
    total_input_sequences: usize,
    request_throughput: f64,
    input_sequence_throughput: f64,
    total_token_throughput: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_lens: Option<Vec<u64>>,
    latencies: Vec<f64>,
    queue_times: Vec<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    errors: Option<Vec<String>>,
}

/// Totals over all requests.
#[derive(Serialize)]
struct TotalKeys {
    duration: f64,
    completed: usize,
    failed: usize,
    total_input_tokens: u64,
    total_output_tokens: u64,
    request_throughput: f64,
    request_goodput: Option<f64>,
    output_throughput: f64,
    total_token_throughput: f64,
}

/// The numbers of each request; most of them only with `--save-detailed`.
#[derive(Serialize)]
struct RequestKeys<'a> {
    #[serde(flatten)]
    lengths_and_times: Option<LengthsAndTimes>,
    latencies: Vec<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_times: Option<Vec<f64>>,
    queue_times: Vec<f64>,
    #[serde(flatten)]
    texts: Option<Texts<'a>>,
}

/// The keys of `--ramp-up-strategy`.
#[derive(Serialize)]
struct RampUpKeys {
    ramp_up_strategy: RampUpStrategy,
    ramp_up_start_rps: u32,
    ramp_up_end_rps: u32,
}

/// When the request rate reached a whole number.
#[derive(Serialize)]
struct RateChange {
    rps: u32,
    timestamp: String,
}

/// The keys of `--save-detailed` before the latencies.
#[derive(Serialize)]
struct LengthsAndTimes {
    input_lens: Vec<u64>,
    output_lens: Vec<u64>,
    ttfts: Vec<f64>,
    itls: Vec<Vec<f64>>,
}

/// The keys of `--save-detailed` after the queue times.
#[derive(Serialize)]
struct Texts<'a> {
    generated_texts: Vec<&'a str>,
    errors: Vec<String>,
}

impl ServingResult {
    /// When the request rate reached each whole number.
    fn rate_changes(&self) -> Option<Vec<RateChange>> {
        let began = self.ended - SignedDuration::from_secs_f64(self.summary.duration);
        let moment = |index: Option<usize>| {
            let answer = index.and_then(|index| self.answers.get(index));
            let due = answer.map_or(0.0, |answer| answer.due);
            (began + SignedDuration::from_secs_f64(due)).strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string()
        };
        let changes = self.arguments.load.ramp_up()?.changes(self.answers.len());
        Some(changes.into_iter().map(|(rps, index)| RateChange { rps, timestamp: moment(index) }).collect())
    }

    /// The text of the result file. `detailed` adds the numbers of each request.
    pub fn to_json(&self, detailed: bool) -> String {
        let mut map = self.to_map(detailed);
        map.extend(self.summary.unasked.iter().map(|(key, value)| (key.clone(), Value::from(*value))));
        if let Ok(Value::Object(keys)) = serde_json::to_value(self.client_keys()) {
            map.extend(keys);
        }
        Value::Object(map).to_string()
    }

    /// vLLM's keys only, before they are serialized.
    pub(in crate::run::native_client) fn to_map(&self, detailed: bool) -> Map<String, Value> {
        let file = ResultFile {
            benchmark: self.benchmark_keys(),
            traffic: self.traffic_keys(),
            measured: match self.arguments.generates() {
                true => MeasuredKeys::Generated {
                    totals: self.total_keys(),
                    requests: self.request_keys(detailed),
                    max_output_tokens_per_s: self.summary.max_output_tokens_per_s,
                    max_concurrent_requests: self.summary.max_concurrent_requests,
                    rtfx: 0.0,
                },
                false => MeasuredKeys::Pooled(self.pooled_keys(detailed)),
            },
            rps_change_events: self.rate_changes(),
            decoding: &self.decoding,
            statistics: &self.summary.statistics,
        };
        // Through a value, so that metadata with the name of a key replaces it and no key is duplicated. Strings and
        // finite numbers can always be serialized.
        match serde_json::to_value(file) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        }
    }

    fn benchmark_keys(&self) -> BenchmarkKeys<'_> {
        let arguments = &self.arguments;
        let backend = arguments.server.backend.as_str();
        let metadata = &arguments.result.metadata;
        BenchmarkKeys {
            date: self.date(),
            endpoint_type: backend,
            backend,
            label: arguments.result.label.as_deref(),
            model_id: &arguments.model.model,
            tokenizer_id: arguments.model.tokenizer_id(),
            num_prompts: arguments.dataset.num_prompts,
            metadata: metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
        }
    }

    fn traffic_keys(&self) -> TrafficKeys {
        let load = &self.arguments.load;
        let rate = load.request_rate;
        TrafficKeys {
            request_rate: if rate.is_infinite() { Rate::Infinite("inf") } else { Rate::Finite(rate) },
            burstiness: load.burstiness,
            max_concurrency: load.max_concurrency,
            ramp_up: load.ramp_up().map(|ramp| RampUpKeys {
                ramp_up_strategy: ramp.strategy,
                ramp_up_start_rps: ramp.start,
                ramp_up_end_rps: ramp.end,
            }),
        }
    }

    fn total_keys(&self) -> TotalKeys {
        let summary = &self.summary;
        TotalKeys {
            duration: summary.duration,
            completed: summary.completed,
            failed: summary.failed,
            total_input_tokens: summary.total_input_tokens,
            total_output_tokens: summary.total_output_tokens,
            request_throughput: summary.request_throughput,
            request_goodput: summary.request_goodput,
            output_throughput: summary.output_throughput,
            total_token_throughput: summary.total_token_throughput,
        }
    }

    /// A request has one prompt.
    fn pooled_keys(&self, detailed: bool) -> PooledKeys {
        let (summary, answers) = (&self.summary, &self.answers);
        PooledKeys {
            duration: summary.duration,
            completed: summary.completed,
            total_input_tokens: summary.total_input_tokens,
            total_input_sequences: summary.completed,
            request_throughput: summary.request_throughput,
            input_sequence_throughput: summary.request_throughput,
            total_token_throughput: summary.total_token_throughput,
            input_lens: detailed.then(|| answers.iter().map(|answer| answer.input_tokens).collect()),
            latencies: answers.iter().map(Answer::latency).collect(),
            queue_times: answers.iter().map(Answer::queued).collect(),
            errors: detailed.then(|| answers.iter().map(error).collect()),
        }
    }

    fn request_keys(&self, detailed: bool) -> RequestKeys<'_> {
        let answers = &self.answers;
        let numbers = |of: fn(&Answer) -> f64| answers.iter().map(of).collect::<Vec<_>>();
        let output_len = |answer: &Answer| if answer.failure.is_none() { output_tokens(answer) } else { 0 };
        RequestKeys {
            lengths_and_times: detailed.then(|| LengthsAndTimes {
                input_lens: answers.iter().map(|answer| answer.input_tokens).collect(),
                output_lens: answers.iter().map(output_len).collect(),
                ttfts: numbers(Answer::ttft),
                itls: answers.iter().map(|answer| answer.itls().collect()).collect(),
            }),
            latencies: numbers(Answer::latency),
            start_times: detailed.then(|| numbers(|answer| answer.sent)),
            queue_times: numbers(Answer::queued),
            texts: detailed.then(|| Texts {
                generated_texts: answers.iter().map(|answer| answer.text.as_str()).collect(),
                errors: answers.iter().map(error).collect(),
            }),
        }
    }
}

/// The words of a failure; empty for a complete answer.
fn error(answer: &Answer) -> String {
    answer.failure.as_ref().map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use indexmap::IndexMap;

    use crate::run::native_client::decoding::Decoding;
    use crate::run::native_client::server_counters::{Counters, SpeculationCounters};
    use crate::run::native_client::serving_metrics::ServingResult;
    use crate::run::native_client::serving_metrics::tests::{REAL, asked, real};

    type Object = IndexMap<String, serde_json::Value>;

    #[test]
    fn a_real_result_is_recomputed_from_its_requests_to_nine_digits() {
        let theirs: Object = serde_json::from_str(REAL).unwrap();
        let ours: Object = serde_json::from_str(&real().to_json(true)).unwrap();
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
        for (key, theirs) in &theirs {
            let ours = &ours[key];
            match (theirs.as_f64(), ours.as_f64()) {
                (Some(a), Some(b)) => assert!((a - b).abs() <= 1e-9 * a.abs(), "{key}: {a} {b}"),
                _ => assert_eq!(theirs, ours, "{key}"),
            }
        }
    }

    #[test]
    fn without_details_the_keys_are_those_of_a_run_of_vllm() {
        const UPSTREAM: &str = include_str!(
            "../../../tests/data/results/upstream-run/serving_tinyllama_tp1_random_256_16_qps_inf_concurrency_8.json"
        );
        let theirs: Object = serde_json::from_str(UPSTREAM).unwrap();
        let ours: Object = serde_json::from_str(&real().to_json(false)).unwrap();
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    }

    #[test]
    fn how_the_server_decoded_is_before_the_statistics_and_in_records() {
        let before = Counters { speculation: Some(SpeculationCounters::default()), diffusion: None };
        let mut after = before.clone();
        after.speculation =
            Some(SpeculationCounters { drafts: 5, draft_tokens: 18, accepted_tokens: 9, ..Default::default() });
        let result = ServingResult { decoding: Decoding::between(&before, &after, 1.0), ..real() };
        let file: Object = serde_json::from_str(&result.to_json(false)).unwrap();
        let keys: Vec<&String> = file.keys().skip_while(|key| *key != "rtfx").take(8).collect();
        let expected = [
            "rtfx",
            "spec_decode_acceptance_rate",
            "spec_decode_acceptance_length",
            "spec_decode_num_drafts",
            "spec_decode_draft_tokens",
            "spec_decode_accepted_tokens",
            "spec_decode_per_position_acceptance_rates",
            "mean_ttft_ms",
        ];
        assert_eq!(keys, expected);
        let records = crate::run::native_client::pytorch::records(&result).unwrap().unwrap();
        assert!(records.contains(r#""spec_decode_acceptance_length":2.8"#), "{records}");
    }

    #[test]
    fn a_ramp_up_is_in_the_result_with_the_times_of_its_changes() {
        let ramp = "--ramp-up-strategy linear --ramp-up-start-rps 1 --ramp-up-end-rps 3";
        let result = asked(ramp);
        let map = result.to_map(false);
        let keys: Vec<&String> = map.keys().skip_while(|key| *key != "max_concurrency").take(5).collect();
        let flags = ["max_concurrency", "ramp_up_strategy", "ramp_up_start_rps", "ramp_up_end_rps", "duration"];
        assert_eq!(keys, flags);
        let changes = map["rps_change_events"].as_array().unwrap();
        assert_eq!(changes.iter().map(|change| change["rps"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3]);
        // The load took 2.86 s.
        assert_eq!(changes[0]["timestamp"], "2026-11-24T12:49:18.139882");
        assert!(!real().to_map(false).contains_key("rps_change_events"));
    }

    #[test]
    fn what_is_pooled_has_the_keys_and_order_of_vllm() {
        // `benchmark` and `main_async` in vllm/benchmarks/serve.py of vLLM 0.32: `failed` is not among them.
        let keys = |flags: &str, detailed| {
            let embeddings = "--backend openai-embeddings --endpoint /v1/embeddings";
            let result = asked(&format!("{embeddings} {flags}"));
            let keys: Vec<String> = result.to_map(detailed).keys().cloned().collect();
            keys.into_iter().skip_while(|key| key != "max_concurrency").collect::<Vec<_>>().join(" ")
        };
        insta::assert_snapshot!(keys("", false), @"max_concurrency duration completed total_input_tokens total_input_sequences request_throughput input_sequence_throughput total_token_throughput latencies queue_times mean_e2el_ms median_e2el_ms std_e2el_ms p99_e2el_ms");
        insta::assert_snapshot!(keys("--percentile-metrics ttft,e2el --metric-percentiles 50", true), @"max_concurrency duration completed total_input_tokens total_input_sequences request_throughput input_sequence_throughput total_token_throughput input_lens latencies queue_times errors mean_e2el_ms median_e2el_ms std_e2el_ms p50_e2el_ms");
        let result = asked("--backend vllm-pooling --endpoint /pooling --metric-percentiles 50");
        let file: Object = serde_json::from_str(&result.to_json(false)).unwrap();
        assert!(
            file.contains_key("p99_e2el_ms") && !file.contains_key("median_ttft_ms"),
            "what verdicts need is added"
        );
        assert_eq!(file["total_token_throughput"], result.summary.total_input_tokens as f64 / result.summary.duration);
        assert_eq!(crate::run::native_client::pytorch::records(&result).unwrap(), None);
    }

    #[test]
    fn results_of_all_options_have_the_keys_and_types_of_vllm() {
        const QUEUES: &str = include_str!("../../../tests/data/results/options/queues-and-goodput.json");
        const RAMP_UP: &str = include_str!("../../../tests/data/results/options/ramp-up-chat.json");
        for (theirs, flags) in [
            (
                QUEUES,
                "--request-rate 40 --goodput ttft:25 e2el:300 --metric-percentiles 50,99,99.9 --percentile-metrics \
                 ttft,tpot,itl,e2el,client_queue_time,e2el_including_client_queue --metadata tensor_parallel_size=1",
            ),
            (
                RAMP_UP,
                "--backend openai-chat --endpoint /v1/chat/completions --label main --metadata tensor_parallel_size=1 \
                 --ramp-up-strategy linear --ramp-up-start-rps 8 --ramp-up-end-rps 20",
            ),
        ] {
            let theirs: Object = serde_json::from_str(theirs).unwrap();
            let ours = asked(flags).to_map(true);
            assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
            for (key, theirs) in &theirs {
                let ours = &ours[key];
                let kinds = [theirs, ours].map(|value| (std::mem::discriminant(value), value.is_f64()));
                assert_eq!(kinds[0], kinds[1], "{key}: {theirs} {ours}");
            }
        }
    }
}
