//! `vllm-perf`: continuous performance benchmarking for vLLM.
//!
//! The modules stand in the order in which data flows: event, trigger, device, image, suite, plan, then run, result,
//! compare, report and publish. The binary is a thin shell over this library.

pub mod client;
pub mod compare;
pub mod config;
pub mod device;
pub mod environment;
pub mod event;
pub mod exit;
pub mod metric;
pub mod plan;
pub mod report;
pub mod result;
pub mod suite;
pub mod target;
