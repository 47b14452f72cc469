//! The results of cases: upstream's result files, read, merged and compared.

pub mod case_commands;
pub mod case_files;
pub mod identity;
pub mod merge;
pub mod python_json;
pub mod result_document;
pub mod upstream_compare;
pub mod upstream_table;

pub use case_commands::{Commands, command_words, flags, parallel_sizes};
pub use case_files::{CaseFiles, Folder, client, facts};
pub use merge::{merge, of_slices};
pub use result_document::{Document, Latency, Serving, Startup, Throughput, parse};
