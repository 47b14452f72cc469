//! The counters of the server under test that tell how it decoded: speculation and diffusion. They are read from its
//! `/metrics` before and after a load, as `vllm bench serve` reads them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use reqwest::StatusCode;

use crate::plan::serve_flags::ServerFlags;
use crate::system::bounded_body;

/// How long one reading may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Most bytes of `/metrics`: a server with hundreds of engines has a few megabytes.
const MOST_BYTES: usize = 32 << 20;

/// Most positions of a draft: no method drafts as many tokens.
const MOST_POSITIONS: usize = 4096;

/// The counters of a server, summed over its engines. Those that it does not have are `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    pub speculation: Option<SpeculationCounters>,
    pub diffusion: Option<DiffusionCounters>,
}

/// The counters of speculative decoding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpeculationCounters {
    pub drafts: u64,
    pub draft_tokens: u64,
    pub accepted_tokens: u64,
    /// Accepted tokens by their position in the draft.
    pub accepted_at: BTreeMap<u64, u64>,
}

/// The counters of models that decode by diffusion.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiffusionCounters {
    pub denoising_steps: u64,
    pub canvas_positions: u64,
    pub committed_tokens: u64,
}

impl Counters {
    /// Whether the server has any of them.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The counters of the server that `flags` name. No key is sent: vLLM asks for none here.
    ///
    /// # Errors
    /// The server does not answer in time, or not with 200, or with too much.
    pub async fn read(flags: &ServerFlags) -> Result<Self> {
        let url = format!("{}/metrics", flags.base());
        let builder = reqwest::Client::builder()
            .timeout(LIMIT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .danger_accept_invalid_certs(flags.insecure);
        let client = builder.build().context("cannot build an HTTP client")?;
        let answer = client.get(&url).send().await.map_err(|_| anyhow!("{url} did not answer"))?;
        ensure!(answer.status() == StatusCode::OK, "{url} answered {}", answer.status().as_u16());
        let body = bounded_body::read(reqwest::Body::from(answer), MOST_BYTES).await;
        Ok(Self::parse(&body.with_context(|| format!("cannot read {url}"))?))
    }

    /// The counters in a text in the format of Prometheus. A line that is not a sample of them is not read.
    fn parse(text: &[u8]) -> Self {
        let mut counters = Self::default();
        for line in text.split(|byte| *byte == b'\n') {
            let Ok(line) = std::str::from_utf8(line.trim_ascii()) else { continue };
            if let Some(Sample { name, position, value }) = line.strip_prefix("vllm:").and_then(sample) {
                counters.add(name, position, value);
            }
        }
        counters
    }

    fn add(&mut self, name: &str, position: Option<u64>, value: u64) {
        let Some(name) = name.strip_suffix("_total") else { return };
        let add = |sum: &mut u64| *sum = sum.saturating_add(value);
        if let Some(name) = name.strip_prefix("spec_decode_num_") {
            let speculation = self.speculation.get_or_insert_default();
            match (name, position) {
                ("drafts", _) => add(&mut speculation.drafts),
                ("draft_tokens", _) => add(&mut speculation.draft_tokens),
                ("accepted_tokens", _) => add(&mut speculation.accepted_tokens),
                ("accepted_tokens_per_pos", Some(position)) => {
                    let accepted_at = &mut speculation.accepted_at;
                    if accepted_at.contains_key(&position) || accepted_at.len() < MOST_POSITIONS {
                        add(accepted_at.entry(position).or_default());
                    }
                }
                _ => {}
            }
        } else if let Some(name) = name.strip_prefix("diffusion_num_") {
            let diffusion = self.diffusion.get_or_insert_default();
            match name {
                "denoising_steps" => add(&mut diffusion.denoising_steps),
                "canvas_positions" => add(&mut diffusion.canvas_positions),
                "committed_tokens" => add(&mut diffusion.committed_tokens),
                _ => {}
            }
        }
    }
}

/// One sample of a counter.
struct Sample<'a> {
    name: &'a str,
    /// The label `position`.
    position: Option<u64>,
    value: u64,
}

/// Reads `name{label="value",...} number`; a value can have any character, with `"` and `\` escaped.
fn sample(line: &str) -> Option<Sample<'_>> {
    let (name, mut rest) = line.split_at(line.find(|letter: char| letter == '{' || letter.is_whitespace())?);
    let mut position = None;
    if let Some(mut labels) = rest.strip_prefix('{') {
        rest = loop {
            labels = labels.trim_start_matches([',', ' ']);
            if let Some(rest) = labels.strip_prefix('}') {
                break rest;
            }
            let (label, quoted) = labels.split_once("=\"")?;
            let end = end_of_value(quoted)?;
            if label == "position" {
                position = quoted.get(..end)?.parse().ok();
            }
            labels = quoted.get(end + 1..)?;
        };
    }
    let value: f64 = rest.split_whitespace().next()?.parse().ok()?;
    // A cast of a number that is not finite, or is negative, would make a count of it.
    (value.is_finite() && value >= 0.0).then_some(Sample { name, position, value: value as u64 })
}

/// The position of the `"` that ends a value.
fn end_of_value(quoted: &str) -> Option<usize> {
    let mut is_escaped = false;
    quoted.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::plan::serve_flags;

    #[test]
    fn counters_are_summed_over_engines_whatever_their_labels_hold() {
        let text = br#"
# HELP vllm:spec_decode_num_drafts_total Number of spec decoding drafts.
# TYPE vllm:spec_decode_num_drafts_total counter
vllm:spec_decode_num_drafts_total{engine="0",model_name="a } \" 7"} 10.0
vllm:spec_decode_num_drafts_total{engine="1",model_name="m"} 2
vllm:spec_decode_num_drafts_created{engine="0",model_name="m"} 1.7e+09
vllm:spec_decode_num_draft_tokens_total{engine="0"} 30.0 1764000000
vllm:spec_decode_num_accepted_tokens_total 1.2e1
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="1"} 3
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="0"} 8
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="1",position="0"} 1
vllm:diffusion_num_denoising_steps_total{engine="0"} 40
vllm:diffusion_num_canvas_positions_total{engine="0"} 640
vllm:diffusion_num_committed_tokens_total{engine="0"} 64
vllm:num_requests_running{engine="0"} 1
"#;
        let speculation = SpeculationCounters {
            drafts: 12,
            draft_tokens: 30,
            accepted_tokens: 12,
            accepted_at: [(0, 9), (1, 3)].into_iter().collect(),
        };
        let diffusion = DiffusionCounters { denoising_steps: 40, canvas_positions: 640, committed_tokens: 64 };
        let expected = Counters { speculation: Some(speculation), diffusion: Some(diffusion) };
        assert_eq!(Counters::parse(text), expected);
        assert!(Counters::parse(b"vllm:num_requests_running 1\n").is_empty());
    }

    #[test]
    fn a_line_that_is_not_a_sample_is_not_counted_and_never_a_panic() {
        for line in [
            "vllm:spec_decode_num_drafts_total",
            "vllm:spec_decode_num_drafts_total{",
            "vllm:spec_decode_num_drafts_total{engine=\"0",
            "vllm:spec_decode_num_drafts_total{engine=\"\\",
            "vllm:spec_decode_num_drafts_total{engine=\"0\"}",
            "vllm:spec_decode_num_drafts_total NaN",
            "vllm:spec_decode_num_drafts_total +Inf",
            "vllm:spec_decode_num_drafts_total -1",
            "vllm:spec_decode_num_drafts_total many",
            "other:spec_decode_num_drafts_total 1",
            "vllm:",
            "\u{fffd}",
        ] {
            assert!(Counters::parse(line.as_bytes()).is_empty(), "{line}");
        }
        let huge = "vllm:spec_decode_num_drafts_total 1e300\n".repeat(2);
        assert_eq!(Counters::parse(huge.as_bytes()).speculation.unwrap().drafts, u64::MAX);
        assert!(Counters::parse(b"vllm:spec_decode_num_drafts_total{a=\"\xff\"} 1").is_empty());
    }

    /// What a server whose answer to `/metrics` is `head`, then `body` for ever, is read as.
    async fn read(head: &'static str, body: &'static [u8]) -> Result<Counters> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            // A connection that is closed with a request in it is reset.
            assert!(peer.read(&mut [0; 4096]).await.unwrap() > 0);
            peer.write_all(head.as_bytes()).await.unwrap();
            while !body.is_empty() && peer.write_all(body).await.is_ok() {}
        });
        let words = format!("--model m --port {port}");
        let arguments = serve_flags::parse(&words.split(' ').map(str::to_owned).collect::<Vec<_>>()).unwrap();
        let counters = Counters::read(&arguments.server).await;
        counters.map_err(|error| anyhow!("{}", format!("{error:#}").replace(&port.to_string(), "PORT")))
    }

    #[tokio::test]
    async fn a_server_without_metrics_and_one_without_end_have_no_counters() {
        let whole = "HTTP/1.1 200 OK\r\ncontent-length: 42\r\n\r\nvllm:spec_decode_num_draft_tokens_total 18\n";
        assert_eq!(read(whole, b"").await.unwrap().speculation.unwrap().draft_tokens, 18);
        let error = async |head, body| read(head, body).await.unwrap_err().to_string();
        insta::assert_snapshot!(error("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", b"").await, @"http://127.0.0.1:PORT/metrics answered 404");
        insta::assert_snapshot!(error("HTTP/1.1 307 Go\r\nlocation: /x\r\n\r\n", b"").await, @"http://127.0.0.1:PORT/metrics answered 307");
        insta::assert_snapshot!(error("no", b"").await, @"http://127.0.0.1:PORT/metrics did not answer");
        let endless = error("HTTP/1.1 200 OK\r\n\r\n", &[b'\n'; 1 << 16]).await;
        insta::assert_snapshot!(endless, @"cannot read http://127.0.0.1:PORT/metrics: the answer has more than 33554432 bytes");
    }

    #[test]
    fn positions_are_bounded() {
        let line = |position: usize| {
            format!("vllm:spec_decode_num_accepted_tokens_per_pos_total{{position=\"{position}\"}} 1\n")
        };
        let text: String = (0..MOST_POSITIONS + 10).map(line).collect();
        assert_eq!(Counters::parse(text.as_bytes()).speculation.unwrap().accepted_at.len(), MOST_POSITIONS);
    }
}
