//! `benchmark_results.json` and `benchmark_results.md` with upstream's columns, order and number format, so that existing
//! readers of these files keep working.

use std::fmt::Write;

use indexmap::IndexMap;
use vllm_verdict::case::Kind;
use vllm_verdict::number;
use vllm_verdict::repetition::Outcome;
use vllm_verdict::v1::Host;

use crate::escape;
use crate::result::case_files::{CaseFiles, Folder};
use crate::result::upstream_table::{Cell, TEST_NAME};
use crate::result::{Commands, Document, Serving, flags, parallel_sizes};

const GPU: &str = "GPU";

type TableRecord = IndexMap<&'static str, Option<Cell>>;

/// `benchmark_results.json`: latency rows, then throughput, then serving, each sorted by name. Missing cells are null
/// (upstream writes NaN, which is not JSON). Cases that failed have no row.
pub fn json(folder: &Folder) -> serde_json::Result<String> {
    let records: Vec<TableRecord> = TABLES.iter().flat_map(|(kind, _)| records(folder, *kind, count_devices)).collect();
    serde_json::to_string(&records)
}

/// `benchmark_results.md`: a table for each kind, the cases that were not measured, the machine if known, and the tables as
/// JSON.
pub fn markdown(folder: &Folder, host: Option<&Host>) -> serde_json::Result<String> {
    let mut sections = vec!["# Benchmark results".to_owned()];
    for (kind, heading) in TABLES {
        let records = records(folder, *kind, count_devices);
        if let Some(first) = records.first() {
            let header: Vec<&str> = first.keys().copied().collect();
            let rows: Vec<Vec<Option<Cell>>> =
                records.iter().map(|record| record.values().cloned().collect()).collect();
            sections.push(format!("## {heading}\n\n{}", table(&header, &rows)));
        }
    }
    let failures: Vec<String> = folder
        .cases
        .iter()
        .filter_map(|(name, case)| match &case.outcome {
            Outcome::Failed(reason) => {
                Some(format!("- {}: {}", escape::code(name), escape::markdown(escape::sentence(reason))))
            }
            Outcome::Measured(_) => None,
        })
        .collect();
    if !failures.is_empty() {
        sections.push(format!("## Not measured\n\n{}", failures.join("\n")));
    }
    if let Some(host) = host {
        sections.push(format!("## Platform Information\n\n{}", platform(host)));
    }
    sections.push(format!("## The tables as JSON\n\n```json\n{}\n```", columns_json(folder)?));
    Ok(sections.join("\n\n") + "\n")
}

/// The kinds that have a table, in upstream's order, with their headings.
const TABLES: &[(Kind, &str)] =
    &[(Kind::Latency, "Latency tests"), (Kind::Throughput, "Throughput tests"), (Kind::Serving, "Serving tests")];

/// The records of a kind, sorted by name, with the columns that at least one of them has.
fn records(folder: &Folder, kind: Kind, device: impl Fn(&str) -> String) -> Vec<TableRecord> {
    let mut cases: Vec<(&String, &CaseFiles)> = folder
        .cases
        .iter()
        .filter(|(_, case)| case.kind == kind && matches!(case.outcome, Outcome::Measured(_)))
        .collect();
    cases.sort_by_key(|(name, _)| *name);
    let mut records: Vec<TableRecord> =
        cases.into_iter().filter_map(|(name, case)| record(name, case, device(&case.commands.gpu_type))).collect();
    let empty: Vec<&str> = records
        .first()
        .map(|first| {
            first.keys().copied().filter(|column| records.iter().all(|record| record[*column].is_none())).collect()
        })
        .unwrap_or_default();
    for record in &mut records {
        record.retain(|column, _| !empty.contains(column));
    }
    records
}

fn record(name: &str, case: &CaseFiles, device: String) -> Option<TableRecord> {
    let name = (TEST_NAME, Some(Cell::Text(name.to_owned())));
    let gpu = (GPU, (!device.is_empty()).then_some(Cell::Text(device)));
    let record = match Document::read(case.kind, case.text.as_deref()?).ok()? {
        Document::Serving(result) => serving(name, gpu, &result, &case.commands),
        Document::Latency(result) => {
            let percentile = |percent| milliseconds(result.percentiles.get(percent).copied());
            TableRecord::from([
                name,
                gpu,
                ("Mean latency (ms)", milliseconds(result.avg_latency)),
                ("Median latency (ms)", percentile("50")),
                ("P99 latency (ms)", percentile("99")),
            ])
        }
        Document::Throughput(result) => TableRecord::from([
            name,
            gpu,
            ("# of req.", integer(result.num_requests)),
            ("Total # of tokens", integer(result.total_num_tokens)),
            ("Elapsed time (s)", float(result.elapsed_time)),
            ("Tput (req/s)", float(result.requests_per_second)),
            ("Tput (tok/s)", float(result.tokens_per_second)),
        ]),
        Document::Startup(_) => return None,
    };
    Some(record)
}

type Column = (&'static str, Option<Cell>);

fn serving(name: Column, gpu: Column, result: &Serving, commands: &Commands) -> TableRecord {
    let server_command = commands.server_command.as_deref().unwrap_or_default();
    let server = flags(server_command);
    let sizes = parallel_sizes(server_command);
    let client = flags(commands.client_command.as_deref().unwrap_or_default());
    let server = |flag: &str| server.get(flag).map(|word| Cell::of_word(word));
    let client = |flag: &str| client.get(flag).map(|word| Cell::of_word(word));
    TableRecord::from([
        name,
        ("Model", result.model_id.clone().map(Cell::Text)),
        ("Dataset Name", client("--dataset-name")),
        ("Input Len", client("--random-input-len")),
        ("Output Len", client("--random-output-len")),
        ("TP Size", integer(sizes.tensor)),
        ("PP Size", integer(sizes.pipeline)),
        ("dtype", server("--dtype")),
        gpu,
        ("# of req.", integer(result.completed)),
        ("qps", client("--request-rate")),
        ("# of max concurrency.", integer(result.max_concurrency)),
        ("Tput (req/s)", float(result.request_throughput)),
        ("Total Token Tput (tok/s)", float(result.total_token_throughput)),
        ("Output Tput (tok/s)", float(result.output_throughput)),
        ("Mean TTFT (ms)", float(result.mean_ttft_ms)),
        ("Median TTFT (ms)", float(result.median_ttft_ms)),
        ("P99 TTFT (ms)", float(result.p99_ttft_ms)),
        ("STD TTFT (ms)", float(result.std_ttft_ms)),
        ("Mean TPOT (ms)", float(result.mean_tpot_ms)),
        ("Median", float(result.median_tpot_ms)),
        ("P99", float(result.p99_tpot_ms)),
        ("STD TPOT (ms)", float(result.std_tpot_ms)),
        ("Mean ITL (ms)", float(result.mean_itl_ms)),
        ("Median ITL (ms)", float(result.median_itl_ms)),
        ("P99 ITL (ms)", float(result.p99_itl_ms)),
    ])
}

fn milliseconds(seconds: Option<f64>) -> Option<Cell> {
    float(seconds.map(|seconds| seconds * 1000.0))
}

fn float(value: Option<f64>) -> Option<Cell> {
    value.map(Cell::Float)
}

fn integer(value: Option<u64>) -> Option<Cell> {
    value.and_then(|value| i64::try_from(value).ok()).map(Cell::Integer)
}

/// `8xNVIDIA H100` for a type that is listed once for each device.
fn count_devices(gpu_type: &str) -> String {
    let mut lines = gpu_type.lines();
    match lines.next() {
        Some(device) => format!("{}x{device}", 1 + lines.count()),
        None => String::new(),
    }
}

/// The tables by kind, column and row number, with the device as the commands have it.
fn columns_json(folder: &Folder) -> serde_json::Result<String> {
    let columns = |kind: Kind| {
        let mut columns: IndexMap<&str, IndexMap<usize, Option<Cell>>> = IndexMap::new();
        for (row, record) in records(folder, kind, str::to_owned).into_iter().enumerate() {
            for (column, cell) in record {
                columns.entry(column).or_default().insert(row, cell);
            }
        }
        (kind.as_str(), columns)
    };
    serde_json::to_string(&TABLES.iter().map(|(kind, _)| columns(*kind)).collect::<IndexMap<_, _>>())
}

fn platform(host: &Host) -> String {
    let facts = [
        ("Total cores", host.cores.to_string()),
        ("Total Memory", format!("{:.2}GB", host.memory_gib)),
        ("Total NUMA nodes", host.numa_nodes.to_string()),
        ("CPU Brand", escape::plain(&host.cpu)),
    ];
    let rows: Vec<_> = facts
        .into_iter()
        .map(|(name, value)| vec![Some(Cell::Text(name.to_owned())), Some(Cell::Text(value))])
        .collect();
    table(&["", "Platform Info"], &rows)
}

/// A Markdown table in the layout of tabulate's `pipe` format: the numbers of a column are aligned at the decimal point.
fn table(header: &[&str], rows: &[Vec<Option<Cell>>]) -> String {
    let columns: Vec<Vec<String>> = header
        .iter()
        .enumerate()
        .map(|(index, name)| column(name, rows.iter().map(|row| row.get(index).and_then(Option::as_ref)).collect()))
        .collect();
    let mut text = String::new();
    for row in 0..rows.len() + 2 {
        // The rule under the header fills its cells; other cells have a space on either side.
        let cells: Vec<&str> = columns.iter().map(|column| column[row].as_str()).collect();
        let _ = writeln!(text, "|{}|", cells.join("|"));
    }
    text.trim_end().to_owned()
}

/// The lines of a column: header, rule, cells.
fn column(name: &str, cells: Vec<Option<&Cell>>) -> Vec<String> {
    let numeric = cells.iter().flatten().all(|cell| is_number(cell));
    let whole = cells.iter().flatten().all(|cell| matches!(cell, Cell::Integer(_)));
    let mut texts: Vec<String> = cells
        .iter()
        .map(|cell| match cell {
            None => String::new(),
            Some(cell) => match cell.number() {
                Some(value) if numeric && !whole => six_digits(value),
                _ => escape::plain(cell.to_string()).replace('|', "\\|"),
            },
        })
        .collect();
    if numeric && !whole {
        let decimals = |text: &str| text.find(['.', 'e']).map_or(0, |point| text.len() - point);
        let most = texts.iter().map(|text| decimals(text)).max().unwrap_or(0);
        for text in &mut texts {
            let fill = most - decimals(text);
            text.push_str(&" ".repeat(fill));
        }
    }
    let width = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0).max(name.chars().count() + 2);
    let place = |text: &str| if numeric { format!(" {text:>width$} ") } else { format!(" {text:<width$} ") };
    let rule = if numeric { format!("{}:", "-".repeat(width + 1)) } else { format!(":{}", "-".repeat(width + 1)) };
    [place(name), rule].into_iter().chain(texts.iter().map(|text| place(text))).collect()
}

/// tabulate treats texts that parse as numbers (`inf`) as numbers.
fn is_number(cell: &Cell) -> bool {
    match cell {
        Cell::Integer(_) | Cell::Float(_) => true,
        Cell::Boolean(_) => false,
        Cell::Text(text) => text.parse::<f64>().is_ok(),
    }
}

/// Six significant digits without trailing zeros, and an exponent below 1e-4 and from 1e6 on: `%g` of C and Python.
fn six_digits(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let scientific = format!("{value:.5e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        number::trimmed(&format!("{value:.*}", (5 - exponent).max(0) as usize)).to_owned()
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", number::trimmed(mantissa), exponent.abs())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::system::results_folder::read_folder;

    const GOLDEN_JSON: &str = include_str!("../../tests/data/results/upstream-run/golden/benchmark_results.json");
    const GOLDEN_MARKDOWN: &str = include_str!("../../tests/data/results/upstream-run/golden/benchmark_results.md");

    fn upstream_run() -> Folder {
        read_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/results/upstream-run")).unwrap()
    }

    fn tables(markdown: &str) -> Vec<&str> {
        markdown.lines().filter(|line| line.starts_with("| ") || line.starts_with("|:")).collect()
    }

    #[test]
    fn the_json_is_that_of_upstream_to_the_last_digit_and_in_its_order() {
        type Records = Vec<IndexMap<String, Option<Cell>>>;
        let written: Records = serde_json::from_str(&json(&upstream_run()).unwrap()).unwrap();
        let golden: Records = serde_json::from_str(GOLDEN_JSON).unwrap();
        assert_eq!(written, golden);
        let columns = |records: &Records| -> Vec<Vec<String>> {
            records.iter().map(|record| record.keys().cloned().collect()).collect()
        };
        assert_eq!(columns(&written), columns(&golden));
    }

    #[test]
    fn the_tables_of_results_are_those_of_upstream_to_the_last_space() {
        let written = markdown(&upstream_run(), None).unwrap();
        let golden: Vec<&str> = tables(GOLDEN_MARKDOWN).into_iter().filter(|line| line.len() > 60).collect();
        assert_eq!(golden.len(), 3 + 3 + 8);
        assert_eq!(tables(&written), golden);
    }

    #[test]
    fn the_embedded_json_has_the_rows_of_upstream_in_any_order() {
        type Tables = IndexMap<String, IndexMap<String, IndexMap<String, Cell>>>;
        // Upstream numbers rows in the order of the folder listing; vllm-perf sorts them.
        let rows = |markdown: &str| {
            let text = markdown.lines().find(|line| line.starts_with("{\"latency\"")).unwrap();
            let tables: Tables = serde_json::from_str(text).unwrap();
            let mut rows: Vec<Vec<(String, Cell)>> = Vec::new();
            for columns in tables.values() {
                for row in columns[TEST_NAME].keys() {
                    rows.push(columns.iter().map(|(column, cells)| (column.clone(), cells[row].clone())).collect());
                }
            }
            rows.sort_by_key(|row| row[0].1.to_string());
            rows
        };
        assert_eq!(rows(&markdown(&upstream_run(), None).unwrap()), rows(GOLDEN_MARKDOWN));
    }

    #[test]
    fn a_report_has_the_machine_and_the_cases_that_were_not_measured() {
        let mut folder = upstream_run();
        folder.cases.retain(|name, _| name.starts_with("throughput_"));
        let failed = CaseFiles {
            kind: Kind::Latency,
            text: None,
            commands: Commands::default(),
            outcome: Outcome::Failed("the benchmark left no result file".into()),
        };
        folder.cases.insert("latency_x".into(), failed);
        let host = Host {
            cpu: "AMD EPYC".into(),
            cores: 2,
            memory_gib: 23.544,
            numa_nodes: 1,
            kernel: "6.8".into(),
            governor: None,
        };
        insta::assert_snapshot!(markdown(&folder, Some(&host)).unwrap(), @r##"
        # Benchmark results

        ## Throughput tests

        | Test name                | GPU   |   # of req. |   Total # of tokens |   Elapsed time (s) |   Tput (req/s) |   Tput (tok/s) |
        |:-------------------------|:------|------------:|--------------------:|-------------------:|---------------:|---------------:|
        | throughput_tinyllama_tp1 | 1xcpu |         100 |                9615 |           0.701106 |        142.632 |        13714.1 |

        ## Not measured

        - `latency_x`: the benchmark left no result file

        ## Platform Information

        |                  | Platform Info   |
        |:-----------------|:----------------|
        | Total cores      | 2               |
        | Total Memory     | 23.54GB         |
        | Total NUMA nodes | 1               |
        | CPU Brand        | AMD EPYC        |

        ## The tables as JSON

        ```json
        {"latency":{},"throughput":{"Test name":{"0":"throughput_tinyllama_tp1"},"GPU":{"0":"cpu"},"# of req.":{"0":100},"Total # of tokens":{"0":9615},"Elapsed time (s)":{"0":0.7011055809998652},"Tput (req/s)":{"0":142.631869878125},"Tput (tok/s)":{"0":13714.05428878172}},"serving":{}}
        ```
        "##);
    }

    #[test]
    fn a_column_that_only_some_rows_have_is_null_in_the_others_and_one_that_none_has_is_left_out() {
        let mut folder = upstream_run();
        folder.cases.retain(|name, _| name.starts_with("serving_") && name.ends_with("_8"));
        folder.cases[0].commands.server_command = Some("vllm serve m --pipeline-parallel-size 2".into());
        folder.cases[0].commands.gpu_type = "NVIDIA H100\nNVIDIA H100".into();
        let records: Vec<IndexMap<String, Option<Cell>>> = serde_json::from_str(&json(&folder).unwrap()).unwrap();
        assert_eq!((&records[0]["PP Size"], &records[0]["TP Size"]), (&Some(Cell::Integer(2)), &None));
        assert_eq!((&records[1]["PP Size"], &records[1]["TP Size"]), (&None, &Some(Cell::Integer(1))));
        assert_eq!(records[0][GPU], Some(Cell::Text("2xNVIDIA H100".into())));
        folder.cases[0].commands.server_command = None;
        assert!(!json(&folder).unwrap().contains("PP Size"));
    }

    #[test]
    fn words_of_commands_are_typed_as_upstream_types_them() {
        let typed = ["64", "0.5", ".5", "inf", "1e3", "bfloat16", "true", "1.2.3", "-1"].map(Cell::of_word);
        insta::assert_compact_debug_snapshot!(typed, @r#"[Integer(64), Float(0.5), Float(0.5), Text("inf"), Text("1e3"), Text("bfloat16"), Boolean(true), Text("1.2.3"), Integer(-1)]"#);
    }

    #[test]
    fn numbers_have_six_significant_digits_as_c_prints_them() {
        // [f"{x:g}" for x in (...)]
        let printed = [
            13714.05428878172,
            0.7011055809998652,
            418.00231102991347,
            1e6,
            999999.5,
            123456789.0,
            0.0001,
            0.00001234567,
            100000.0,
            0.0,
            -2.50,
        ]
        .map(six_digits);
        assert_eq!(
            printed,
            [
                "13714.1",
                "0.701106",
                "418.002",
                "1e+06",
                "1e+06",
                "1.23457e+08",
                "0.0001",
                "1.23457e-05",
                "100000",
                "0",
                "-2.5"
            ]
        );
    }
}
