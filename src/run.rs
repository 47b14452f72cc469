//! Measuring: sessions, passes, servers and cases, the journal, and progress output.

pub mod case_run;
pub mod collect;
pub mod cost;
pub mod fingerprint;
pub mod journal;
pub mod launch;
pub mod measure;
pub mod native_client;
pub mod next_model;
pub mod pass;
pub mod progress;
pub mod recorded;
pub mod run_folder;
pub mod search_run;
pub mod server_start;
pub mod session;
pub mod time_spent;
