//! Every touch of the outside: files, processes, containers, git, registries, stores, GitHub, Buildkite.

pub mod buildkite_agent;
pub mod config_file;
pub mod delivery;
pub mod docker;
pub mod git;
pub mod github;
pub mod github_transport;
pub mod guard;
pub mod host;
pub mod interrupt;
pub mod model_folder;
pub mod noise_store;
pub mod output;
pub mod probe;
pub mod process;
pub mod registry;
pub mod results_folder;
pub mod shell;
pub mod step_files;
pub mod store;
pub mod suite_folder;
pub mod uploader;
