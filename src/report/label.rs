//! Display names of cases: `llama8B tp1, random 128/2048, c=64` for `serving_llama8B_tp1_random_128_2048_qps_inf_concurrency_64`.

use std::collections::{HashMap, HashSet};

use vllm_verdict::Untrusted;
use vllm_verdict::case::Kind;
use vllm_verdict::number;
use vllm_verdict::v1::CaseFacts;

use crate::escape;

/// The display name of a case: one line of bounded length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The test: model, parallelism and data.
    pub test: Untrusted,
    /// Concurrency and request rate; empty if there is neither.
    pub load: Untrusted,
}

impl Label {
    /// Model and parallelism, with the kind of the test: the words before the data.
    pub fn model(&self) -> &str {
        self.test.raw().split(", ").next().unwrap_or_default()
    }

    /// Test and load.
    pub fn full(&self) -> Untrusted {
        let (test, load) = (self.test.raw(), self.load.raw());
        if load.is_empty() { self.test.clone() } else { format!("{test}, {load}").into() }
    }
}

/// The labels of a report, by case name.
pub struct Labels<'a>(HashMap<&'a str, Label>);

impl<'a> Labels<'a> {
    /// Labels for `cases`. Cases with the same label keep their names instead.
    pub fn new(cases: &'a [CaseFacts]) -> Self {
        let labels: Vec<Label> = cases.iter().map(label).collect();
        let (mut seen, mut duplicated) = (HashSet::new(), HashSet::new());
        for label in &labels {
            if !seen.insert(label.full()) {
                duplicated.insert(label.full());
            }
        }
        let distinct = cases.iter().zip(&labels).map(|(case, label)| {
            let label = if duplicated.contains(&label.full()) { plain(case.name.raw()) } else { label.clone() };
            (case.name.raw(), label)
        });
        Self(distinct.collect())
    }

    /// Several cases: a label with the range of its loads, what their labels have in common, or their number.
    pub fn of_all(&self, cases: &[&Untrusted]) -> Untrusted {
        let all: Vec<Label> = cases.iter().map(|case| self.of(case)).collect();
        let [first, .., last] = all.as_slice() else {
            return all.first().map(Label::full).unwrap_or_default();
        };
        let cases = number::plural(all.len(), "case");
        let words = if all.iter().all(|label| label.test == first.test) {
            let (from, to) = (first.load.raw(), last.load.raw());
            let to = if from.contains(',') { to } else { to.trim_start_matches("c=") };
            format!("{}, {from} … {to} ({cases})", first.test.raw())
        } else if all.iter().all(|label| label.model() == first.model()) {
            format!("{} ({cases})", first.model())
        } else {
            cases
        };
        words.into()
    }

    /// The label of a case; its name if the case is unknown.
    pub fn of(&self, case: &Untrusted) -> Label {
        self.0.get(case.raw()).cloned().unwrap_or_else(|| plain(case.raw()))
    }
}

fn plain(name: &str) -> Label {
    Label { test: escape::name(name).into(), load: Untrusted::default() }
}

fn label(case: &CaseFacts) -> Label {
    let Some(test) = test(case) else { return plain(case.name.raw()) };
    let rate = case
        .request_rate
        .as_ref()
        .map(Untrusted::raw)
        .filter(|&rate| rate != "inf")
        .map(|rate| format!("{rate} req/s"));
    let concurrency = case.max_concurrency.map(|concurrency| format!("c={concurrency}"));
    let load: Vec<String> = concurrency.into_iter().chain(rate).collect();
    Label { test, load: escape::name(load.join(", ")).into() }
}

/// `serving_llama8B_tp1_random_128_2048` is `llama8B tp1, random 128/2048`; `None` for names of another form.
fn test(case: &CaseFacts) -> Option<Untrusted> {
    let name = case.test.raw().strip_prefix(case.kind.as_str())?.strip_prefix('_')?;
    let is_word =
        |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
    let mut words: Vec<String> = name.split('_').filter(is_word).map(str::to_owned).collect();
    if words.len() != name.split('_').count() {
        return None;
    }
    let data = words.iter().rposition(|word| is_parallelism(word)).map_or(words.len(), |at| at + 1);
    if let [.., input, output] = &words[data..]
        && words.len() - data > 2
        && is_number(input)
        && is_number(output)
    {
        let lengths = format!("{input}/{output}");
        words.splice(words.len() - 2.., [lengths]);
    }
    let (model, data) = words.split_at(data);
    let kind = if case.kind == Kind::Serving { None } else { Some(case.kind.as_str().to_owned()) };
    let model = kind.iter().chain(model).map(String::as_str).collect::<Vec<_>>().join(" ");
    let label = if data.is_empty() { model } else { format!("{model}, {}", data.join(" ")) };
    Some(escape::name(label).into())
}

fn is_parallelism(word: &str) -> bool {
    ["tp", "pp"].iter().any(|prefix| word.strip_prefix(prefix).is_some_and(is_number))
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use vllm_verdict::case::MeasuredBy;

    use super::*;

    fn case(kind: Kind, test: &str, rate: Option<&str>, concurrency: Option<u64>) -> CaseFacts {
        CaseFacts {
            name: format!("{test}_case{}", concurrency.unwrap_or_default()).into(),
            kind,
            test: test.into(),
            model: "m".into(),
            request_rate: rate.map(Untrusted::from),
            max_concurrency: concurrency,
            measured_by: MeasuredBy::Native,
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    #[test]
    fn upstreams_names_become_labels() {
        let cases = [
            case(Kind::Serving, "serving_llama8B_tp1_random_128_2048", Some("inf"), Some(64)),
            case(Kind::Serving, "serving_llama70B_tp4_sharegpt", Some("4"), Some(200)),
            case(Kind::Serving, "serving_gemma3-12b_tp1_random_128_128", Some("inf"), None),
            case(Kind::Serving, "serving_whisper_large_v3_turbo_librispeech_clean_tp1", Some("inf"), Some(8)),
            case(Kind::Serving, "serving_llama4_maverick_17b128e_instruct_fp8", Some("inf"), Some(8)),
            case(Kind::Throughput, "throughput_llama8B_tp1", None, None),
            case(Kind::Serving, "my test | 1", Some("inf"), Some(1)),
        ];
        let labels = Labels::new(&cases);
        let words: Vec<_> = cases.iter().map(|case| labels.of(&case.name).full().raw().to_owned()).collect();
        insta::assert_snapshot!(words.join("\n"), @r"
        llama8B tp1, random 128/2048, c=64
        llama70B tp4, sharegpt, c=200, 4 req/s
        gemma3-12b tp1, random 128/128
        whisper large v3 turbo librispeech clean tp1, c=8
        llama4 maverick 17b128e instruct fp8, c=8
        throughput llama8B tp1
        my test | 1_case1
        ");
    }

    #[test]
    fn labels_are_unique() {
        let mut cases = [case(Kind::Latency, "latency_a", None, None), case(Kind::Latency, "latency_a", None, None)];
        cases[1].name = "latency_a_again".into();
        let labels = Labels::new(&cases);
        assert_eq!(labels.of(&"latency_a_again".into()).full(), "latency_a_again");
        assert_eq!(labels.of(&"latency_a_case0".into()).full(), "latency_a_case0");
    }
}
