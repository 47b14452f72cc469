#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

pub mod answer;
pub mod arrivals;
mod clock;
mod connection;
mod failure;
mod generator;
mod load;
pub mod numbers;
pub mod open_files;
pub mod prompts;
pub mod ramp;
mod request;
mod response;
pub mod self_check;
mod server;
pub mod sim;
mod stream;

pub use answer::Answer;
pub use failure::Failure;
pub use load::{Limits, Load, Offered, Request, Run, run};
pub use self_check::SelfCheck;
pub use server::{Api, Sampling, Server};
