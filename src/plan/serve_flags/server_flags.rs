//! Flags for the server and the model.

use clap::builder::PossibleValuesParser;
use clap::{ArgAction, Args};
use serde::{Serialize, Serializer};
use url::Url;

use super::flag_values::{Backend, key_value};

/// The server, and what every request to it carries.
#[derive(Debug, Clone, PartialEq, Args, Serialize)]
pub struct ServerFlags {
    /// Interface: vllm and openai are completions, openai-chat is chat completions; the others generate nothing.
    #[arg(long, default_value = "openai")]
    pub backend: Backend,
    /// Path of the interface on the server.
    #[arg(long, default_value = "/v1/completions")]
    pub endpoint: String,
    /// URL of the server, instead of --host and --port.
    #[arg(long, value_name = "URL")]
    #[serde(serialize_with = "url")]
    pub base_url: Option<Url>,
    /// Host of the server.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// Port of the server.
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Header sent with every request, KEY=VALUE.
    #[arg(long, action = ArgAction::Set, num_args = 0.., value_name = "KEY=VALUE", value_parser = key_value)]
    #[serde(serialize_with = "hidden")]
    pub header: Vec<(String, String)>,
    /// Prefix of the `x-request-id` of every request, before its number. Without it requests have no id.
    #[arg(long, value_name = "TEXT")]
    #[serde(serialize_with = "text_or_empty")]
    pub request_id_prefix: Option<String>,
    /// The certificate of the server is not checked: anyone on the way can read and change what is sent.
    #[arg(long)]
    pub insecure: bool,
}

/// The model and its tokenizer.
#[derive(Debug, Clone, PartialEq, Args, Serialize)]
pub struct ModelFlags {
    /// Name of the model in results; also the folder or name of its tokenizer.
    #[arg(long)]
    pub model: String,
    /// Name of the model on the server.
    #[arg(long)]
    pub served_model_name: Option<String>,
    /// Folder or name of the tokenizer, if it is not that of the model.
    #[arg(long)]
    pub tokenizer: Option<String>,
    /// Kind of the tokenizer.
    #[arg(long, default_value = "auto", value_parser = PossibleValuesParser::new(["auto", "hf"]))]
    pub tokenizer_mode: String,
    /// No effect: no code of a model is run.
    #[arg(long)]
    pub trust_remote_code: bool,
}

impl ServerFlags {
    /// The URL of the server, without a `/` at its end.
    pub fn base(&self) -> String {
        match &self.base_url {
            Some(url) => url.as_str().trim_end_matches('/').to_owned(),
            None if self.host.contains(':') && !self.host.starts_with('[') => {
                format!("http://[{}]:{}", self.host, self.port)
            }
            None => format!("http://{}:{}", self.host, self.port),
        }
    }

    /// The URL that requests are sent to. The endpoint never changes the server.
    ///
    /// # Errors
    /// Host and endpoint are not a URL, or the endpoint is not a path on that host.
    pub fn url(&self) -> Result<Url, String> {
        let base = self.base();
        let no_url = |error| format!("cannot make a URL of --host, --port and --endpoint: {error}");
        let server = Url::parse(&base).map_err(no_url)?;
        let url = Url::parse(&format!("{base}{}", self.endpoint)).map_err(no_url)?;
        if !self.endpoint.starts_with('/') || !is_same_server(&server, &url) {
            return Err(format!("`--endpoint {}` is not a path on {server}: it must begin with `/`", self.endpoint));
        }
        Ok(url)
    }
}

/// Whether both have the same scheme, login, host and port.
fn is_same_server(one: &Url, other: &Url) -> bool {
    let server = |url: &Url| url[..url::Position::BeforePath].to_owned();
    server(one) == server(other)
}

impl ModelFlags {
    /// The folder or name of the tokenizer.
    pub fn tokenizer_id(&self) -> &str {
        self.tokenizer.as_deref().unwrap_or(&self.model)
    }

    /// The name of the model on the server.
    pub fn model_name(&self) -> &str {
        self.served_model_name.as_deref().unwrap_or(&self.model)
    }
}

fn url<S: Serializer>(url: &Option<Url>, serializer: S) -> Result<S::Ok, S::Error> {
    url.as_ref().map(|url| url.as_str().trim_end_matches('/')).serialize(serializer)
}

fn hidden<S: Serializer>(pairs: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    (!pairs.is_empty()).then_some("***").serialize(serializer)
}

fn text_or_empty<S: Serializer>(text: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text.as_deref().unwrap_or_default())
}
