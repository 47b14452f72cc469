#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod answer;
mod answer_reader;
mod api;
mod arrivals;
mod certificates;
mod chunk;
mod clock;
mod connection;
mod failure;
mod generator;
mod load;
pub mod numbers;
pub mod open_files;
pub mod prompts;
mod ramp;
mod request;
mod response;
mod runner;
mod self_check;
mod server;
pub mod sim;
mod stream;
mod turns;
mod whole_body;
mod wire;

pub use answer::{Answer, ClientTimes};
pub use api::{Api, Sampling};
pub use arrivals::{LOWEST_RATE, arrivals};
pub use failure::Failure;
pub use http::HeaderMap;
pub use load::{Limits, Load, Request};
pub use ramp::{RampUp, RampUpStrategy};
pub use runner::{OfferedRate, Run, run, run_until};
pub use self_check::{LagSummary, SelfCheck};
pub use server::Server;
pub use url::Url;
