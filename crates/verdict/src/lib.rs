#![doc = include_str!("../README.md")]

pub mod capacity;
pub mod case;
pub mod change_points;
mod counts;
pub mod criteria;
mod explain;
mod input;
pub mod looks;
pub mod metric;
pub mod noise;
pub mod number;
mod problems;
mod recheck;
pub mod repetition;
mod rows;
mod rule;
pub mod side;
mod special;
pub mod statistics;
pub mod strategy;
mod student;
mod untrusted;
pub mod v1;

pub use input::Input;
pub use recheck::recheck;
pub use rows::{compare, conducted};
pub use untrusted::Untrusted;
