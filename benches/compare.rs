//! Time to compare reports of 500 and of 10,000 primary rows with five pairs: `cargo bench --bench compare`.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]

use std::time::{Duration, Instant};

use vllm_verdict::case::Kind;
use vllm_verdict::criteria::VerdictConfig;
use vllm_verdict::noise::Noise;
use vllm_verdict::repetition::{Measurement, Outcome, Repetition};
use vllm_verdict::v1::{CaseFacts, Subject};
use vllm_verdict::{Input, metric};

const CASES: [usize; 2] = [100, 2000];
const PAIRS: usize = 5;
const RUNS: usize = 20;

fn main() {
    for cases in CASES {
        let mut times: Vec<Duration> = (0..RUNS).map(|_| compared(cases)).collect();
        times.sort();
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        println!(
            "compare: {cases} cases, {} primary rows of {PAIRS} pairs: median {:.1} ms, fastest {:.1} ms, slowest {:.1} ms of {RUNS} runs",
            cases * 5,
            milliseconds(times[RUNS / 2]),
            milliseconds(times[0]),
            milliseconds(times[RUNS - 1]),
        );
    }
}

fn compared(number_of_cases: usize) -> Duration {
    let cases: Vec<CaseFacts> = (0..number_of_cases)
        .map(|number| CaseFacts::named(&format!("serving_test{number}_qps_inf_concurrency_8"), Kind::Serving))
        .collect();
    let side = |from: usize| (from..from + PAIRS).map(|at| repetition(&cases, at)).collect::<Vec<Repetition>>();
    let input = Input {
        subject: Subject::default(),
        cases: cases.clone(),
        base: side(0),
        head: side(PAIRS),
        skipped: Vec::new(),
        planned_pairs: PAIRS as u32,
        seed: 1,
        verdict: VerdictConfig::default(),
        noise: Noise::default(),
        looks: Vec::new(),
    };
    let begun = Instant::now();
    let comparison = vllm_verdict::compare(input);
    let time = begun.elapsed();
    assert_eq!(comparison.rows.iter().filter(|row| row.primary && row.p.is_some()).count(), number_of_cases * 5);
    time
}

/// Every metric of every case, with noise of a few percent.
fn repetition(cases: &[CaseFacts], at: usize) -> Repetition {
    let value = |row: usize| 100.0 + ((row * 31 + at * 17) % 23) as f64;
    let of_case = |(number, case): (usize, &CaseFacts)| {
        let metrics = metric::of(Kind::Serving).enumerate();
        let metrics = metrics.map(|(metric, facts)| (facts.id.to_owned(), value(number + metric))).collect();
        (case.name.raw().to_owned(), Outcome::Measured(Measurement::new(Kind::Serving, metrics)))
    };
    cases.iter().enumerate().map(of_case).collect()
}
