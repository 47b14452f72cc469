//! The metrics of a load, computed from its answers with numpy's formulas.

use indexmap::IndexMap;
use jiff::Timestamp;
use vllm_load::numbers::{deviation, mean, percentile, sorted};
use vllm_load::{Answer, OfferedRate, SelfCheck};

use super::decoding::Decoding;
use crate::plan::serve_flags::{Arguments, LoadFlags, Objective, Timing};

/// A metric that the client may have changed by more than this share is distorted, where no setting says otherwise.
const MOST_DISTORTION: f64 = 0.05;

/// The result of a load.
#[derive(Debug, Clone, PartialEq)]
pub struct ServingResult {
    /// The command.
    pub arguments: Arguments,
    /// When it ended.
    pub ended: Timestamp,
    /// The answers, in the order of the requests.
    pub answers: Vec<Answer>,
    /// Their metrics.
    pub summary: Summary,
    /// What the client measured of itself.
    pub check: Option<SelfCheck>,
    /// The request rate by the due times, and as it was sent.
    pub offered: OfferedRate,
    /// Share by which the client may change a metric.
    pub most_distortion: f64,
    /// How the server decoded, as its counters tell it.
    pub decoding: Decoding,
}

/// The metrics of a load.
// 13 fields: the totals of a result of vLLM, and its statistics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// From the start to the end of the last answer, in seconds.
    pub duration: f64,
    /// Requests with a complete answer.
    pub completed: usize,
    /// Requests without a complete answer.
    pub failed: usize,
    /// Prompt tokens of the completed requests.
    pub total_input_tokens: u64,
    /// Output tokens of the completed requests.
    pub total_output_tokens: u64,
    /// Completed requests a second.
    pub request_throughput: f64,
    /// Completed requests a second that meet every objective of `--goodput`; `None` without objectives.
    pub request_goodput: Option<f64>,
    /// Output tokens a second.
    pub output_throughput: f64,
    /// Prompt and output tokens a second.
    pub total_token_throughput: f64,
    /// Most chunks with tokens in one second of the load.
    pub max_output_tokens_per_s: f64,
    /// Most requests that were in flight at any time within one second of the load, as defined in vLLM 0.32.
    pub max_concurrent_requests: usize,
    /// `mean_ttft_ms`, `median_ttft_ms`, `std_ttft_ms`, `p99_ttft_ms`, ... in vLLM's order. As in vLLM, times without a value
    /// are 0.
    pub statistics: IndexMap<String, f64>,
    /// The same of TTFT and TPOT, or of E2EL where nothing is generated, where the command asks for other metrics or percentiles: verdicts need them.
    pub unasked: IndexMap<String, f64>,
}

/// The percentile that verdicts need.
const NEEDED_PERCENTILE: f64 = 99.0;

/// Output tokens: the count of the server, or the number of chunks with tokens if it sent none.
pub(super) fn output_tokens(answer: &Answer) -> u64 {
    answer.output_tokens.unwrap_or_else(|| answer.tokens.len().max(1) as u64)
}

/// The metrics of `answers` that took `duration` seconds.
pub fn summarize(answers: &[Answer], duration: f64, arguments: &Arguments) -> Summary {
    let completed: Vec<&Answer> = answers.iter().filter(|answer| answer.failure.is_none()).collect();
    let total_input_tokens = completed.iter().map(|answer| answer.input_tokens).fold(0, u64::saturating_add);
    let total_output_tokens = match arguments.generates() {
        true => completed.iter().map(|answer| output_tokens(answer)).fold(0, u64::saturating_add),
        false => 0,
    };
    let (mut statistics, mut unasked) = (IndexMap::new(), IndexMap::new());
    let timings = arguments.timings();
    for timing in Timing::ALL {
        if timings.contains(&timing) && is_measured(timing, &arguments.load) {
            let values = values(timing, &completed);
            describe(&mut statistics, timing.as_str(), &values, &arguments.result.metric_percentiles);
        }
    }
    let needed: &[Timing] = if arguments.generates() { &[Timing::Ttft, Timing::Tpot] } else { &[Timing::E2el] };
    for &timing in needed {
        describe(&mut unasked, timing.as_str(), &values(timing, &completed), &[NEEDED_PERCENTILE]);
    }
    unasked.retain(|key, _| !statistics.contains_key(key));
    let (max_output_tokens_per_s, max_concurrent_requests) = peaks(&completed);
    Summary {
        duration,
        completed: completed.len(),
        failed: answers.len() - completed.len(),
        total_input_tokens,
        total_output_tokens,
        request_throughput: completed.len() as f64 / duration,
        request_goodput: (!arguments.result.goodput.is_empty()).then(|| {
            completed.iter().filter(|answer| is_good(answer, &arguments.result.goodput)).count() as f64 / duration
        }),
        output_throughput: total_output_tokens as f64 / duration,
        total_token_throughput: (total_input_tokens + total_output_tokens) as f64 / duration,
        max_output_tokens_per_s,
        max_concurrent_requests,
        statistics,
        unasked,
    }
}

/// Whether a timing is in the result. Without a limit no request waits, and if all are due at once nearly all wait: as in
/// vLLM, such waits are left out.
fn is_measured(timing: Timing, load: &LoadFlags) -> bool {
    match timing {
        Timing::ClientQueueTime => load.max_concurrency.is_some(),
        Timing::E2elIncludingClientQueue => load.max_concurrency.is_some() && load.request_rate.is_finite(),
        _ => true,
    }
}

/// Whether a request meets every objective. The last one of a metric counts; TPOT of a single token is 0.
fn is_good(answer: &Answer, objectives: &[Objective]) -> bool {
    let met = |timing| {
        let Some(objective) = objectives.iter().rev().find(|objective| objective.timing == timing) else { return true };
        let value = values(timing, &[answer]).first().copied().unwrap_or(0.0);
        value <= objective.milliseconds / 1000.0
    };
    [Timing::Ttft, Timing::Tpot, Timing::E2el].into_iter().all(met)
}

/// The values of a timing, in seconds. TPOT needs two tokens.
fn values(timing: Timing, completed: &[&Answer]) -> Vec<f64> {
    let each = |of: fn(&Answer) -> f64| completed.iter().map(|answer| of(answer)).collect();
    match timing {
        Timing::Ttft => each(Answer::ttft),
        Timing::E2el => each(Answer::latency),
        Timing::ClientQueueTime => each(Answer::queued),
        Timing::E2elIncludingClientQueue => each(|answer| answer.latency() + answer.queued()),
        Timing::Itl => completed.iter().flat_map(|answer| answer.itls()).collect(),
        Timing::Tpot => completed
            .iter()
            .map(|answer| (answer.latency() - answer.ttft(), output_tokens(answer)))
            .filter(|(_, tokens)| *tokens > 1)
            .map(|(seconds, tokens)| seconds / (tokens - 1) as f64)
            .collect(),
    }
}

/// Adds the statistics of one timing, in milliseconds, with vLLM's keys.
fn describe(statistics: &mut IndexMap<String, f64>, key: &str, seconds: &[f64], percentiles: &[f64]) {
    let sorted = sorted(seconds);
    let mut add = |name: String, value: f64| statistics.insert(format!("{name}_{key}_ms"), value * 1000.0);
    add("mean".to_owned(), mean(&sorted));
    add("median".to_owned(), percentile(&sorted, 50.0));
    add("std".to_owned(), deviation(&sorted));
    for p in percentiles {
        add(format!("p{p}"), percentile(&sorted, *p));
    }
}

/// Most chunks with tokens, and most requests in flight, in any whole second since the first request.
fn peaks(completed: &[&Answer]) -> (f64, usize) {
    let begin = completed.iter().map(|answer| answer.sent).fold(f64::INFINITY, f64::min);
    let mut tokens: IndexMap<u64, usize> = IndexMap::new();
    let mut requests: IndexMap<u64, usize> = IndexMap::new();
    let second = |time: f64| (time - begin) as u64;
    for answer in completed {
        for arrived in &answer.tokens {
            *tokens.entry(second(*arrived)).or_default() += 1;
        }
        for active in second(answer.sent)..=second(answer.sent + answer.latency()) {
            *requests.entry(active).or_default() += 1;
        }
    }
    let most = |counts: IndexMap<u64, usize>| counts.into_values().max().unwrap_or_default();
    (most(tokens) as f64, most(requests))
}

impl ServingResult {
    /// The result of a load.
    pub fn new(arguments: Arguments, ended: Timestamp, answers: Vec<Answer>, duration: f64) -> Self {
        let summary = summarize(&answers, duration, &arguments);
        Self {
            arguments,
            ended,
            answers,
            summary,
            check: None,
            offered: OfferedRate::default(),
            most_distortion: MOST_DISTORTION,
            decoding: Decoding::default(),
        }
    }

    /// Adds what the client measured of itself.
    pub fn with_check(self, check: SelfCheck, offered: OfferedRate) -> Self {
        Self { check: Some(check), offered, ..self }
    }

    /// When it ended, UTC, in the format of results: `%Y%m%d-%H%M%S`.
    pub fn date(&self) -> String {
        self.ended.strftime("%Y%m%d-%H%M%S").to_string()
    }

    /// How many requests failed, by kind.
    pub fn failures(&self) -> IndexMap<String, usize> {
        let mut kinds = IndexMap::new();
        for failure in self.answers.iter().filter_map(|answer| answer.failure.as_ref()) {
            *kinds.entry(failure.kind()).or_default() += 1;
        }
        kinds
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde::Deserialize;
    use vllm_load::Failure;

    use super::*;
    use crate::plan::serve_flags;

    pub(in crate::run) const REAL: &str = include_str!(
        "../../../tests/data/results/repeats/serving_tinyllama_tp1_random_256_16_qps_inf_concurrency_8.json"
    );

    /// A result that vLLM 0.32 wrote with `--save-detailed`.
    #[derive(Deserialize)]
    struct Detailed {
        date: String,
        duration: f64,
        input_lens: Vec<u64>,
        output_lens: Vec<u64>,
        ttfts: Vec<f64>,
        itls: Vec<Vec<f64>>,
        start_times: Vec<f64>,
        queue_times: Vec<f64>,
        generated_texts: Vec<String>,
    }

    /// When tokens arrived: the first, then each after its gap.
    pub(in crate::run::native_client) fn arrivals(first: f64, gaps: &[f64]) -> Vec<f64> {
        let mut arrivals = vec![first];
        arrivals.extend(gaps.iter().scan(first, |time, gap| {
            *time += gap;
            Some(*time)
        }));
        arrivals
    }

    pub(in crate::run) fn real() -> ServingResult {
        asked("")
    }

    /// The real requests, with additional `flags`.
    pub(in crate::run) fn asked(flags: &str) -> ServingResult {
        let file: Detailed = serde_json::from_str(REAL).unwrap();
        let answers = (0..file.ttfts.len())
            .map(|i| Answer {
                due: file.start_times[i] - file.queue_times[i],
                sent: file.start_times[i],
                tokens: arrivals(file.start_times[i] + file.ttfts[i], &file.itls[i]),
                input_tokens: file.input_lens[i],
                output_tokens: Some(file.output_lens[i]),
                text: file.generated_texts[i].clone(),
                ..Answer::default()
            })
            .collect();
        let command = "--model models/tiny-llama --backend vllm --max-concurrency 8 --num-prompts 150 \
            --metadata tensor_parallel_size=1 compilation_config.mode= optimization_level=";
        let arguments = serve_flags::parse(&shell_words::split(&format!("{command} {flags}")).unwrap()).unwrap();
        let ended = jiff::civil::DateTime::strptime("%Y%m%d-%H%M%S", &file.date).unwrap();
        let ended = ended.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp();
        ServingResult::new(arguments, ended, answers, file.duration)
    }

    #[test]
    fn goodput_counts_the_requests_that_meet_every_objective() {
        // vllm.benchmarks.serve.calculate_metrics of the same requests, with goodput_config_dict
        for (flags, expected) in [
            ("ttft:70", 26.572331115138404),
            ("tpot:5.3", 24.824151436510878),
            ("e2el:150", 26.572331115138404),
            ("ttft:100 tpot:6 e2el:120", 0.0),
            ("ttft:0", 0.0),
        ] {
            let goodput = asked(&format!("--goodput {flags}")).summary.request_goodput.unwrap();
            assert!((goodput - expected).abs() < 1e-9, "{flags}: {goodput}");
        }
        assert_eq!(real().summary.request_goodput, None);
    }

    #[test]
    fn the_metrics_of_verdicts_are_computed_whatever_the_command_asks_for() {
        let needed = ["median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "p99_tpot_ms"];
        let whole = real().summary;
        assert!(whole.unasked.is_empty());
        for flags in [
            "--metric-percentiles 25,50,75",
            "--percentile-metrics ttft,e2el",
            "--percentile-metrics itl",
            "--percentile-metrics tpot --metric-percentiles 90",
        ] {
            let result = asked(flags);
            let file: serde_json::Value = serde_json::from_str(&result.to_json(false)).unwrap();
            for key in needed {
                assert_eq!(file[key].as_f64(), Some(whole.statistics[key]), "{flags}: {key}");
            }
            let printed = result.to_map(false);
            assert!(needed.iter().any(|key| !printed.contains_key(*key)), "vLLM's own keys are as it writes them");
        }
    }

    #[test]
    fn waits_are_in_the_result_only_with_a_concurrency_limit() {
        let keys = |flags: &str| {
            let metrics = "--percentile-metrics client_queue_time,e2el,e2el_including_client_queue";
            asked(&format!("{metrics} --metric-percentiles 50,99.9 {flags}")).summary.statistics
        };
        // numpy.mean, numpy.median, numpy.std and numpy.percentile of the same requests, times 1000
        let all = keys("--request-rate 4");
        for (key, expected) in [
            ("mean_client_queue_time_ms", 1373.0702445667157),
            ("median_client_queue_time_ms", 1406.8951999997807),
            ("std_client_queue_time_ms", 821.241060930825),
            ("p50_client_queue_time_ms", 1406.8951999997807),
            ("p99.9_client_queue_time_ms", 2730.501187017674),
            ("mean_e2el_including_client_queue_ms", 1522.635033079987),
            ("median_e2el_including_client_queue_ms", 1555.5266660003326),
            ("std_e2el_including_client_queue_ms", 815.4954865862456),
            ("p50_e2el_including_client_queue_ms", 1555.5266660003326),
            ("p99.9_e2el_including_client_queue_ms", 2858.954803627319),
        ] {
            assert!((all[key] / expected - 1.0).abs() < 1e-9, "{key}: {}", all[key]);
        }
        assert_eq!(all.len(), 15);
        assert_eq!(keys("").keys().filter(|key| key.contains("including")).count(), 0);
    }

    #[test]
    fn failed_requests_are_in_no_metric_but_their_number() {
        let mut result = real();
        let before = result.summary.clone();
        let failed = Answer {
            tokens: vec![99.0],
            input_tokens: 5,
            failure: Some(Failure::Status(500, "boom".to_owned())),
            ..Answer::default()
        };
        result.answers.push(failed);
        let result = ServingResult::new(result.arguments, result.ended, result.answers, before.duration);
        assert_eq!(result.summary, Summary { failed: 1, ..before });
        assert_eq!(result.failures(), IndexMap::from([("status 500".to_owned(), 1)]));
    }
}
