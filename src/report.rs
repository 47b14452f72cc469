//! Comparisons and results as text, one file a format. Pure.

pub mod upstream;
