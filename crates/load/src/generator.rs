//! The generators of numpy and Python, as far as vLLM's client draws from them, so that a seed means here what it means
//! there.

mod mersenne;
pub mod numpy;
pub mod python;
