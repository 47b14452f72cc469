//! The CI systems: the event, the decision whether to benchmark it, the matrix of jobs, and lines for CI logs. Nothing here
//! has side effects.

pub mod event;
pub mod label_trust;
pub mod log_text;
pub mod matrix;
pub mod trigger;
pub mod workflow_commands;
