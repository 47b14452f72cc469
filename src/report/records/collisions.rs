//! Cases that the dashboard cannot tell apart: one of them is published, and which one is said. Pure.

use crate::plan::config::record_rules::Choice;

use super::Point;

/// Cases with the same key in the dashboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collision {
    /// The one that is published.
    pub kept: String,
    /// Those that are not.
    pub dropped: Vec<String>,
}

/// The points to publish, in their order, and what was left out for them. Of equal keys a compiled model wins over an
/// eager one, then concurrency decides, then the name that sorts first.
pub(super) fn choose(points: Vec<Point>, choice: Choice) -> (Vec<Point>, Vec<Collision>) {
    let mut groups: Vec<Vec<Point>> = Vec::new();
    for point in points {
        match groups.iter_mut().find(|group| same_key(&group[0], &point)) {
            Some(group) => group.push(point),
            None => groups.push(vec![point]),
        }
    }
    let mut collisions = Vec::new();
    let mut kept = Vec::new();
    for mut group in groups {
        group.sort_by(|a, b| {
            let concurrency = |point: &Point| point.info.args.max_concurrency;
            let by_concurrency = match choice {
                Choice::Highest => concurrency(b).cmp(&concurrency(a)),
                Choice::Lowest => concurrency(a).cmp(&concurrency(b)),
            };
            (b.info.use_compile.cmp(&a.info.use_compile)).then(by_concurrency).then_with(|| a.case.cmp(&b.case))
        });
        let mut group = group.into_iter();
        let Some(first) = group.next() else { continue };
        let dropped: Vec<String> = group.map(|point| point.case).collect();
        if !dropped.is_empty() {
            collisions.push(Collision { kept: first.case.clone(), dropped });
        }
        kept.push(first);
    }
    (kept, collisions)
}

/// Whether the dashboard draws both into one point. Cases of different kinds have no metric in common.
fn same_key(a: &Point, b: &Point) -> bool {
    let name = |point: &Point| point.metrics.first().map(|(name, _)| name.clone());
    a.model == b.model && a.info.args.key() == b.info.args.key() && name(a) == name(b)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::plan::config::record_rules::Rules;
    use crate::report::records::record_identity::tests::identity;
    use crate::report::records::records;
    use crate::system::results_folder::read_folder;

    #[test]
    fn of_the_concurrencies_of_a_test_one_is_published_and_the_others_are_named() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/results/upstream-run");
        let cases = read_folder(Path::new(folder)).unwrap().cases;
        for (choice, kept) in [(Choice::Highest, 8), (Choice::Lowest, 1)] {
            let records = records(&identity(), &cases, Rules { collision: choice, ..Rules::default() }).unwrap();
            assert_eq!(records.refused, []);
            // Two serving tests, latency, startup and throughput.
            assert_eq!(records.records.len(), 2 * 12 + 1 + 4 + 2);
            let collisions: Vec<(&str, usize)> =
                records.collisions.iter().map(|it| (it.kept.as_str(), it.dropped.len())).collect();
            let name = |lengths: &str| format!("serving_tinyllama_tp1_random_{lengths}_qps_inf_concurrency_{kept}");
            assert_eq!(collisions, [(name("256_16").as_str(), 2), (name("64_32").as_str(), 2)]);
        }
    }

    #[test]
    fn a_compiled_model_wins_over_an_eager_one() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/results/upstream-run");
        let mut cases = read_folder(Path::new(folder)).unwrap().cases;
        cases.retain(|name, _| name == "latency_tinyllama_tp1");
        let files = cases["latency_tinyllama_tp1"].clone();
        cases.insert("latency_a_eager".into(), files);
        let records = records(&identity(), &cases, Rules::default()).unwrap();
        let collision = Collision { kept: "latency_tinyllama_tp1".into(), dropped: vec!["latency_a_eager".into()] };
        assert_eq!(records.collisions, [collision]);
    }
}
