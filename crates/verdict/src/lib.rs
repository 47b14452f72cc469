#![doc = include_str!("../README.md")]

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
mod untrusted;
pub mod v1;

pub use input::Input;
pub use recheck::recheck;
pub use rows::{compare, conducted, undecided};
pub use untrusted::Untrusted;
