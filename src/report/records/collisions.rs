//! Cases with the same key in the dashboard: only one of them is published.

use vllm_verdict::case::Kind;
use vllm_verdict::v1::CaseFacts;

use super::record_point::Point;
use crate::plan::config::record_rules::Choice;

/// Cases with the same key in the dashboard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collision {
    /// The published case.
    pub kept: String,
    /// The cases that are not published.
    pub dropped: Vec<String>,
}

/// The points to publish, in their order, and the collisions among them. Of equal keys, the plain name of a test, which its
/// variants extend, is preferred, then `choice` selects by concurrency, then the first name in alphabetical order.
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
            let test = |point: &Point| test_length(&point.case);
            test(a).cmp(&test(b)).then(by_concurrency).then_with(|| a.case.cmp(&b.case))
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

/// The length of the name of a case without rate and concurrency.
fn test_length(case: &str) -> usize {
    CaseFacts::named(case, Kind::Serving).test.raw().len()
}

/// Whether the dashboard shows both as the same point. Cases of different kinds have no metric in common.
fn same_key(a: &Point, b: &Point) -> bool {
    let name = |point: &Point| point.metrics.first().map(|(name, _)| name.clone());
    a.model == b.model && a.info.key() == b.info.key() && name(a) == name(b)
}
