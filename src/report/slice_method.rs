//! How many slices the repetitions have, and why, in sentences.

use indexmap::IndexMap;
use vllm_verdict::number;
use vllm_verdict::v1::{Comparison, RepetitionValue, ServerSlices};

use crate::duration;

/// The largest number of slices of a repetition.
pub fn most(comparison: &Comparison) -> usize {
    let values = comparison.rows.iter().flat_map(|row| row.base.iter().chain(&row.head)).flatten();
    values.map(RepetitionValue::slices).max().unwrap_or(1)
}

/// The slices of a repetition and the costs that they were chosen by; of results that vllm-perf did not run, their number alone.
pub fn sentences(comparison: &Comparison) -> Vec<String> {
    let mut groups: IndexMap<(u32, bool), Vec<&ServerSlices>> = IndexMap::new();
    for server in &comparison.conduct.slices {
        groups.entry((server.slices, server.restart_seconds.is_some())).or_default().push(server);
    }
    let of_server = |((slices, is_by_cost), servers): (&(u32, bool), &Vec<&ServerSlices>)| {
        let cases = number::plural(servers.iter().map(|server| server.cases).sum(), "case");
        let slices = number::plural(*slices as usize, "slice");
        let why = if *is_by_cost { costs(servers) } else { "as the plan sets".to_owned() };
        format!("{slices} of {cases} in each repetition, {why}.")
    };
    let mut sentences: Vec<String> = groups.iter().map(of_server).collect();
    let most = most(comparison);
    if most > 1 {
        let of = if sentences.is_empty() {
            format!("A repetition has up to {most} slices: it")
        } else {
            "A repetition".to_owned()
        };
        sentences.push(format!("{of} counts as one value, the Hodges-Lehmann mean of the logarithms of its slices."));
    }
    sentences
}

/// What the servers and the slices of their cases cost.
fn costs(servers: &[&ServerSlices]) -> String {
    let range = |of: fn(&ServerSlices) -> Option<f64>| {
        let all = || servers.iter().filter_map(|server| of(server));
        let [least, most] = [all().reduce(f64::min), all().reduce(f64::max)]
            .map(|seconds| duration::text_of_seconds(seconds.unwrap_or_default()));
        if least == most { least } else { format!("{least} to {most}") }
    };
    let whose = if servers.len() == 1 { "server" } else { "servers" };
    format!(
        "whose {whose} took {} to start and one slice of them {}",
        range(|server| server.restart_seconds),
        range(|server| server.slice_seconds),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::example;

    fn server(cases: usize, slices: u32, costs: Option<(f64, f64)>) -> ServerSlices {
        let (restart_seconds, slice_seconds) = costs.unzip();
        ServerSlices { cases, slices, restart_seconds, slice_seconds }
    }

    #[test]
    fn the_method_says_how_many_slices_there_are_and_what_they_were_chosen_by() {
        let mut comparison = example::comparison();
        assert_eq!(sentences(&comparison), [""; 0]);
        comparison.conduct.slices = vec![
            server(12, 2, Some((63.0, 21.0))),
            server(1, 1, Some((40.0, 30.0))),
            server(8, 2, Some((90.0, 21.0))),
            server(2, 3, None),
        ];
        comparison.rows[0].head[0] = Some(RepetitionValue::Slices(vec![Some(1.0), Some(1.1), None]));
        insta::assert_snapshot!(sentences(&comparison).join("\n"), @"
        2 slices of 20 cases in each repetition, whose servers took 1 min 3 s to 1 min 30 s to start and one slice of them 21 s.
        1 slice of 1 case in each repetition, whose server took 40 s to start and one slice of them 30 s.
        3 slices of 2 cases in each repetition, as the plan sets.
        A repetition counts as one value, the Hodges-Lehmann mean of the logarithms of its slices.
        ");
        comparison.conduct.slices.clear();
        insta::assert_snapshot!(sentences(&comparison).join("\n"), @"A repetition has up to 3 slices: it counts as one value, the Hodges-Lehmann mean of the logarithms of its slices.");
    }
}
