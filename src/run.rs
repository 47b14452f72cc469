//! Measuring: rounds, passes, servers and cases, the journal, and progress output.

pub mod case_run;
pub mod collect;
pub mod cost;
pub mod fingerprint;
pub mod image_fetch;
pub mod interim_analysis;
pub mod journal;
pub mod launch;
pub mod measure;
pub mod native_client;
pub mod notices;
pub mod pass;
pub mod progress;
pub mod read_next_model;
pub mod recorded;
pub mod repeated_pass;
pub mod rounds;
pub mod run_folder;
pub mod run_state;
pub mod search_run;
pub mod server_cases;
pub mod server_start;
pub mod session;
pub mod side_run;
pub mod time_spent;
pub mod warm_up;
