//! `vllm-perf`: continuous performance benchmarking for vLLM.
//!
//! The modules stand in the order in which data flows: event, trigger, device, image, suite, plan, then run, result,
//! compare, report and publish. The binary is a thin shell over this library.

pub mod bench;
pub mod cli;
pub mod client;
pub mod command;
pub mod config;
pub mod dashboard;
pub mod device;
pub mod duration;
pub mod environment;
pub mod event;
pub mod exit;
pub mod fingerprint;
pub mod git;
pub mod host;
pub mod image;
pub mod journal;
pub mod matrix;
pub mod model;
pub mod noise_store;
pub mod output;
pub mod plan;
pub mod progress;
pub mod publish;
pub mod record;
pub mod registry;
pub mod report;
pub mod result;
pub mod search;
pub mod sim_vllm;
pub mod store;
pub mod suite;
pub mod target;
pub mod trigger;

/// Version of this program.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
