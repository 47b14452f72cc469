//! The one integration binary: the program as its users run it. Nothing here leaves the loopback interface.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on panics")]
#![allow(clippy::disallowed_methods, reason = "these tests are a piece of the world")]

mod base;
mod boundary;
mod client;
mod compare;
mod config_show;
mod dashboard;
mod data_sets;
mod ends;
mod fake_github;
mod guard;
mod hostile;
mod house;
mod image;
mod kill;
mod manifests;
mod matrix;
mod measured_by;
mod migrating;
mod mistakes;
mod perf_eval;
mod perf_rows;
mod publish;
mod pull_request_suite;
mod report_of_results;
mod run;
mod secrets;
mod slices;
mod statistics;
mod store;
mod strategy;
mod trust;
mod wheels;
