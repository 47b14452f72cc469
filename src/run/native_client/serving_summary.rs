//! The summary that `vllm bench serve` prints, with the same labels, order and widths.

use std::fmt::Display;

use super::decoding::Decoding;
use super::serving_metrics::{ServingResult, Summary};
use crate::plan::serve_flags::Arguments;

/// Columns of the block.
const WIDTH: usize = 50;

/// Most failures that are listed.
const MOST_ERRORS: usize = 10;

/// Sections of the block: the key of the timing, its name, and its title.
const SECTIONS: [(&str, &str, &str); 6] = [
    ("ttft", "TTFT", "Time to First Token"),
    ("tpot", "TPOT", "Time per Output Token (excl. 1st token)"),
    ("itl", "ITL", "Inter-token Latency"),
    ("e2el", "E2EL", "End-to-end Latency"),
    ("client_queue_time", "Client Queue Time", "Client-side Queueing"),
    ("e2el_including_client_queue", "E2EL incl. Client Queue", "Queue-inclusive End-to-end Latency"),
];

/// The text before the load starts.
pub fn opening(arguments: &Arguments) -> String {
    let (rate, burstiness) = (arguments.load.request_rate, arguments.load.burstiness);
    let process = if burstiness == 1.0 { "Poisson process" } else { "Gamma distribution" };
    let concurrency = arguments.load.max_concurrency.map_or("None".to_owned(), |most| most.to_string());
    let traffic = match arguments.load.ramp_up() {
        Some(ramp) => format!(
            "Traffic ramp-up strategy: {}.\nWill increase RPS from {} to {} RPS over the duration of the benchmark.",
            ramp.strategy, ramp.start, ramp.end
        ),
        None => format!("Traffic request rate: {rate:?}"),
    };
    format!(
        "Starting main benchmark run...\n{traffic}\nBurstiness factor: {burstiness:?} ({process})\n\
         Maximum request concurrency: {concurrency}\n"
    )
}

/// The block. If no request completed it has only counts, because times of 0 would be wrong.
pub fn block(result: &ServingResult) -> String {
    let ServingResult { arguments, summary, .. } = result;
    let mut text = errors(result);
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    line(title(" Serving Benchmark Result ", '='));
    line(count("Successful requests:", summary.completed));
    line(count("Failed requests:", summary.failed));
    if let Some(most) = arguments.load.max_concurrency {
        line(count("Maximum request concurrency:", most));
    }
    if arguments.load.request_rate.is_finite() {
        line(number("Request rate configured (RPS):", arguments.load.request_rate));
    }
    line(number("Benchmark duration (s):", summary.duration));
    if summary.completed > 0 {
        match arguments.generates() {
            true => measured(summary, &mut line),
            false => pooled(summary, &mut line),
        }
        statistics(summary, &mut line);
        decoded(&result.decoding, &mut line);
    }
    line("=".repeat(WIDTH));
    text
}

fn measured(summary: &Summary, line: &mut impl FnMut(String)) {
    line(count("Total input tokens:", summary.total_input_tokens));
    line(count("Total generated tokens:", summary.total_output_tokens));
    line(number("Request throughput (req/s):", summary.request_throughput));
    if let Some(goodput) = summary.request_goodput {
        line(number("Request goodput (req/s):", goodput));
    }
    line(number("Output token throughput (tok/s):", summary.output_throughput));
    line(number("Peak output token throughput (tok/s):", summary.max_output_tokens_per_s));
    line(number("Peak concurrent requests:", summary.max_concurrent_requests as f64));
    line(number("Total token throughput (tok/s):", summary.total_token_throughput));
}

/// The totals where nothing is generated. A request has one input.
fn pooled(summary: &Summary, line: &mut impl FnMut(String)) {
    line(count("Total input tokens:", summary.total_input_tokens));
    line(number("Request throughput (req/s):", summary.request_throughput));
    line(number("Input throughput (inputs/s):", summary.request_throughput));
    line(number("Total token throughput (tok/s):", summary.total_token_throughput));
}

fn statistics(summary: &Summary, line: &mut impl FnMut(String)) {
    for (key, name, header) in SECTIONS {
        let ending = format!("_{key}_ms");
        let of_this = |(id, value): (&String, &f64)| Some((statistic(id.strip_suffix(&ending)?)?, *value));
        let statistics: Vec<_> = summary.statistics.iter().filter_map(of_this).collect();
        if !statistics.is_empty() {
            line(title(header, '-'));
        }
        for (statistic, value) in statistics {
            line(number(&format!("{statistic} {name} (ms):"), value));
        }
    }
}

/// How the server decoded. The counters of speculation of a model that decodes by diffusion are those of its canvases.
fn decoded(decoding: &Decoding, line: &mut impl FnMut(String)) {
    if let Some(diffusion) = &decoding.diffusion {
        line(title("Diffusion Decoding", '-'));
        line(number("Committed throughput (tok/s):", diffusion.committed_throughput));
        line(number("Denoising steps per canvas:", diffusion.steps_per_canvas));
        line(number("Committed per denoising step:", diffusion.committed_per_step));
        line(count("Committed tokens:", diffusion.committed_tokens));
        line(count("Denoising steps:", diffusion.denoising_steps));
        line(count("Canvas positions evaluated:", diffusion.canvas_positions));
    } else if let Some(speculation) = &decoding.speculation {
        line(title("Speculative Decoding", '-'));
        line(number("Acceptance rate (%):", speculation.acceptance_rate));
        line(number("Acceptance length:", speculation.acceptance_length));
        line(count("Drafts:", speculation.drafts));
        line(count("Draft tokens:", speculation.draft_tokens));
        line(count("Accepted tokens:", speculation.accepted_tokens));
        if !speculation.rates_by_position.is_empty() {
            line("Per-position acceptance (%):".to_owned());
        }
        for (position, rate) in speculation.rates_by_position.iter().enumerate() {
            line(number(&format!("  Position {position}:"), rate * 100.0));
        }
    }
}

/// The label of a statistic; `None` for the deviation, which is not printed.
fn statistic(id: &str) -> Option<String> {
    match id {
        "mean" => Some("Mean".to_owned()),
        "median" => Some("Median".to_owned()),
        _ => id.strip_prefix('p').filter(|p| p.parse::<f64>().is_ok()).map(|p| format!("P{p}")),
    }
}

fn errors(result: &ServingResult) -> String {
    let failures = result.answers.iter().filter_map(|answer| answer.failure.as_ref());
    let lines: String =
        failures.take(MOST_ERRORS).enumerate().map(|(i, failure)| format!("Error {i}: {failure}\n")).collect();
    if lines.is_empty() {
        return lines;
    }
    format!("Failed requests during benchmark run detected (capping to {MOST_ERRORS}):\n{lines}")
}

fn title(text: &str, fill: char) -> String {
    let space = WIDTH.saturating_sub(text.chars().count());
    let fill = |count| std::iter::repeat_n(fill, count).collect::<String>();
    format!("{}{text}{}", fill(space / 2), fill(space - space / 2))
}

fn count(label: &str, value: impl Display) -> String {
    format!("{label:<40} {:<10}", value.to_string())
}

fn number(label: &str, value: f64) -> String {
    count(label, format_args!("{value:.2}"))
}

#[cfg(test)]
mod tests {
    use vllm_load::{Answer, Failure};

    use super::*;
    use crate::plan::serve_flags;
    use crate::run::native_client::decoding::Speculation;
    use crate::run::native_client::serving_metrics::tests::arrivals;

    fn result(command: &str, answers: Vec<Answer>) -> ServingResult {
        let arguments = serve_flags::parse(&shell_words::split(command).unwrap()).unwrap();
        ServingResult::new(arguments, jiff::Timestamp::UNIX_EPOCH, answers, 2.0)
    }

    fn answer() -> Answer {
        let tokens = arrivals(0.1, &[0.02; 4]);
        Answer { tokens, input_tokens: 8, output_tokens: Some(5), ..Answer::default() }
    }

    #[test]
    fn the_block_has_the_labels_order_and_widths_of_vllm() {
        let command = "--model m --max-concurrency 8 --request-rate 4 --metric-percentiles 50,99.9";
        let text = block(&result(command, vec![answer(), answer()]));
        assert!(text.lines().all(|line| line.chars().count() >= WIDTH), "{text}");
        let trimmed: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
        insta::assert_snapshot!(trimmed, @r"
        ============ Serving Benchmark Result ============
        Successful requests:                     2
        Failed requests:                         0
        Maximum request concurrency:             8
        Request rate configured (RPS):           4.00
        Benchmark duration (s):                  2.00
        Total input tokens:                      16
        Total generated tokens:                  10
        Request throughput (req/s):              1.00
        Output token throughput (tok/s):         5.00
        Peak output token throughput (tok/s):    10.00
        Peak concurrent requests:                2.00
        Total token throughput (tok/s):          13.00
        ---------------Time to First Token----------------
        Mean TTFT (ms):                          100.00
        Median TTFT (ms):                        100.00
        P50 TTFT (ms):                           100.00
        P99.9 TTFT (ms):                         100.00
        -----Time per Output Token (excl. 1st token)------
        Mean TPOT (ms):                          20.00
        Median TPOT (ms):                        20.00
        P50 TPOT (ms):                           20.00
        P99.9 TPOT (ms):                         20.00
        ---------------Inter-token Latency----------------
        Mean ITL (ms):                           20.00
        Median ITL (ms):                         20.00
        P50 ITL (ms):                            20.00
        P99.9 ITL (ms):                          20.00
        ==================================================
        ");
    }

    #[test]
    fn acceptance_rates_are_a_section_as_in_vllm() {
        let speculation = Speculation {
            acceptance_rate: 50.0,
            acceptance_length: 2.8,
            drafts: 5,
            draft_tokens: 18,
            accepted_tokens: 9,
            rates_by_position: vec![1.0, 0.6],
        };
        let decoding = Decoding { speculation: Some(speculation), ..Decoding::default() };
        let text = block(&ServingResult { decoding, ..result("--model m", vec![answer()]) });
        let section: Vec<&str> =
            text.lines().skip_while(|line| !line.contains("Speculative")).map(str::trim_end).collect();
        insta::assert_snapshot!(section.join("\n"), @r"
        ---------------Speculative Decoding---------------
        Acceptance rate (%):                     50.00
        Acceptance length:                       2.80
        Drafts:                                  5
        Draft tokens:                            18
        Accepted tokens:                         9
        Per-position acceptance (%):
          Position 0:                            100.00
          Position 1:                            60.00
        ==================================================
        ");
    }

    #[test]
    fn what_is_pooled_has_its_own_totals_as_in_vllm() {
        let command = "--model m --backend openai-embeddings --endpoint /v1/embeddings";
        let answer = Answer { tokens: vec![0.1], input_tokens: 8, ..Answer::default() };
        let text = block(&result(command, vec![answer.clone(), answer]));
        insta::assert_snapshot!(text.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>(), @r"
        ============ Serving Benchmark Result ============
        Successful requests:                     2
        Failed requests:                         0
        Benchmark duration (s):                  2.00
        Total input tokens:                      16
        Request throughput (req/s):              1.00
        Input throughput (inputs/s):             1.00
        Total token throughput (tok/s):          8.00
        ----------------End-to-end Latency----------------
        Mean E2EL (ms):                          100.00
        Median E2EL (ms):                        100.00
        P99 E2EL (ms):                           100.00
        ==================================================
        ");
    }

    #[test]
    fn failures_are_listed_and_without_a_completed_request_there_are_no_times() {
        let failed = Answer { failure: Some(Failure::Status(503, "busy".to_owned())), ..Answer::default() };
        let text = block(&result("--model m", vec![failed]));
        insta::assert_snapshot!(text.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>(), @r"
        Failed requests during benchmark run detected (capping to 10):
        Error 0: the server answered 503: busy
        ============ Serving Benchmark Result ============
        Successful requests:                     0
        Failed requests:                         1
        Benchmark duration (s):                  2.00
        ==================================================
        ");
    }

    #[test]
    fn the_opening_describes_the_load() {
        let opening = |command: &str| opening(&result(command, Vec::new()).arguments);
        insta::assert_snapshot!(opening("--model m --max-concurrency 8"), @r"
        Starting main benchmark run...
        Traffic request rate: inf
        Burstiness factor: 1.0 (Poisson process)
        Maximum request concurrency: 8
        ");
        insta::assert_snapshot!(opening("--model m --request-rate 4 --burstiness 0.5"), @r"
        Starting main benchmark run...
        Traffic request rate: 4.0
        Burstiness factor: 0.5 (Gamma distribution)
        Maximum request concurrency: None
        ");
    }
}
