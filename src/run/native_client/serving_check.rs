//! What the native client says of its own result, in addition to what `vllm bench serve` writes: which numbers it may have
//! distorted, the rate and the lengths that were asked for and given, and tokens where vLLM counts events.

use indexmap::IndexMap;
use serde::Serialize;
use vllm_load::numbers::{mean, percentile, sorted};
use vllm_load::{Answer, SelfCheck};

use super::serving_metrics::{ServingResult, Summary, output_tokens, summarize};
use crate::plan::serve_flags::Arguments;

/// A limit from which on no metric counts as distorted: even one that was measured as 0.
const ANY_DISTORTION: f64 = 0.99;

/// A smaller change of a metric is not counted, in milliseconds: systems wake a thread no more exactly.
const LEAST_DISTORTION_MS: f64 = 0.2;

/// An offered rate, or tokens of an answer, below this share of what was asked for are reported.
const ENOUGH: f64 = 0.95;

/// More tokens an event than this are told: vLLM's ITL is then the time between events.
const TOKENS_OF_ONE: f64 = 1.05;

/// The keys of vllm-perf in a result file. They are after those of vLLM, which ignores them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClientKeys {
    /// How many requests failed, by kind.
    failures: IndexMap<String, usize>,
    /// The words of the first failure of each kind.
    failure_messages: IndexMap<String, String>,
    /// Requests that were sent again, because the server had closed their connection before the first byte of an answer.
    resent_requests: usize,
    /// What the client measured of itself.
    #[serde(flatten)]
    check: SelfCheck,
    /// Requests a second as they were sent, at a finite rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    offered_request_rate: Option<f64>,
    /// Requests without a complete answer, where vLLM's own keys have no number of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<usize>,
    #[serde(flatten)]
    tokens: Option<TokenKeys>,
    /// `mean_first_token_ms`, ...: the time to the first event with a token; and, with a wait in the client,
    /// `mean_ttft_including_client_queue_ms`, ...
    #[serde(flatten)]
    times: IndexMap<String, f64>,
    /// Metrics that the client may have changed by more than the limit, of 5 % where no setting says otherwise.
    distorted: Vec<String>,
    /// Reasons why the numbers can be misleading.
    warnings: Vec<String>,
}

/// The keys of answers that have tokens.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct TokenKeys {
    /// Output tokens that the requests with an answer asked for.
    requested_output_tokens: u64,
    /// Output tokens an event with a token.
    tokens_per_event: f64,
    /// Most output tokens in one second of the load. vLLM's `max_output_tokens_per_s` counts events.
    peak_output_tokens_per_s: f64,
}

impl ServingResult {
    /// The keys of vllm-perf, if the client measured itself.
    pub(super) fn client_keys(&self) -> Option<ClientKeys> {
        let check = self.check.clone()?;
        let completed: Vec<&Answer> = self.completed().collect();
        let offered = self.offered.requested.and(self.offered.sent);
        Some(ClientKeys {
            failures: self.failures(),
            failure_messages: self.failure_messages(),
            resent_requests: self.answers.iter().filter(|answer| answer.client.was_resent).count(),
            check,
            offered_request_rate: offered,
            failed: (!self.arguments.generates()).then_some(self.summary.failed),
            tokens: self.arguments.generates().then(|| TokenKeys {
                requested_output_tokens: completed.iter().map(|answer| answer.requested_tokens as u64).sum(),
                tokens_per_event: tokens_per_event(&completed),
                peak_output_tokens_per_s: peak(&completed),
            }),
            times: self.more_times(&completed),
            distorted: self.distorted(),
            warnings: self.warnings(),
        })
    }

    /// Reasons why these numbers can be misleading.
    pub fn warnings(&self) -> Vec<String> {
        let completed: Vec<&Answer> = self.completed().collect();
        if completed.is_empty() {
            return Vec::new();
        }
        let mut warnings = Vec::new();
        if self.arguments.server.insecure && self.arguments.server.url().is_ok_and(|url| url.scheme() == "https") {
            warnings.push("the certificate of the server was not checked (--insecure)".to_owned());
        }
        warnings.extend(self.decoding.lost.clone());
        let distorted = self.distorted();
        if let (false, Some(check)) = (distorted.is_empty(), &self.check) {
            let lag = check.client_lag_ms.map_or(String::new(), |lag| format!(" (p99 of its lag: {:.2} ms)", lag.p99));
            let (most, metrics) = (self.most_distortion * 100.0, distorted.join(", "));
            warnings
                .push(format!("the client was late{lag}: these metrics may be off by more than {most} %: {metrics}"));
        }
        let latencies: Vec<f64> = completed.iter().map(|answer| answer.latency() * 1000.0).collect();
        warnings.extend(self.check.iter().flat_map(|check| check.warnings(percentile(&sorted(&latencies), 50.0))));
        warnings.extend(self.slow_rate(&completed));
        let resent = self.answers.iter().filter(|answer| answer.client.was_resent).count();
        if resent > 0 {
            warnings.push(format!(
                "{} sent again: the server had closed the connection before it answered",
                counted(resent, "request was", "requests were")
            ));
        }
        if self.arguments.generates() {
            warnings.extend(self.token_warnings(&completed));
        }
        warnings
    }

    /// Reasons why numbers of tokens and their times can be misleading.
    fn token_warnings(&self, completed: &[&Answer]) -> Vec<String> {
        let mut warnings: Vec<String> = short_answers(completed, &self.arguments).into_iter().collect();
        let uncounted = completed.iter().filter(|answer| answer.output_tokens.is_none()).count();
        if uncounted > 0 {
            warnings.push(format!(
                "{} no token count: chunks were counted instead",
                counted(uncounted, "answer had", "answers had")
            ));
        }
        let at_once = completed.iter().filter(|answer| is_at_once(answer)).count();
        if 2 * at_once > completed.len() {
            warnings.push(format!(
                "{at_once} of {} answers came with all tokens at once: their TPOT is 0 and their TTFT holds the rest",
                completed.len()
            ));
        }
        let per_event = tokens_per_event(completed);
        if at_once == 0 && per_event > TOKENS_OF_ONE {
            warnings.push(format!(
                "an event had {per_event:.1} tokens on average: ITL is the time between events, TPOT is that between tokens"
            ));
        }
        warnings
    }

    /// Metrics whose most likely value, given how late the client was, differs too much from the measured one.
    pub fn distorted(&self) -> Vec<String> {
        let Some(check) = self.check.as_ref().filter(|_| self.most_distortion < ANY_DISTORTION) else {
            return Vec::new();
        };
        let times = self.times();
        let likely: Vec<Option<Answer>> = self.answers.iter().map(Answer::estimated).collect();
        let mut distorted = Vec::new();
        if likely.iter().any(Option::is_some) {
            let likely: Vec<Answer> = likely
                .into_iter()
                .zip(&self.answers)
                .map(|(likely, answer)| likely.unwrap_or_else(|| answer.clone()))
                .collect();
            let more = self.more_times(&likely.iter().filter(|answer| answer.failure.is_none()).collect::<Vec<_>>());
            let likely = summarize(&likely, self.summary.duration, &self.arguments);
            let likely: IndexMap<String, f64> =
                likely.statistics.into_iter().chain(likely.unasked).chain(more).collect();
            let differs = |(key, value): (&String, &f64)| {
                let likely = likely.get(key).copied().unwrap_or(*value);
                let most = (self.most_distortion * value.max(likely)).max(LEAST_DISTORTION_MS);
                (!key.starts_with("std_") && (likely - value).abs() > most).then(|| key.clone())
            };
            distorted.extend(times.iter().filter_map(differs));
        }
        // Where times of arrival are not known, a lag of the client is in all times but TPOT, which is a mean over many.
        let lag = check.client_lag_ms.map_or(0.0, |lag| lag.p99);
        let late = times.iter().filter(|(key, value)| {
            let is_of_one = key.contains("ttft") || key.contains("e2el") || key.contains("itl");
            let is_open = !check.knows_arrivals && is_of_one || check.hides_gaps && key.contains("itl");
            is_open && !key.starts_with("std_") && lag > (self.most_distortion * **value).max(LEAST_DISTORTION_MS)
        });
        for (key, _) in late {
            if !distorted.contains(key) {
                distorted.push(key.clone());
            }
        }
        distorted
    }

    /// The times of the result, asked for or not, and those that vLLM does not write.
    fn times(&self) -> IndexMap<String, f64> {
        let Summary { statistics, unasked, .. } = self.summary.clone();
        statistics.into_iter().chain(unasked).chain(self.more_times(&self.completed().collect::<Vec<_>>())).collect()
    }

    fn completed(&self) -> impl Iterator<Item = &Answer> {
        self.answers.iter().filter(|answer| answer.failure.is_none())
    }

    fn failure_messages(&self) -> IndexMap<String, String> {
        let mut messages = IndexMap::new();
        for failure in self.answers.iter().filter_map(|answer| answer.failure.as_ref()) {
            messages.entry(failure.kind()).or_insert_with(|| failure.to_string());
        }
        messages
    }

    /// Times that vLLM does not write, in milliseconds.
    fn more_times(&self, completed: &[&Answer]) -> IndexMap<String, f64> {
        let mut times = IndexMap::new();
        let mut add = |key: &str, seconds: Vec<f64>| {
            let sorted = sorted(&seconds);
            for (name, value) in
                [("mean", mean(&sorted)), ("median", percentile(&sorted, 50.0)), ("p99", percentile(&sorted, 99.0))]
            {
                times.insert(format!("{name}_{key}_ms"), value * 1000.0);
            }
        };
        if !self.arguments.generates() {
            return times;
        }
        let first = |answer: &&Answer| answer.first_token.map(|first| first - answer.sent);
        add("first_token", completed.iter().filter_map(first).collect());
        let load = &self.arguments.load;
        if load.max_concurrency.is_some() && load.request_rate.is_finite() {
            let waited = completed.iter().map(|answer| answer.ttft() + answer.queued()).collect();
            add("ttft_including_client_queue", waited);
        }
        times
    }

    /// A warning that the offered rate is below the one that was asked for.
    fn slow_rate(&self, completed: &[&Answer]) -> Option<String> {
        let (requested, sent) = (self.offered.requested?, self.offered.sent?);
        if sent >= ENOUGH * requested {
            return None;
        }
        let waits: Vec<f64> = completed.iter().map(|answer| answer.queued()).collect();
        let p99 = percentile(&sorted(&waits), 99.0);
        let place = match self.arguments.load.max_concurrency {
            Some(most) => format!("requests waited {p99:.2} s (p99) for one of {most} places (--max-concurrency)"),
            None => format!("requests were sent up to {p99:.2} s late (p99)"),
        };
        Some(format!(
            "the offered rate was {sent:.1} of {requested:.1} requests/s: {place}, which TTFT does not include"
        ))
    }
}

/// A warning that answers are shorter than asked for, where the model was told not to end them early.
fn short_answers(completed: &[&Answer], arguments: &Arguments) -> Option<String> {
    let asked: u64 = completed.iter().map(|answer| answer.requested_tokens as u64).sum();
    let given: u64 = completed.iter().map(|answer| output_tokens(answer)).sum();
    let is_short = (given as f64) < ENOUGH * asked as f64;
    (arguments.sampling.ignore_eos && is_short).then(|| {
        format!("answers were shorter than asked for: {given} of {asked} tokens, although ignore_eos was sent")
    })
}

fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Whether an answer of several tokens came in one piece.
fn is_at_once(answer: &Answer) -> bool {
    output_tokens(answer) > 1 && answer.latency() <= answer.ttft()
}

fn tokens_per_event(completed: &[&Answer]) -> f64 {
    let tokens: u64 = completed.iter().map(|answer| output_tokens(answer)).sum();
    let events: usize = completed.iter().map(|answer| answer.token_events).sum();
    if events == 0 { 0.0 } else { tokens as f64 / events as f64 }
}

/// Most output tokens in any whole second since the first request. The tokens of an answer are spread evenly over its events.
fn peak(completed: &[&Answer]) -> f64 {
    let begin = completed.iter().map(|answer| answer.sent).fold(f64::INFINITY, f64::min);
    let mut seconds: IndexMap<u64, f64> = IndexMap::new();
    for answer in completed {
        let share = output_tokens(answer) as f64 / answer.tokens.len().max(1) as f64;
        for arrived in &answer.tokens {
            *seconds.entry((arrived - begin) as u64).or_default() += share;
        }
    }
    seconds.into_values().fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use vllm_load::{ClientTimes, LagSummary, OfferedRate};

    use super::super::serving_metrics::tests::arrivals;
    use super::*;
    use crate::plan::serve_flags;

    /// The result of `answers` with `flags`.
    fn result(flags: &str, answers: Vec<Answer>) -> ServingResult {
        let arguments = serve_flags::parse(&shell_words::split(&format!("--model m {flags}")).unwrap()).unwrap();
        let check = SelfCheck { knows_arrivals: true, ..SelfCheck::default() };
        ServingResult::new(arguments, jiff::Timestamp::UNIX_EPOCH, answers, 4.0)
            .with_check(check, OfferedRate::default())
    }

    fn answer() -> Answer {
        let tokens = arrivals(0.5, &[0.1; 3]);
        let first_token = tokens.first().copied();
        Answer {
            tokens,
            first_token,
            token_events: 4,
            output_tokens: Some(4),
            requested_tokens: 4,
            ..Answer::default()
        }
    }

    #[test]
    fn a_metric_is_distorted_where_the_likely_times_differ() {
        assert_eq!(result("", vec![answer(); 4]).distorted(), Vec::<String>::new());
        // The last three tokens were read together, 300 ms after the first.
        let late = Answer {
            tokens: vec![0.5, 0.8, 0.8, 0.8],
            client: ClientTimes { estimated: vec![(1, 0.6), (2, 0.7)], ..ClientTimes::default() },
            ..answer()
        };
        let distorted = result("", vec![late.clone(), late]);
        assert_eq!(distorted.distorted(), ["median_itl_ms", "p99_itl_ms"]);
        assert_eq!(
            distorted.warnings(),
            ["the client was late: these metrics may be off by more than 5 %: median_itl_ms, p99_itl_ms"]
        );
        let any = ServingResult { most_distortion: ANY_DISTORTION, ..distorted };
        assert_eq!(any.distorted(), Vec::<String>::new());
        let slow = ClientTimes { writing: 0.05, ..ClientTimes::default() };
        let distorted = result("", vec![Answer { client: slow, ..answer() }]).distorted();
        let of_ttft = ["mean_ttft_ms", "median_ttft_ms", "p99_ttft_ms"];
        let of_first_token = ["mean_first_token_ms", "median_first_token_ms", "p99_first_token_ms"];
        assert_eq!(distorted, [of_ttft, of_first_token].concat());
    }

    #[test]
    fn without_times_of_arrival_a_lag_counts_for_each_metric() {
        let mut result = result("", vec![answer()]);
        let lag = LagSummary { p50: 1.0, p99: 6.0, max: 9.0 };
        result.check = Some(SelfCheck { client_lag_ms: Some(lag), ..SelfCheck::default() });
        let of_itl = ["mean_itl_ms", "median_itl_ms", "p99_itl_ms"];
        assert_eq!(result.distorted(), of_itl);
        let known = SelfCheck { client_lag_ms: Some(lag), knows_arrivals: true, ..SelfCheck::default() };
        result.check = Some(known.clone());
        assert_eq!(result.distorted(), Vec::<String>::new());
        result.check = Some(SelfCheck { hides_gaps: true, ..known });
        assert_eq!(result.distorted(), of_itl);
    }

    #[test]
    fn the_offered_rate_is_told_where_it_is_below_the_requested_one() {
        let mut result = result("--request-rate 80 --max-concurrency 2", vec![Answer { sent: 0.25, ..answer() }]);
        result.offered = OfferedRate { requested: Some(80.0), sent: Some(41.0) };
        insta::assert_snapshot!(result.warnings().join("\n"), @"the offered rate was 41.0 of 80.0 requests/s: requests waited 0.25 s (p99) for one of 2 places (--max-concurrency), which TTFT does not include");
        let keys = serde_json::to_value(result.client_keys()).unwrap();
        assert_eq!(
            (keys["offered_request_rate"].as_f64(), keys["p99_ttft_including_client_queue_ms"].as_f64()),
            (Some(41.0), Some(500.0))
        );
        result.offered = OfferedRate { requested: Some(80.0), sent: Some(79.0) };
        assert_eq!(result.warnings(), Vec::<String>::new());
    }

    #[test]
    fn answers_that_are_shorter_than_asked_for_are_told() {
        let short =
            |flags: &str| result(flags, vec![Answer { requested_tokens: 16, ..answer() }]).warnings().join("\n");
        insta::assert_snapshot!(short(""), @"answers were shorter than asked for: 4 of 16 tokens, although ignore_eos was sent");
        assert_eq!(short("--dataset-name sharegpt --dataset-path a"), "");
        assert_eq!(short("--dataset-name sharegpt --dataset-path a --ignore-eos").lines().count(), 1);
    }

    #[test]
    fn tokens_stand_beside_events() {
        let packed = Answer {
            output_tokens: Some(40),
            requested_tokens: 40,
            first_token: Some(0.6),
            token_events: 3,
            ..answer()
        };
        let result = result("", vec![packed]);
        let keys = serde_json::to_value(result.client_keys()).unwrap();
        let number = |key: &str| keys[key].as_f64().unwrap();
        assert_eq!((number("median_first_token_ms"), number("peak_output_tokens_per_s")), (600.0, 40.0));
        assert!((number("tokens_per_event") - 40.0 / 3.0).abs() < 1e-9);
        insta::assert_snapshot!(result.warnings().join("\n"), @"an event had 13.3 tokens on average: ITL is the time between events, TPOT is that between tokens");
    }

    #[test]
    fn answers_in_one_piece_without_a_count_or_sent_again_are_told() {
        let client = ClientTimes { was_resent: true, ..ClientTimes::default() };
        let at_once = Answer { tokens: vec![0.5; 4], output_tokens: None, client, ..answer() };
        insta::assert_snapshot!(result("", vec![at_once]).warnings().join("\n"), @r"
        1 request was sent again: the server had closed the connection before it answered
        1 answer had no token count: chunks were counted instead
        1 of 1 answers came with all tokens at once: their TPOT is 0 and their TTFT holds the rest
        ");
        let none =
            Answer { tokens: vec![0.5], token_events: 0, output_tokens: Some(0), requested_tokens: 0, ..answer() };
        assert_eq!(result("", vec![none]).warnings(), Vec::<String>::new());
    }
}
