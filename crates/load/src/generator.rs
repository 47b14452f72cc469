//! The random number generators of numpy and Python, as far as `vllm bench serve` uses them, so that a seed gives the
//! same numbers.

mod mersenne;
pub mod numpy;
pub mod python;
