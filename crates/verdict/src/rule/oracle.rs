//! The rule against the reference implementation, which runs in Python, on random reports.

use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use super::random_reports::{Report, report};
use super::reference::{Differences, Expected};

/// Reports, with the seeds from 0.
const REPORTS: u64 = 2000;

/// Answers each report, a line of standard input, with a line.
const ANSWER: &str = "
import importlib.util, json, sys, warnings
warnings.simplefilter('ignore')
spec = importlib.util.spec_from_file_location('rule', sys.argv[1])
rule = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rule)
for line in sys.stdin:
    report = json.loads(line)
    print(json.dumps(rule.judge(report['rows'], report['fdr'])))
";

#[test]
#[ignore = "needs the reference implementation and a Python with NumPy and SciPy; takes minutes"]
fn the_rule_is_that_of_the_reference_on_random_reports() {
    #[expect(clippy::disallowed_methods, reason = "where the reference is, is no part of the crate")]
    let [rule, python] = ["VLLM_PERF_ORACLE", "VLLM_PERF_ORACLE_PYTHON"].map(std::env::var);
    let (Ok(rule), Ok(python)) = (rule, python) else {
        println!("not run: VLLM_PERF_ORACLE=/path/to/rule.py and VLLM_PERF_ORACLE_PYTHON=/path/to/python are not set");
        return;
    };
    let reports: Vec<Report> = (0..REPORTS).map(report).collect();
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let answers: Vec<Expected> = thread::scope(|scope| {
        let (python, rule) = (&python, &rule);
        let parts = reports.chunks(reports.len().div_ceil(workers));
        let workers: Vec<_> = parts.map(|part| scope.spawn(move || answers(python, rule, part))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert_eq!(answers.len(), reports.len());
    let mut differences = Differences::default();
    for (seed, (report, expected)) in reports.iter().zip(&answers).enumerate() {
        differences.add(&format!("report {seed}"), &report.rows, expected);
    }
    let Differences { found, largest, compared, verdicts, blocked } = differences;
    let rows: usize = reports.iter().map(|report| report.rows.len()).sum();
    println!("{REPORTS} reports, {rows} rows, {compared} numbers and verdicts: {} differ", found.len());
    println!("{blocked} reports are blocked; rows and overall rows: {verdicts:?}");
    println!("largest accepted difference: {:.1e} ({})", largest.0, largest.1);
    assert!(found.is_empty(), "{}", found[..found.len().min(100)].join("\n"));
}

/// The answers of the reference to these reports.
fn answers(python: &str, rule: &str, reports: &[Report]) -> Vec<Expected> {
    #[expect(clippy::disallowed_methods, reason = "the reference is a program in Python")]
    let mut command = Command::new(python);
    let mut child =
        command.args(["-B", "-c", ANSWER, rule]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let output = thread::scope(|scope| {
        scope.spawn(move || {
            for report in reports {
                writeln!(input, "{}", serde_json::to_string(report).unwrap()).unwrap();
            }
        });
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "the reference failed: {}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
