//! False alarms, power and length of runs of the verdicts (`vllm_verdict::compare`), on simulated reports with known changes.
//!
//! `cargo bench --bench yardstick -- [alarms|power|sequential] [FACTOR]` prints one table or all of them, with FACTOR times as
//! many reports. The seeds are fixed: the same number of reports gives the same tables.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]

mod alarms;
mod power;
mod report;
mod sequential;
mod suite;
mod workers;
mod world;

use std::process::ExitCode;
use std::time::Instant;

/// A table: its name, and what prints it with a factor.
type Table = (&'static str, fn(f64));

const TABLES: [Table; 3] = [("alarms", alarms::print), ("power", power::print), ("sequential", sequential::print)];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let (mut chosen, mut factor) = (Vec::new(), 1.0);
    for word in &words {
        match (TABLES.iter().find(|(name, _)| name == word), word.parse::<f64>()) {
            (Some(table), _) => chosen.push(table),
            (None, Ok(number)) if number > 0.0 => factor = number,
            _ => {
                println!("there is no `{word}`: expected alarms, power, sequential or a factor");
                return ExitCode::FAILURE;
            }
        }
    }
    if chosen.is_empty() {
        chosen.extend(&TABLES);
    }
    for (name, print) in chosen {
        let begun = Instant::now();
        print(factor);
        println!("{name}: {:.0} seconds\n", begun.elapsed().as_secs_f64());
    }
    ExitCode::SUCCESS
}

/// The number of reports, `number` times a factor.
fn scaled(number: usize, factor: f64) -> usize {
    ((number as f64 * factor).round() as usize).max(1)
}
