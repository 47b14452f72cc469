//! The reference implementation's answers on twenty reports, among them two of real vLLM.

use serde::Deserialize;

use super::reference::{Differences, Expected, Given};

#[derive(Deserialize)]
struct Report {
    name: String,
    rows: Vec<Given>,
    expected: Expected,
}

#[test]
fn the_rule_is_that_of_the_reference() {
    let reports: Vec<Report> =
        serde_json::from_str(include_str!("../../../../tests/data/verdict/golden.json")).unwrap();
    assert_eq!(reports.len(), 20);
    let mut differences = Differences::default();
    for report in &reports {
        differences.add(&report.name, &report.rows, &report.expected);
    }
    assert!(differences.found.is_empty(), "{}", differences.found.join("\n"));
}
