//! The one integration binary: the program as its users run it. Nothing here leaves the loopback interface.

mod client;
mod fake_github;
mod manifests;
mod publish;
mod statistics;
