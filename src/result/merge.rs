//! Several slices as one repetition, and several repetitions as one folder that upstream's tools can read: means and medians,
//! under upstream's keys.

use indexmap::IndexSet;
use serde_json::{Map, Number, Value};
use vllm_verdict::repetition::Outcome;
use vllm_verdict::statistics::median;
use vllm_verdict::v1::RepetitionValue;

use crate::result::case_files::{CaseFiles, Folder};
use crate::result::python_json::plain;
use crate::result::result_document::parse;

/// Lists with one number for each place, such as a position of a draft or a percentile: the other lists of vLLM have an entry
/// for each request.
const BY_PLACE: [&str; 2] = ["spec_decode_per_position_acceptance_rates", "percentiles_ttft_ms"];

/// One folder of several repetitions. Of every case: each number is the median over the repetitions that measured it,
/// also in lists with a number for each place, other lists are joined, and everything else (date, commands) is that of the last. A case that was never measured is that
/// of its last repetition.
pub fn merge(repetitions: &[Folder]) -> Folder {
    of_all(repetitions, |all| {
        let measured: Vec<&CaseFiles> = all.iter().copied().filter(|case| is_measured(case)).collect();
        merge_case(if measured.is_empty() { all } else { &measured }, median)
    })
}

/// One repetition of several slices. Of every case: each number is the mean of the slices that the rule reads, arrays are
/// joined, and everything else is of the last slice.
pub fn of_slices(slices: &[Folder]) -> Folder {
    of_all(slices, |all| {
        let measured: Vec<&CaseFiles> = all.iter().copied().filter(|case| is_measured(case)).collect();
        let merged = merge_case(if measured.is_empty() { all } else { &measured }, mean_of_slices)?;
        let outcome = Outcome::of_slices(all.iter().map(|case| case.outcome.clone()).collect())?;
        Some(CaseFiles { outcome, ..merged })
    })
}

/// Every case of several folders, merged from those that have it.
fn of_all(folders: &[Folder], merge: impl Fn(&[&CaseFiles]) -> Option<CaseFiles>) -> Folder {
    let names: IndexSet<&String> = folders.iter().flat_map(|folder| folder.cases.keys()).collect();
    let merged = |name: &String| {
        let all: Vec<&CaseFiles> = folders.iter().filter_map(|folder| folder.cases.get(name)).collect();
        Some((name.clone(), merge(&all)?))
    };
    Folder { cases: names.into_iter().filter_map(merged).collect() }
}

fn is_measured(case: &CaseFiles) -> bool {
    matches!(case.outcome, Outcome::Measured(_))
}

fn mean_of_slices(values: &[f64]) -> Option<f64> {
    RepetitionValue::Slices(values.iter().copied().map(Some).collect()).shown()
}

/// How several numbers become one.
type Reduce = fn(&[f64]) -> Option<f64>;

fn merge_case(cases: &[&CaseFiles], reduce: Reduce) -> Option<CaseFiles> {
    let last = (*cases.last()?).clone();
    // Any key of any version of vLLM passes through, so this is the one place where a result is not typed.
    let documents: Vec<Value> = cases
        .iter()
        .filter_map(|case| serde_json::from_str(&plain(case.text.as_deref()?)).ok())
        .map(without_distorted)
        .collect();
    if documents.len() < 2 || !is_measured(&last) {
        return Some(last);
    }
    let text = merge_values(&documents.iter().collect::<Vec<_>>(), reduce).to_string();
    let outcome = parse(last.kind, &text).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
    Some(CaseFiles { text: Some(text), outcome, ..last })
}

/// A document without the metrics that the client distorted, which other repetitions may have.
fn without_distorted(mut document: Value) -> Value {
    if let Some(result) = document.as_object_mut()
        && let Some(Value::Array(distorted)) = result.remove("distorted")
    {
        for metric in distorted.iter().filter_map(Value::as_str) {
            result.remove(metric);
        }
    }
    document
}

fn merge_values(values: &[&Value], reduce: Reduce) -> Value {
    // A value that one repetition lacks does not lose those of the others.
    let known: Vec<&Value> = values.iter().copied().filter(|value| !value.is_null()).collect();
    let values = if known.is_empty() { values } else { &known };
    if let Some(numbers) = all(values, Value::as_number) {
        return one_number(&numbers, reduce).map_or(Value::Null, Value::Number);
    }
    if let Some(arrays) = all(values, Value::as_array) {
        return arrays.into_iter().flatten().cloned().collect();
    }
    if let Some(objects) = all(values, Value::as_object) {
        let keys: IndexSet<&String> = objects.iter().flat_map(|object| object.keys()).collect();
        let merged = |key: &String| {
            let values: Vec<&Value> = objects.iter().filter_map(|object| object.get(key)).collect();
            let by_place = BY_PLACE.contains(&key.as_str()).then(|| merge_places(&values, reduce)).flatten();
            (key.clone(), by_place.unwrap_or_else(|| merge_values(&values, reduce)))
        };
        return Value::Object(keys.into_iter().map(merged).collect::<Map<_, _>>());
    }
    values.last().copied().cloned().unwrap_or_default()
}

/// Lists place by place, and the lists in them; a place that some lack is that of the others. `None` if one is not a list.
fn merge_places(values: &[&Value], reduce: Reduce) -> Option<Value> {
    let lists = all(values, Value::as_array)?;
    let longest = lists.iter().map(|list| list.len()).max()?;
    let place = |at| {
        let values: Vec<&Value> = lists.iter().filter_map(|list| list.get(at)).collect();
        merge_places(&values, reduce).unwrap_or_else(|| merge_values(&values, reduce))
    };
    Some((0..longest).map(place).collect())
}

fn all<'a, T>(values: &[&'a Value], read: impl Fn(&'a Value) -> Option<T>) -> Option<Vec<T>> {
    values.iter().map(|value| read(value)).collect()
}

/// One number of several; whole numbers (counts) stay whole.
fn one_number(numbers: &[&Number], reduce: Reduce) -> Option<Number> {
    let values: Vec<f64> = numbers.iter().filter_map(|number| number.as_f64()).collect();
    let number = reduce(&values)?;
    if numbers.iter().all(|number| number.is_i64() || number.is_u64()) {
        return Some(Number::from(number.round() as i64));
    }
    Number::from_f64(number)
}

#[cfg(test)]
mod tests {
    use vllm_verdict::case::Kind;

    use super::*;
    use crate::result::case_commands::Commands;

    fn repetition(name: &str, kind: Kind, text: &str, gpu_type: &str) -> Folder {
        let commands = Commands { gpu_type: gpu_type.to_owned(), ..Commands::default() };
        let case = CaseFiles { kind, text: Some(text.to_owned()), commands, outcome: parse(kind, text).unwrap() };
        Folder { cases: [(name.to_owned(), case)].into_iter().collect() }
    }

    #[test]
    fn numbers_are_medians_arrays_are_joined_and_the_rest_is_of_the_last() {
        let texts = [
            r#"{"date": "1", "avg_latency": 3.0, "n": 4, "latencies": [3.0], "percentiles": {"50": 3.0, "99": 9.0}}"#,
            r#"{"date": "2", "avg_latency": 1.0, "n": 4, "latencies": [1.0], "percentiles": {"50": 1.0, "99": 7.0}}"#,
            r#"{"date": "3", "avg_latency": 2.0, "n": 5, "latencies": [2.0], "percentiles": {"50": 2.5, "99": 8.0}}"#,
        ];
        let repetitions: Vec<Folder> = texts
            .iter()
            .enumerate()
            .map(|(i, text)| repetition("latency_x", Kind::Latency, text, &i.to_string()))
            .collect();
        let merged = merge(&repetitions);
        let case = &merged.cases["latency_x"];
        insta::assert_snapshot!(case.text.as_deref().unwrap(), @r#"{"date":"3","avg_latency":2.0,"n":4,"latencies":[3.0,1.0,2.0],"percentiles":{"50":2.5,"99":8.0}}"#);
        assert_eq!(case.commands.gpu_type, "2");
        let Outcome::Measured(measurement) = &case.outcome else { panic!("{:?}", case.outcome) };
        assert_eq!(measurement.metrics["median_latency"], 2.5);
    }

    #[test]
    fn a_metric_that_the_client_distorted_is_the_median_of_the_other_repetitions() {
        let texts = [
            r#"{"completed": 2, "p99_ttft_ms": 90.0, "distorted": ["p99_ttft_ms"]}"#,
            r#"{"completed": 2, "p99_ttft_ms": 10.0, "distorted": []}"#,
            r#"{"completed": 2, "p99_ttft_ms": 12.0}"#,
        ];
        let repetitions: Vec<Folder> =
            texts.iter().map(|text| repetition("serving_x", Kind::Serving, text, "cpu")).collect();
        let text = merge(&repetitions).cases["serving_x"].text.clone().unwrap();
        assert_eq!(text, r#"{"completed":2,"p99_ttft_ms":11.0}"#);
        let all = merge(&repetitions[..1]).cases["serving_x"].text.clone().unwrap();
        assert!(all.contains("distorted"), "one repetition stays as it is");
    }

    #[test]
    fn a_value_that_one_repetition_lacks_is_the_median_of_the_others() {
        let texts = [
            r#"{"avg_latency": NaN, "percentiles": {"50": 3.0, "99": 9.0}}"#,
            r#"{"avg_latency": 1.0, "percentiles": {"50": 1.0, "99": Infinity}}"#,
            r#"{"avg_latency": 3.0, "percentiles": {"50": 2.0, "99": null}}"#,
        ];
        let folders: Vec<Folder> =
            texts.iter().map(|text| repetition("latency_x", Kind::Latency, text, "cpu")).collect();
        let text = merge(&folders).cases["latency_x"].text.clone().unwrap();
        assert_eq!(text, r#"{"avg_latency":2.0,"percentiles":{"50":2.0,"99":9.0}}"#);
    }

    #[test]
    fn what_the_server_and_vllms_rust_client_tell_is_kept_and_lists_by_place_are_not_joined() {
        // The keys of vLLM 0.33: `server_*` and `steady_state` are of its Rust client.
        let text = |rate: f64, rates: &str, p99: f64, queue: f64| {
            format!(
                r#"{{"completed": 2, "spec_decode_acceptance_rate": {rate:.1}, "spec_decode_num_drafts": 5, "spec_decode_per_position_acceptance_rates": {rates}, "server_queue_times": [{queue}, null], "server_ttfts": [0.5], "steady_state": {{"window": {{"duration_s": {rate:.1}, "warning": null}}, "percentiles_ttft_ms": [[50.0, 1.0], [99.0, {p99:.1}]]}}, "mean_ttft_ms": 1.0}}"#
            )
        };
        let texts =
            [text(50.0, "[0.8, 0.5]", 7.0, 0.1), text(52.0, "[0.6]", 9.0, 0.2), text(51.0, "[0.7, 0.25]", 8.0, 0.3)];
        let folders: Vec<Folder> =
            texts.iter().map(|text| repetition("serving_x", Kind::Serving, text, "cpu")).collect();
        let text = merge(&folders).cases["serving_x"].text.clone().unwrap();
        insta::assert_snapshot!(text, @r#"{"completed":2,"spec_decode_acceptance_rate":51.0,"spec_decode_num_drafts":5,"spec_decode_per_position_acceptance_rates":[0.7,0.375],"server_queue_times":[0.1,null,0.2,null,0.3,null],"server_ttfts":[0.5,0.5,0.5],"steady_state":{"window":{"duration_s":51.0,"warning":null},"percentiles_ttft_ms":[[50.0,1.0],[99.0,8.0]]},"mean_ttft_ms":1.0}"#);
    }

    #[test]
    fn one_repetition_is_not_changed() {
        let text = include_str!("../../tests/data/results/upstream-run/startup_tinyllama_tp1.json");
        let only = [repetition("startup_x", Kind::Startup, text, "cpu")];
        assert_eq!(merge(&only), only[0]);
    }

    #[test]
    fn a_failed_repetition_does_not_count_where_another_measured() {
        let good = r#"{"tokens_per_second": 10.0, "requests_per_second": 1.0}"#;
        let bad = r#"{"tokens_per_second": 0.0, "requests_per_second": 0.0}"#;
        let folders = [good, bad].map(|text| repetition("throughput_x", Kind::Throughput, text, "cpu"));
        assert_eq!(merge(&folders), folders[0]);
        assert_eq!(merge(&folders[1..]), folders[1]);
    }

    #[test]
    fn slices_are_one_repetition_with_their_mean_and_their_values() {
        let text = |value: f64| {
            format!(r#"{{"date": "{value}", "n": 4, "latencies": [{value:?}], "percentiles": {{"50": {value:?}}}}}"#)
        };
        let slices = [2.0, 8.0].map(|value| repetition("latency_x", Kind::Latency, &text(value), "cpu"));
        let case = of_slices(&slices).cases["latency_x"].clone();
        let merged: Value = serde_json::from_str(case.text.as_deref().unwrap()).unwrap();
        assert_eq!((merged["date"].as_str(), merged["n"].as_u64()), (Some("8"), Some(4)));
        assert_eq!(merged["latencies"].to_string(), "[2.0,8.0]");
        // The geometric mean of two slices.
        let Outcome::Measured(measurement) = &case.outcome else { panic!("{:?}", case.outcome) };
        for mean in [merged["percentiles"]["50"].as_f64().unwrap(), measurement.metrics["median_latency"]] {
            assert!((mean - 4.0).abs() < 1e-12, "{mean}");
        }
        assert_eq!(measurement.slices["median_latency"], [Some(2.0), Some(8.0)]);
    }

    #[test]
    fn repetitions_of_slices_are_merged_by_the_median_of_their_means() {
        let rate = |value: f64| {
            let text = format!(r#"{{"tokens_per_second": {value}, "requests_per_second": 1.0}}"#);
            repetition("throughput_x", Kind::Throughput, &text, "cpu")
        };
        let folders = [[2.0, 8.0], [5.0, 5.0], [1.0, 36.0]].map(|values| of_slices(&values.map(rate)));
        let Outcome::Measured(merged) = &merge(&folders).cases["throughput_x"].outcome else { panic!("not measured") };
        assert!((merged.metrics["tokens_per_second"] - 5.0).abs() < 1e-12, "of 4, 5 and 6: {merged:?}");
    }

    #[test]
    fn a_repetition_with_one_failed_slice_of_three_has_the_values_of_the_others() {
        let slice = |value: f64| {
            let text = format!(r#"{{"tokens_per_second": {value}, "requests_per_second": {value}}}"#);
            repetition("throughput_x", Kind::Throughput, &text, "cpu")
        };
        let of = |values: [f64; 3]| of_slices(&values.map(slice)).cases["throughput_x"].outcome.clone();
        let Outcome::Measured(measurement) = of([4.0, 0.0, 9.0]) else { panic!("two of three are enough") };
        assert_eq!(measurement.slices["tokens_per_second"], [Some(4.0), None, Some(9.0)]);
        assert!(matches!(of([4.0, 0.0, 0.0]), Outcome::Failed(_)));
    }
}
