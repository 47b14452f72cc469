//! A simulated vLLM: an HTTP server with the part of vLLM's interface that a load client uses, and with a known timing. It
//! computes nothing. A token is never written before the time that its [`Pace`] gives.

mod completion_request;
mod fault;
mod http_request;
mod pace;
mod pacer;
mod plain_response;
mod pooled_response;
mod response_script;
mod serve;
mod simulation;
mod trace;

pub use fault::{Fault, FaultKind};
pub use pace::Pace;
pub use plain_response::VERSION;
pub use serve::serve;
pub use simulation::Simulation;
pub use trace::TracedAnswer;
