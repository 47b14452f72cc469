//! The metrics that verdicts need of `vllm bench serve`: a suite may ask for others, and the result then lacks them.

use super::flag_names;

/// Metrics that verdicts need.
const METRICS: [&str; 2] = ["ttft", "tpot"];

/// Percentile of these metrics that verdicts need.
const PERCENTILE: f64 = 99.0;

/// Parts of the names of backends that generate no tokens.
const WITHOUT_TOKENS: [&str; 6] = ["embed", "pool", "rerank", "clip", "vlm2vec", "infinity"];

/// Words that make a command of `vllm bench serve` report what verdicts need, besides what it asks for; none where it does
/// already. The last of two equal flags counts.
pub fn words(argv: &[String]) -> Vec<String> {
    let value_of = |flag: &str| {
        let words = argv.iter().enumerate().rev();
        let mut found = words.filter_map(|(at, word)| {
            let full = flag_names::full(word).ok()?;
            match full.split_once('=') {
                Some((name, value)) => (name == flag).then(|| value.to_owned()),
                None => (full == flag).then(|| argv.get(at + 1).cloned().unwrap_or_default()),
            }
        });
        found.next()
    };
    let backend = value_of("--backend").unwrap_or_default();
    if WITHOUT_TOKENS.iter().any(|part| backend.contains(part)) {
        return Vec::new();
    }
    let mut added = Vec::new();
    if let Some(asked) = value_of("--percentile-metrics") {
        let lacks = METRICS.into_iter().filter(|metric| !asked.split(',').any(|it| it.trim() == *metric));
        added.extend(longer("--percentile-metrics", &asked, lacks.map(str::to_owned).collect()));
    }
    if let Some(asked) = value_of("--metric-percentiles") {
        let has = asked.split(',').any(|it| it.trim().parse() == Ok(PERCENTILE));
        added.extend(longer(
            "--metric-percentiles",
            &asked,
            (!has).then(|| PERCENTILE.to_string()).into_iter().collect(),
        ));
    }
    added
}

/// The flag with a longer list.
fn longer(flag: &str, asked: &str, more: Vec<String>) -> Option<String> {
    let all: Vec<&str> =
        std::iter::once(asked).chain(more.iter().map(String::as_str)).filter(|it| !it.is_empty()).collect();
    (!more.is_empty()).then(|| format!("{flag}={}", all.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(command: &str) -> String {
        words(&shell_words::split(&format!("vllm bench serve --model m {command}")).unwrap()).join(" ")
    }

    #[test]
    fn what_the_suite_asks_for_is_kept_and_what_verdicts_need_is_added() {
        for (command, expected) in [
            ("", ""),
            ("--metric-percentiles 25,50,75", "--metric-percentiles=25,50,75,99"),
            ("--metric_percentiles=50", "--metric-percentiles=50,99"),
            ("--metric-percentiles 90,99.0", ""),
            ("--percentile-metrics ttft,e2el", "--percentile-metrics=ttft,e2el,tpot"),
            ("--percentile-m itl", "--percentile-metrics=itl,ttft,tpot"),
            ("--percentile-metrics ttft,tpot,itl,e2el --metric-percentiles 50,99", ""),
            (
                "--percentile-metrics=e2el --metric-percentiles 95",
                "--percentile-metrics=e2el,ttft,tpot --metric-percentiles=95,99",
            ),
            ("--metric-percentiles 50 --metric-percentiles 99", ""),
        ] {
            assert_eq!(added(command), expected, "{command}");
        }
    }

    #[test]
    fn a_backend_without_tokens_is_asked_for_nothing_more() {
        for backend in ["openai-embeddings", "vllm-rerank", "vllm-pooling", "infinity-embeddings"] {
            assert_eq!(added(&format!("--backend {backend} --percentile-metrics e2el")), "");
        }
        assert_eq!(added("--backend openai-chat --percentile-metrics itl"), "--percentile-metrics=itl,ttft,tpot");
    }
}
