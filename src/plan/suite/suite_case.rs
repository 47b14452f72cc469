//! A case of the suite, and the commands that it consists of: parts of `plan.json`.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use vllm_verdict::case::{Kind, MeasuredBy};
use vllm_verdict::v1::CaseFacts;

/// The variable with which `vllm bench serve` hands over to vLLM's Rust client; vLLM 0.27 and newer.
pub const RUST_CLIENT: &str = "VLLM_USE_RUST_BENCH";

/// A command: its words, and the variables that it adds to the environment, both in upstream's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Program and arguments, never through a shell.
    pub argv: Vec<String>,
    /// Variables of the test file.
    pub env: IndexMap<String, String>,
}

/// One measurement of the suite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// Unique; result files are named after it.
    pub name: String,
    pub kind: Kind,
    /// Name of the test in the test file.
    pub test: String,
    /// As the test file names it.
    pub model: String,
    /// Upstream's request rate for a serving case: a number as text, or `inf`.
    pub request_rate: Option<String>,
    /// Of a serving case.
    pub max_concurrency: Option<u64>,
    /// The server that a serving case needs. Cases with equal servers share one.
    pub server: Option<Command>,
    /// The client, or the whole benchmark for the other kinds. Results go to `results/`, which a run replaces by the folder of the repetition.
    pub client: Command,
    /// The client that measures it.
    pub measured_by: MeasuredBy,
    /// Why a client of vLLM measures a serving case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_reason: Option<String>,
    /// Slices of each repetition, where they are set; else a run chooses them by the costs of its server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slices: Option<u32>,
}

impl Case {
    /// The case as `client` measures it, with the reason why that is not the native one.
    pub fn set_client(&mut self, client: MeasuredBy, reason: Option<String>) {
        self.client.env.shift_remove(RUST_CLIENT);
        if client == MeasuredBy::VllmRs {
            self.client.env.insert(RUST_CLIENT.to_owned(), "1".to_owned());
        }
        (self.measured_by, self.client_reason) = (client, reason);
    }

    /// Whether both cases differ at most in their concurrency: one search covers them.
    pub fn is_same_test_and_rate(&self, other: &Self) -> bool {
        (&self.test, &self.request_rate) == (&other.test, &other.request_rate)
    }
}

#[cfg(test)]
impl Command {
    /// The command of a line, for tests.
    pub fn sample(line: &str) -> Self {
        Self { argv: shell_words::split(line).unwrap(), env: IndexMap::new() }
    }
}

#[cfg(test)]
impl Case {
    /// A serving case without a server, for tests: they change what matters to them.
    pub fn sample(client: &str) -> Self {
        Self {
            name: "serving_a".to_owned(),
            kind: Kind::Serving,
            test: "serving_a".to_owned(),
            model: "m".to_owned(),
            request_rate: Some("inf".to_owned()),
            max_concurrency: Some(1),
            server: None,
            client: Command::sample(client),
            measured_by: MeasuredBy::Native,
            client_reason: None,
            slices: None,
        }
    }
}

impl From<&Case> for CaseFacts {
    fn from(case: &Case) -> Self {
        Self {
            name: case.name.as_str().into(),
            kind: case.kind,
            test: case.test.as_str().into(),
            model: case.model.as_str().into(),
            request_rate: case.request_rate.as_deref().map(Into::into),
            max_concurrency: case.max_concurrency,
            measured_by: case.measured_by,
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }
}
