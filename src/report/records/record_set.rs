//! The records of one source: what is published, and what is not.

use super::collisions::{self, Collision};
use super::record_identity::Identity;
use super::record_point::Point;
use super::record_v3::Record;
use crate::plan::config::record_rules::Choice;

/// The records of one results folder or one import.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Records {
    /// Published records, in the order of the cases.
    pub records: Vec<Record>,
    /// Cases that are not published, with the reason.
    pub refused: Vec<(String, String)>,
    /// Cases that have the same key in the dashboard.
    pub collisions: Vec<Collision>,
}

impl Records {
    pub(super) fn add(&mut self, points: Vec<Point>, identity: &Identity, choice: Choice) {
        let (kept, collisions) = collisions::choose(points, choice);
        self.collisions.extend(collisions);
        self.records.extend(kept.into_iter().flat_map(|point| point.into_records(identity)));
    }
}
