//! A comparison with realistic values of a CPU runner, for the tests of the renderings.

use vllm_verdict::case::{Kind, MeasuredBy};
use vllm_verdict::criteria::VerdictConfig;
use vllm_verdict::metric::{self, Direction, Family, Metric};
use vllm_verdict::side::Side;
use vllm_verdict::strategy::Strategy;
use vllm_verdict::v1::{
    CaseFacts, Comparison, Conduct, Counts, Device, DeviceName, Failed, Host, Look, Method, OverallRow, Problem,
    RepetitionValue, Row, SCHEMA, SideFacts, Skipped, Subject, Verdict,
};

const BASE: &str = "7f42dc25b1f0c1a5e6d2a9b3c4d5e6f708192a3b";
const HEAD: &str = "1da94e6c0d2b7a8f9e1c3b5a7d9f0e2c4a6b8d0f";
/// The noise of the repetitions, as factors.
const SCATTER: [[f64; 5]; 2] = [[1.004, 0.991, 1.0, 1.009, 0.996], [0.998, 1.006, 1.0, 0.993, 1.011]];

/// Two concurrency sweeps, one of which regressed at the highest concurrency; a latency, a start-up and a throughput test;
/// one case whose server did not start; one failed repetition.
pub fn comparison() -> Comparison {
    let (mut cases, mut rows) = (Vec::new(), Vec::new());
    for (of_cases, of_rows) in [regressed_sweep(), unchanged_sweep(), lost_case(), other_kinds()] {
        cases.extend(of_cases);
        rows.extend(of_rows);
    }
    let skipped = Skipped::new("serving_llama70B_tp4_random_128_128", "needs 4 NUMA nodes, this host has 2");
    Comparison {
        schema: SCHEMA.into(),
        verdict: Verdict::Regressed,
        counts: count(&rows),
        overall: Vec::new(),
        subject: subject(),
        method: Method {
            strategy: Strategy::Paired,
            pairs: 5,
            planned_pairs: 5,
            seed: 20_261_124,
            fdr: 0.02,
            looks: vec![Look { pairs: 5, fdr: 0.02 }],
            blocked: false,
            ratio: Some(0.93),
            rho: 0.11,
        },
        cases,
        rows,
        skipped: vec![skipped],
        conduct: Conduct::default(),
    }
}

type CasesAndRows = (Vec<CaseFacts>, Vec<Row>);

fn regressed_sweep() -> CasesAndRows {
    let (mut cases, mut rows) = (Vec::new(), Vec::new());
    for (concurrency, throughput, ttft) in
        [(12, 128.4, 210.0), (16, 167.2, 262.0), (32, 301.3, 488.0), (64, 412.3, 701.0)]
    {
        let case = serving("serving_llama8B_tp1_random_128_2048", concurrency);
        let moved = |metric: &str| match (concurrency, metric) {
            (64, "output_throughput") => Some((-0.098, Verdict::Regressed)),
            (64, "p99_ttft_ms") => Some((0.155, Verdict::Regressed)),
            (32, "p99_ttft_ms") => Some((0.061, Verdict::Inconclusive)),
            _ => None,
        };
        rows.extend(
            metric::of(Kind::Serving)
                .map(|metric| row(&case, metric, size(metric, throughput, ttft), moved(metric.id))),
        );
        cases.push(case);
    }
    (cases, rows)
}

fn unchanged_sweep() -> CasesAndRows {
    let (mut cases, mut rows) = (Vec::new(), Vec::new());
    for (concurrency, throughput, ttft) in [(12, 402.0, 58.1), (64, 1290.0, 173.0)] {
        let mut case = serving("serving_gemma3-4b_tp1_random_128_128", concurrency);
        if concurrency == 64 {
            case.problems = vec![problem(3, "2 of 200 requests failed: connection reset by peer")];
        }
        rows.extend(metric::of(Kind::Serving).map(|metric| row(&case, metric, size(metric, throughput, ttft), None)));
        if concurrency == 64 {
            for row in rows.iter_mut().filter(|row| row.case == case.name) {
                (row.head[2], row.failed.head) = (None, 1);
            }
        }
        cases.push(case);
    }
    (cases, rows)
}

fn lost_case() -> CasesAndRows {
    let mut lost = serving("serving_llama8B_tp2_sharegpt", 200);
    lost.problems =
        (1..=5).map(|repetition| problem(repetition, "server did not start: exit status 1 after 41 s")).collect();
    let rows = metric::of(Kind::Serving).map(|metric| unmeasured(&lost, metric, size(metric, 905.0, 1210.0))).collect();
    (vec![lost], rows)
}

fn other_kinds() -> CasesAndRows {
    let (mut cases, mut rows) = (Vec::new(), Vec::new());
    for (kind, test, values) in [
        (Kind::Latency, "latency_llama8B_tp1", vec![8.412, 8.498, 8.91]),
        (Kind::Startup, "startup_llama8B_tp1", vec![61.2, 34.7, 12.1, 2.05]),
        (Kind::Throughput, "throughput_llama8B_tp1", vec![2180.4, 5.31]),
    ] {
        let case = facts(kind, test, test, None, None);
        let moved = |id: &str| (id == "tokens_per_second").then_some((0.06, Verdict::Improved));
        rows.extend(metric::of(kind).zip(values).map(|(metric, value)| row(&case, metric, value, moved(metric.id))));
        cases.push(case);
    }
    (cases, rows)
}

/// Primary rows by verdict.
pub fn count(rows: &[Row]) -> Counts {
    let of = |verdict| rows.iter().filter(|row| row.primary && row.verdict == verdict).count();
    Counts {
        failing: of(Verdict::Failing),
        regressed: of(Verdict::Regressed),
        improved: of(Verdict::Improved),
        unchanged: of(Verdict::Unchanged),
        inconclusive: of(Verdict::Inconclusive),
        screened: 0,
        not_measured: of(Verdict::NotMeasured),
    }
}

/// This number of tests with one case of five primary rows each, all regressed, the last one most.
pub fn many(tests: usize) -> Comparison {
    let mut comparison = comparison();
    comparison.cases = (0..tests).map(|at| serving(&format!("serving_llama8B_tp1_test{at}"), 64)).collect();
    comparison.rows.clear();
    for (at, case) in comparison.cases.iter().enumerate() {
        for metric in metric::of(Kind::Serving).filter(|metric| metric.primary) {
            let worse = if metric.direction == Direction::Higher { -1.0 } else { 1.0 };
            let change = worse * (0.1 + at as f64 / tests as f64 / 2.0);
            comparison.rows.push(row(case, metric, 100.0, Some((change, Verdict::Regressed))));
        }
    }
    comparison.counts = count(&comparison.rows);
    comparison
}

/// Head of the comparison without its base.
pub fn alone() -> Comparison {
    let mut comparison = comparison();
    comparison.subject.base = None;
    comparison.subject.reproduce = Some("vllm-perf run --device cpu".into());
    comparison.method.strategy = Strategy::Single;
    comparison.cases.iter_mut().for_each(|case| case.problems.retain(|problem| problem.side == Side::Head));
    for row in &mut comparison.rows {
        row.base.clear();
        (row.estimate, row.low, row.high, row.p, row.q) = Default::default();
        let (verdict, why) = match row.lacks(Side::Head) {
            true => (Verdict::NotMeasured, "head has no value: server did not start"),
            false => (Verdict::Inconclusive, "there is no base to compare with"),
        };
        (row.verdict, row.why) = (verdict, why.into());
    }
    comparison.counts = count(&comparison.rows);
    comparison.verdict = Verdict::NotMeasured;
    comparison
}

fn serving(test: &str, concurrency: u64) -> CaseFacts {
    let name = format!("{test}_qps_inf_concurrency_{concurrency}");
    facts(Kind::Serving, test, &name, Some("inf"), Some(concurrency))
}

fn facts(kind: Kind, test: &str, name: &str, rate: Option<&str>, concurrency: Option<u64>) -> CaseFacts {
    CaseFacts {
        name: name.into(),
        kind,
        test: test.into(),
        model: "meta-llama/Llama-3.1-8B-Instruct".into(),
        request_rate: rate.map(Into::into),
        max_concurrency: concurrency,
        measured_by: if kind == Kind::Serving { MeasuredBy::Native } else { MeasuredBy::Vllm },
        problems: Vec::new(),
        warnings: Vec::new(),
    }
}

fn problem(repetition: u32, reason: &str) -> Problem {
    Problem { side: Side::Head, repetition, reason: reason.into() }
}

/// A value of plausible size for a serving metric.
fn size(metric: &Metric, throughput: f64, ttft: f64) -> f64 {
    match metric.id {
        "output_throughput" => throughput,
        "total_token_throughput" => throughput * 1.06,
        "request_throughput" => throughput / 128.0,
        "median_ttft_ms" => ttft,
        "mean_ttft_ms" => ttft * 1.08,
        "p99_ttft_ms" => ttft * 1.72,
        id if id.starts_with("p99") => 151.0,
        _ => 88.3,
    }
}

fn row(case: &CaseFacts, metric: &Metric, value: f64, moved: Option<(f64, Verdict)>) -> Row {
    let (noise, min_effect) = match metric.family {
        Family::Throughput => (0.014, "2 %"),
        Family::Median => (0.021, "3 %"),
        Family::P99 => (0.037, "8 %"),
    };
    let (change, verdict) = moved.unwrap_or((0.004, Verdict::Unchanged));
    let why = match verdict {
        Verdict::Regressed | Verdict::Improved => {
            format!("worse, q = 0.0004, at least the minimum effect of {min_effect}").into()
        }
        Verdict::Inconclusive => "q = 0.11: about 9 pairs are needed to detect a change of 8 %".into(),
        _ => "the 90 % interval is within ±5 %".into(),
    };
    let (p, q) = match verdict {
        Verdict::Regressed | Verdict::Improved => (0.00002, 0.0004),
        Verdict::Inconclusive => (0.021, 0.11),
        _ => (0.61, 0.88),
    };
    Row {
        base: scattered(0, value),
        head: scattered(1, value * (1.0 + change)),
        estimate: Some(change),
        deviation: Some(noise / 1.5),
        low: Some(change - noise),
        high: Some(change + noise),
        p: Some(p),
        q: metric.primary.then_some(q),
        detectable: Some(noise * 1.3),
        verdict,
        why,
        ..empty(case, metric)
    }
}

fn unmeasured(case: &CaseFacts, metric: &Metric, value: f64) -> Row {
    let failed = Failed { base: 0, head: 5 };
    let (verdict, why) = (Verdict::Failing, "head failed in 5 of 5 repetitions, base in none: out of memory".into());
    Row { base: scattered(0, value), head: vec![None; 5], failed, verdict, why, ..empty(case, metric) }
}

fn scattered(side: usize, value: f64) -> Vec<Option<RepetitionValue>> {
    SCATTER[side].map(|factor| Some(RepetitionValue::One(value * factor))).to_vec()
}

/// An overall row of twelve serving cases.
pub fn overall(id: &str, estimate: f64, verdict: Verdict) -> OverallRow {
    let metric = metric::of(Kind::Serving).find(|metric| metric.id == id);
    let metric = metric.unwrap_or(&metric::ALL[0]);
    OverallRow {
        kind: Kind::Serving,
        metric: metric.id.into(),
        label: metric.label.into(),
        direction: metric.direction,
        min_effect: VerdictConfig::default().min_effect(metric),
        cases: 12,
        estimate,
        deviation: 0.02,
        freedom: 10.0,
        low: estimate - 0.04,
        high: estimate + 0.04,
        p: 0.0001,
        q: 0.0004,
        detectable: 0.03,
        needed: None,
        verdict,
        why: "q = 0.0004".into(),
    }
}

fn empty(case: &CaseFacts, metric: &Metric) -> Row {
    let min_effect = VerdictConfig::default().min_effect(metric);
    Row { min_effect, why: "head has no value".into(), ..Row::empty(&case.name, metric) }
}

fn subject() -> Subject {
    let side = |commit: &str, repository: &str, version: &str, digit: &str| SideFacts {
        target: format!("image:public.ecr.aws/q9t5s3a7/{repository}:{commit}-cpu").into(),
        commit: Some(commit.into()),
        image_digest: Some(format!("sha256:{}", digit.repeat(64)).into()),
        vllm_version: Some(version.into()),
        server_args: Vec::new(),
        dated: None,
    };
    let base = side(BASE, "vllm-ci-postmerge-repo", "0.32.1.dev41+cpu", "4");
    let head = side(HEAD, "vllm-ci-test-repo", "0.32.1.dev42+cpu", "b");
    let reproduce = format!(
        "vllm-perf run --base {} --head {} --device cpu --only 'llama8B_tp1' --pairs 5",
        base.target.raw(),
        head.target.raw()
    );
    Subject {
        version: "1.0.0".into(),
        event: None,
        device: Some(Device {
            name: DeviceName::Cpu,
            device_type: "AMD_EPYC_9654_96-Core_96c".into(),
            count: 2,
            image_suffix: "-cpu".into(),
        }),
        base: Some(base),
        head: Some(head),
        host: Some(Host {
            cpu: "AMD EPYC 9654 96-Core Processor".into(),
            cores: 192,
            memory_gib: 755.4,
            numa_nodes: 2,
            kernel: "6.8.0-45-generic".into(),
            governor: Some("performance".into()),
        }),
        started: Some("2026-11-24T10:12:33Z".into()),
        seconds: Some(3141.0),
        reproduce: Some(reproduce.into()),
    }
}
