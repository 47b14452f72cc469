//! What CI says: the event, the decision whether to benchmark it, the matrix of jobs, and lines for CI logs. Pure.

pub mod event;
pub mod matrix;
pub mod trigger;
pub mod workflow_commands;
