//! `vllm-verdict`: from repetitions of a benchmark to verdicts, and from the history of a metric to its changes.
//!
//! Functions from data to data: no async, no files, no network, no clock. What goes in is an [`Input`], what comes
//! out is a [`v1::Comparison`], the value of `comparison.json`.

pub mod capacity;
pub mod case;
pub mod change_points;
pub mod criteria;
mod input;
pub mod metric;
pub mod noise;
pub mod number;
mod recheck;
pub mod repetition;
mod rows;
mod rule;
pub mod side;
pub mod statistics;
pub mod strategy;
pub mod v1;

pub use input::Input;
pub use recheck::recheck;
pub use rows::{compare, conducted, undecided};
