//! `comparison/v1`: the structs of `comparison.json`. They are frozen: a field may be added with a default, and none is
//! removed, renamed or given another meaning. Unknown fields, those of a newer minor version, are ignored.

mod comparison;
mod conduct;
mod subject;

pub use comparison::{CaseFacts, Comparison, Counts, Look, Method, Problem, Row, SCHEMA, Skipped, Verdict};
pub use conduct::{Conduct, Found, PhaseTime, SideTime};
pub use subject::{Device, DeviceName, Event, Host, LabelsSource, Provider, SideFacts, Subject};
