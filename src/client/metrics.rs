//! What the exchanges of a load amount to: numpy's formulas, and the result file of `vllm bench serve`. Pure.

use indexmap::IndexMap;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Map, Value};

use super::arguments::{Arguments, Objective, RampUpStrategy, Timing};
use super::lag::{Lag, Own};
use super::request::Exchange;

/// A finished load, and what it was asked to be.
#[derive(Debug, Clone, PartialEq)]
pub struct ServingResult {
    /// The command.
    pub arguments: Arguments,
    /// When it ended.
    pub ended: Timestamp,
    /// Every request, in the order of the schedule.
    pub exchanges: Vec<Exchange>,
    /// What they amount to.
    pub summary: Summary,
    /// What the client measured of itself.
    pub lag: Option<Lag>,
}

/// What the exchanges of a load amount to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Summary {
    /// From the first send to the last end, in seconds.
    pub duration: f64,
    /// Requests with a whole answer.
    pub completed: usize,
    /// Requests without.
    pub failed: usize,
    /// Tokens in, of the completed ones.
    pub total_input_tokens: u64,
    /// Tokens out, of the completed ones.
    pub total_output_tokens: u64,
    /// Completed requests a second.
    pub request_throughput: f64,
    /// Completed requests a second that keep every objective of `--goodput`; `None` without one.
    pub request_goodput: Option<f64>,
    /// Tokens out a second.
    pub output_throughput: f64,
    /// Tokens in and out a second.
    pub total_token_throughput: f64,
    /// Most pieces with tokens that came in one second of the load.
    pub max_output_tokens_per_s: f64,
    /// Most requests that were under way in one second of the load, however briefly: vLLM 0.32's definition.
    pub max_concurrent_requests: usize,
    /// `mean_ttft_ms`, `median_ttft_ms`, `std_ttft_ms`, `p99_ttft_ms`, ... in upstream's order. Times without a value are
    /// 0, as upstream's are: `failed` and `completed` tell.
    pub statistics: IndexMap<String, f64>,
}

/// Tokens out: the server's count, or the number of pieces with tokens where it gave none.
fn output_tokens(exchange: &Exchange) -> u64 {
    match exchange.output_tokens {
        0 => exchange.itls.len() as u64 + 1,
        tokens => tokens,
    }
}

/// Sums up `exchanges` that took `duration` seconds, as `arguments` ask.
pub fn summarise(exchanges: &[Exchange], duration: f64, arguments: &Arguments) -> Summary {
    let completed: Vec<&Exchange> = exchanges.iter().filter(|exchange| exchange.failure.is_none()).collect();
    let total_input_tokens = completed.iter().map(|exchange| exchange.input_tokens).sum::<u64>();
    let total_output_tokens = completed.iter().map(|exchange| output_tokens(exchange)).sum::<u64>();
    let mut statistics = IndexMap::new();
    for timing in Timing::ALL {
        if arguments.timings().contains(&timing) && is_measured(timing, arguments) {
            let values = values(timing, &completed);
            describe(&mut statistics, timing.as_str(), &values, &arguments.metric_percentiles);
        }
    }
    let (max_output_tokens_per_s, max_concurrent_requests) = peaks(&completed);
    Summary {
        duration,
        completed: completed.len(),
        failed: exchanges.len() - completed.len(),
        total_input_tokens,
        total_output_tokens,
        request_throughput: completed.len() as f64 / duration,
        request_goodput: (!arguments.goodput.is_empty()).then(|| {
            completed.iter().filter(|exchange| is_good(exchange, &arguments.goodput)).count() as f64 / duration
        }),
        output_throughput: total_output_tokens as f64 / duration,
        total_token_throughput: (total_input_tokens + total_output_tokens) as f64 / duration,
        max_output_tokens_per_s,
        max_concurrent_requests,
        statistics,
    }
}

/// Without a limit nothing waits for a place, and with all at once everything does: vLLM leaves those waits out.
fn is_measured(timing: Timing, arguments: &Arguments) -> bool {
    match timing {
        Timing::ClientQueueTime => arguments.max_concurrency.is_some(),
        Timing::E2elIncludingClientQueue => arguments.max_concurrency.is_some() && arguments.request_rate.is_finite(),
        _ => true,
    }
}

/// Whether a request keeps every objective. The last one of a metric counts; TPOT of a single token is 0.
fn is_good(exchange: &Exchange, objectives: &[Objective]) -> bool {
    let kept = |timing| {
        let Some(objective) = objectives.iter().rev().find(|objective| objective.timing == timing) else { return true };
        let value = values(timing, &[exchange]).first().copied().unwrap_or(0.0);
        value <= objective.milliseconds / 1000.0
    };
    [Timing::Ttft, Timing::Tpot, Timing::E2el].into_iter().all(kept)
}

/// The values of a timing, in seconds. TPOT is defined from two tokens on.
fn values(timing: Timing, completed: &[&Exchange]) -> Vec<f64> {
    let each = |of: fn(&Exchange) -> f64| completed.iter().map(|exchange| of(exchange)).collect();
    match timing {
        Timing::Ttft => each(|exchange| exchange.ttft),
        Timing::E2el => each(|exchange| exchange.latency),
        Timing::ClientQueueTime => each(|exchange| exchange.queued),
        Timing::E2elIncludingClientQueue => each(|exchange| exchange.latency + exchange.queued),
        Timing::Itl => completed.iter().flat_map(|exchange| exchange.itls.iter().copied()).collect(),
        Timing::Tpot => completed
            .iter()
            .map(|exchange| (exchange.latency - exchange.ttft, output_tokens(exchange)))
            .filter(|(_, tokens)| *tokens > 1)
            .map(|(seconds, tokens)| seconds / (tokens - 1) as f64)
            .collect(),
    }
}

/// Adds the statistics of one timing, in milliseconds, under upstream's keys.
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

/// The values in ascending order.
pub fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The mean; 0 of nothing.
pub fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / values.len() as f64 }
}

/// The standard deviation of the population (numpy's `std`); 0 of nothing.
pub fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / values.len().max(1) as f64).sqrt()
}

/// The `p`-th percentile (0 to 100) of ascending values, linear between two of them (numpy's default); 0 of nothing.
pub fn percentile(sorted: &[f64], p: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let position = p / 100.0 * last as f64;
    let below = sorted.get(position.floor() as usize).copied().unwrap_or_default();
    let above = sorted.get(position.ceil() as usize).copied().unwrap_or(below);
    below + (above - below) * position.fract()
}

/// Most pieces with tokens, and most requests under way, in any whole second since the first send.
fn peaks(completed: &[&Exchange]) -> (f64, usize) {
    let begin = completed.iter().map(|exchange| exchange.start).fold(f64::INFINITY, f64::min);
    let mut tokens: IndexMap<u64, usize> = IndexMap::new();
    let mut requests: IndexMap<u64, usize> = IndexMap::new();
    let second = |time: f64| (time - begin) as u64;
    for exchange in completed {
        let mut time = exchange.start + exchange.ttft;
        *tokens.entry(second(time)).or_default() += 1;
        for gap in &exchange.itls {
            time += gap;
            *tokens.entry(second(time)).or_default() += 1;
        }
        for active in second(exchange.start)..=second(exchange.start + exchange.latency) {
            *requests.entry(active).or_default() += 1;
        }
    }
    let most = |counts: IndexMap<u64, usize>| counts.into_values().max().unwrap_or_default();
    (most(tokens) as f64, most(requests))
}

/// A number of requests a second; infinite is the word `inf`.
#[derive(Serialize)]
#[serde(untagged)]
enum Rate {
    Finite(f64),
    Infinite(&'static str),
}

/// The result file, in upstream's order.
#[derive(Serialize)]
struct File<'a> {
    date: String,
    endpoint_type: &'static str,
    backend: &'static str,
    label: Option<&'a str>,
    model_id: &'a str,
    tokenizer_id: &'a str,
    num_prompts: usize,
    #[serde(flatten)]
    metadata: IndexMap<&'a str, &'a str>,
    request_rate: Rate,
    burstiness: f64,
    max_concurrency: Option<usize>,
    #[serde(flatten)]
    ramp_up: Option<RampUpFlags>,
    duration: f64,
    completed: usize,
    failed: usize,
    total_input_tokens: u64,
    total_output_tokens: u64,
    request_throughput: f64,
    request_goodput: Option<f64>,
    output_throughput: f64,
    total_token_throughput: f64,
    #[serde(flatten)]
    lengths_and_times: Option<LengthsAndTimes<'a>>,
    latencies: Vec<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_times: Option<Vec<f64>>,
    queue_times: Vec<f64>,
    #[serde(flatten)]
    texts: Option<Texts<'a>>,
    max_output_tokens_per_s: f64,
    max_concurrent_requests: usize,
    rtfx: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rps_change_events: Option<Vec<RateChange>>,
    #[serde(flatten)]
    statistics: &'a IndexMap<String, f64>,
}

/// What `--ramp-up-strategy` adds after the traffic.
#[derive(Serialize)]
struct RampUpFlags {
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

/// What `--save-detailed` adds before the latencies.
#[derive(Serialize)]
struct LengthsAndTimes<'a> {
    input_lens: Vec<u64>,
    output_lens: Vec<u64>,
    ttfts: Vec<f64>,
    itls: Vec<&'a [f64]>,
}

/// What `--save-detailed` adds after the queue times.
#[derive(Serialize)]
struct Texts<'a> {
    generated_texts: Vec<&'a str>,
    errors: Vec<String>,
}

impl ServingResult {
    /// Sums up a load.
    pub fn new(arguments: Arguments, ended: Timestamp, exchanges: Vec<Exchange>, duration: f64) -> Self {
        let summary = summarise(&exchanges, duration, &arguments);
        Self { arguments, ended, exchanges, summary, lag: None }
    }

    /// With what the client measured of itself.
    pub fn with_lag(self, lag: Lag) -> Self {
        Self { lag: Some(lag), ..self }
    }

    /// When it ended, UTC, as results say it: `%Y%m%d-%H%M%S`.
    pub fn date(&self) -> String {
        self.ended.strftime("%Y%m%d-%H%M%S").to_string()
    }

    /// When the request rate reached each whole number.
    fn rate_changes(&self) -> Option<Vec<RateChange>> {
        let began = self.ended - SignedDuration::from_secs_f64(self.summary.duration);
        let moment = |index: Option<usize>| {
            let exchange = index.and_then(|index| self.exchanges.get(index));
            let due = exchange.map_or(0.0, |exchange| exchange.start - exchange.queued);
            (began + SignedDuration::from_secs_f64(due)).strftime("%Y-%m-%dT%H:%M:%S.%6f").to_string()
        };
        let changes = self.arguments.ramp_up()?.changes(self.exchanges.len());
        Some(changes.into_iter().map(|(rps, index)| RateChange { rps, timestamp: moment(index) }).collect())
    }

    /// The result file of `vllm bench serve`: same keys, types and order, then the keys of ours. `detailed` adds each
    /// request's own numbers.
    pub fn to_json(&self, detailed: bool) -> String {
        let mut map = self.to_map(detailed);
        if let Ok(Value::Object(own)) = serde_json::to_value(self.own()) {
            map.extend(own);
        }
        Value::Object(map).to_string()
    }

    /// Upstream's keys alone, before they are printed.
    pub(super) fn to_map(&self, detailed: bool) -> Map<String, Value> {
        let Self { arguments, exchanges, summary, .. } = self;
        let numbers = |of: fn(&Exchange) -> f64| exchanges.iter().map(of).collect::<Vec<_>>();
        let backend = arguments.backend.as_str();
        let rate = arguments.request_rate;
        let file = File {
            date: self.date(),
            endpoint_type: backend,
            backend,
            label: arguments.label.as_deref(),
            model_id: &arguments.model,
            tokenizer_id: arguments.tokenizer_id(),
            num_prompts: arguments.num_prompts,
            metadata: arguments.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect(),
            request_rate: if rate.is_infinite() { Rate::Infinite("inf") } else { Rate::Finite(rate) },
            burstiness: arguments.burstiness,
            max_concurrency: arguments.max_concurrency,
            ramp_up: arguments.ramp_up().map(|ramp| RampUpFlags {
                ramp_up_strategy: ramp.strategy,
                ramp_up_start_rps: ramp.start,
                ramp_up_end_rps: ramp.end,
            }),
            duration: summary.duration,
            completed: summary.completed,
            failed: summary.failed,
            total_input_tokens: summary.total_input_tokens,
            total_output_tokens: summary.total_output_tokens,
            request_throughput: summary.request_throughput,
            request_goodput: summary.request_goodput,
            output_throughput: summary.output_throughput,
            total_token_throughput: summary.total_token_throughput,
            lengths_and_times: detailed.then(|| LengthsAndTimes {
                input_lens: exchanges.iter().map(|exchange| exchange.input_tokens).collect(),
                output_lens: exchanges
                    .iter()
                    .map(|exchange| if exchange.failure.is_none() { output_tokens(exchange) } else { 0 })
                    .collect(),
                ttfts: numbers(|exchange| exchange.ttft),
                itls: exchanges.iter().map(|exchange| exchange.itls.as_slice()).collect(),
            }),
            latencies: numbers(|exchange| exchange.latency),
            start_times: detailed.then(|| numbers(|exchange| exchange.start)),
            queue_times: numbers(|exchange| exchange.queued),
            texts: detailed.then(|| Texts {
                generated_texts: exchanges.iter().map(|exchange| exchange.text.as_str()).collect(),
                errors: exchanges
                    .iter()
                    .map(|exchange| exchange.failure.as_ref().map(ToString::to_string).unwrap_or_default())
                    .collect(),
            }),
            max_output_tokens_per_s: summary.max_output_tokens_per_s,
            max_concurrent_requests: summary.max_concurrent_requests,
            rtfx: 0.0,
            rps_change_events: self.rate_changes(),
            statistics: &summary.statistics,
        };
        // Through a value: metadata with the name of a key shares that key instead of standing there twice. Strings and
        // finite numbers always print.
        match serde_json::to_value(file) {
            Ok(Value::Object(map)) => map,
            _ => Map::new(),
        }
    }

    /// The keys of ours, where the client measured itself.
    fn own(&self) -> Option<Own> {
        let lag = self.lag.clone()?;
        let warnings = self.warnings();
        Some(Own { failures: self.failures(), lag, warnings })
    }

    /// Why these numbers may not be what they seem.
    pub fn warnings(&self) -> Vec<String> {
        let completed = self.exchanges.iter().filter(|exchange| exchange.failure.is_none());
        let uncounted = completed.clone().filter(|exchange| exchange.output_tokens == 0).count();
        let mut ttfts: Vec<f64> = completed.map(|exchange| exchange.ttft * 1000.0).collect();
        ttfts = sorted(&ttfts);
        let mut warnings = match &self.lag {
            Some(lag) if !ttfts.is_empty() => lag.warnings(percentile(&ttfts, 50.0)),
            _ => Vec::new(),
        };
        if uncounted > 0 {
            warnings.push(format!("{uncounted} answers came without a token count: their pieces were counted instead"));
        }
        warnings
    }

    /// How many requests failed, by kind.
    pub fn failures(&self) -> IndexMap<String, usize> {
        let mut kinds = IndexMap::new();
        for failure in self.exchanges.iter().filter_map(|exchange| exchange.failure.as_ref()) {
            *kinds.entry(failure.kind()).or_default() += 1;
        }
        kinds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::arguments;
    use crate::client::request::Failure;
    use serde::Deserialize;

    const REAL: &str =
        include_str!("../../tests/data/results/repeats/serving_tinyllama_tp1_random_256_16_qps_inf_concurrency_8.json");

    /// A result that vLLM 0.32 wrote with `--save-detailed`.
    #[derive(Deserialize)]
    struct Detailed {
        date: String,
        duration: f64,
        input_lens: Vec<u64>,
        output_lens: Vec<u64>,
        ttfts: Vec<f64>,
        itls: Vec<Vec<f64>>,
        latencies: Vec<f64>,
        start_times: Vec<f64>,
        queue_times: Vec<f64>,
        generated_texts: Vec<String>,
    }

    fn real() -> ServingResult {
        asked("")
    }

    /// The real requests, as if `flags` had been asked for too.
    fn asked(flags: &str) -> ServingResult {
        let file: Detailed = serde_json::from_str(REAL).unwrap();
        let exchanges = (0..file.ttfts.len())
            .map(|i| Exchange {
                start: file.start_times[i],
                queued: file.queue_times[i],
                ttft: file.ttfts[i],
                itls: file.itls[i].clone(),
                latency: file.latencies[i],
                input_tokens: file.input_lens[i],
                output_tokens: file.output_lens[i],
                text: file.generated_texts[i].clone(),
                failure: None,
            })
            .collect();
        let command = "--model models/tiny-llama --backend vllm --max-concurrency 8 --num-prompts 150 \
            --metadata tensor_parallel_size=1 compilation_config.mode= optimization_level=";
        let arguments = arguments::parse(&shell_words::split(&format!("{command} {flags}")).unwrap()).unwrap();
        let ended = jiff::civil::DateTime::strptime("%Y%m%d-%H%M%S", &file.date).unwrap();
        let ended = ended.to_zoned(jiff::tz::TimeZone::UTC).unwrap().timestamp();
        ServingResult::new(arguments, ended, exchanges, file.duration)
    }

    type Object = IndexMap<String, serde_json::Value>;

    #[test]
    fn a_real_result_is_computed_again_from_its_requests_to_nine_digits() {
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
    fn without_detail_the_keys_are_those_of_upstreams_run() {
        const UPSTREAM: &str = include_str!(
            "../../tests/data/results/upstream-run/serving_tinyllama_tp1_random_256_16_qps_inf_concurrency_8.json"
        );
        let theirs: Object = serde_json::from_str(UPSTREAM).unwrap();
        let ours: Object = serde_json::from_str(&real().to_json(false)).unwrap();
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    }

    #[test]
    fn goodput_counts_the_requests_that_keep_every_objective() {
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
    fn waits_for_a_place_are_told_only_where_there_were_places_to_wait_for() {
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
    fn a_ramp_up_stands_in_the_result_with_the_moments_of_its_changes() {
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
    fn whatever_is_asked_for_has_the_keys_and_types_of_vllms() {
        const QUEUES: &str = include_str!("../../tests/data/results/options/queues-and-goodput.json");
        const RAMP_UP: &str = include_str!("../../tests/data/results/options/ramp-up-chat.json");
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

    #[test]
    fn percentiles_are_linear_and_the_deviation_is_that_of_the_population() {
        let values = sorted(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!(percentile(&values, 50.0), 2.5);
        assert_eq!(percentile(&values, 75.0), 3.25);
        assert_eq!(percentile(&values, 100.0), 4.0);
        assert_eq!(deviation(&values), 1.25_f64.sqrt());
        assert_eq!((percentile(&[], 99.0), mean(&[]), deviation(&[])), (0.0, 0.0, 0.0));
    }

    #[test]
    fn failed_requests_count_in_nothing_but_their_number() {
        let mut result = real();
        let before = result.summary.clone();
        let failed = Exchange {
            ttft: 99.0,
            input_tokens: 5,
            failure: Some(Failure::Status(500, "boom".to_owned())),
            ..Exchange::default()
        };
        result.exchanges.push(failed);
        let result = ServingResult::new(result.arguments, result.ended, result.exchanges, before.duration);
        assert_eq!(result.summary, Summary { failed: 1, ..before });
        assert_eq!(result.failures(), IndexMap::from([("status 500".to_owned(), 1)]));
    }
}
