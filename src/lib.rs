//! `vllm-perf`: continuous performance benchmarking for vLLM.
//!
//! Modules, in the order of their dependencies; each imports only from those listed before it: `plan`, `ci`, `result`,
//! `system`, `run`, `report`, `dashboard`, `publish`, `command`. The binary calls `command`.

pub mod ci;
pub mod command;
pub mod dashboard;
pub mod duration;
pub mod environment;
pub mod escape;
pub mod exit;
pub mod names;
pub mod plan;
pub mod publish;
pub mod report;
pub mod result;
pub mod run;
pub mod system;

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
