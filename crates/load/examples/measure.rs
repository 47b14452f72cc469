//! Starts the simulated server and measures it: 20 requests at 50 requests a second.
//! `cargo run -p vllm-load --example measure`

#![allow(clippy::print_stdout, reason = "an example prints its results")]

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use vllm_load::prompts::{RandomPrompts, random};
use vllm_load::sim::{self, Simulation};
use vllm_load::{Answer, Api, HeaderMap, Limits, Load, Request, Run, Sampling, Server, arrivals, numbers};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}/v1/completions", listener.local_addr()?);
    let simulation = Simulation::new("ttft=20ms,itl=5ms".parse()?, "demo");
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(sim::serve(simulation, listener, async {
        let _ = stopped.await;
    }));

    let server = Server::new(url.parse()?, HeaderMap::new());
    let load = load(server)?;
    let run = vllm_load::run(&load, |_, _| ()).await?;
    print(&run);

    let _ = stop.send(());
    serving.await?
}

/// 20 random prompts of 64 tokens with answers of 16 tokens, at 50 requests a second on average.
fn load(server: Server) -> anyhow::Result<Load> {
    let spec = RandomPrompts { prompts: 20, input_len: 64, output_len: 16, ..RandomPrompts::default() };
    let prompts = random(&spec, None)?;
    let due = arrivals(prompts.len(), 50.0, 1.0, 0);
    let requests = prompts.iter().zip(due).map(|(prompt, due)| {
        let body = Api::Completions.body("demo", prompt, &Sampling::new())?;
        Ok(Request { due, bytes: server.request(&body), output_tokens: prompt.output_tokens })
    });
    let requests = requests.collect::<anyhow::Result<_>>()?;
    let limits = Limits { max_concurrency: None, stall_timeout: Duration::from_secs(60) };
    Ok(Load { server, requests, limits, keep_texts: false })
}

fn print(run: &Run) {
    let (completed, failed): (Vec<&Answer>, Vec<&Answer>) = run.answers.iter().partition(|a| a.failure.is_none());
    let ttfts: Vec<f64> = completed.iter().map(|answer| answer.ttft() * 1000.0).collect();
    let itls: Vec<f64> = completed.iter().flat_map(|answer| answer.itls()).map(|itl| itl * 1000.0).collect();
    let (ttfts, itls) = (numbers::sorted(&ttfts), numbers::sorted(&itls));
    let median_ttft = numbers::percentile(&ttfts, 50.0);
    println!("completed {}, failed {}, in {:.2} s", completed.len(), failed.len(), run.seconds);
    println!("TTFT median {median_ttft:.2} ms, p99 {:.2} ms", numbers::percentile(&ttfts, 99.0));
    println!("ITL  median {:.2} ms, p99 {:.2} ms", numbers::percentile(&itls, 50.0), numbers::percentile(&itls, 99.0));
    for warning in run.check.warnings(median_ttft) {
        println!("warning: {warning}");
    }
}
