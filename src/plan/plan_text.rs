//! The plan as text: what was decided, and every command as one line for a shell.

use std::fmt::{self, Write};

use vllm_verdict::case::{Kind, MeasuredBy};
use vllm_verdict::looks;
use vllm_verdict::strategy::Strategy;
use vllm_verdict::v1::{Event, TimeRange};

use crate::duration;
use crate::escape;
use crate::plan::concurrency_search::Search;
use crate::plan::suite::{Case, Command};
use crate::plan::{Plan, SidePlan};

/// The text of `plan --format text`. For a skip it ends after the device.
pub fn text(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a `String` cannot fail.
    let _ = write(&mut text, plan);
    text
}

fn write(out: &mut String, plan: &Plan) -> fmt::Result {
    write_decision(out, plan)?;
    if !plan.trigger.run {
        return Ok(());
    }
    write_sides(out, plan)?;
    write_runs(out, plan)?;
    let servers = servers(&plan.cases);
    write_counts(out, &plan.cases, servers.len())?;
    write_cases(out, &plan.cases, &servers)?;
    if !plan.skipped.is_empty() {
        writeln!(out, "\nleft out")?;
    }
    for skipped in &plan.skipped {
        writeln!(out, "  {}: {}", escape::name(&skipped.name), escape::sentence(&skipped.reason))?;
    }
    Ok(())
}

fn write_decision(out: &mut String, plan: &Plan) -> fmt::Result {
    let decision = if plan.trigger.run { "run" } else { "skip" };
    writeln!(out, "decision  {decision}: {}", plan.trigger.reason)?;
    writeln!(out, "event     {}", event(&plan.event))?;
    let device = &plan.device;
    let unit = if device.name.is_cpu() { "NUMA node" } else { "device" };
    writeln!(out, "device    {}: {}, {}", device.name, device.device_type, counted(device.count as usize, unit))
}

fn write_sides(out: &mut String, plan: &Plan) -> fmt::Result {
    match &plan.recorded_base {
        Some(folder) => writeln!(out, "base      recorded: head of the run in `{}`", folder.display())?,
        None => writeln!(out, "base      {}", side(plan.sides.base.as_ref()))?,
    }
    writeln!(out, "head      {}", side(plan.sides.head.as_ref()))?;
    if let Some(reason) = &plan.build_reason {
        writeln!(out, "          {reason}")?;
    }
    for (reference, state) in &plan.images {
        match reference.strip_prefix("wheel:") {
            Some(wheel) => writeln!(out, "wheel     {wheel}: {state}")?,
            None => writeln!(out, "image     {reference}: {state}")?,
        }
    }
    Ok(())
}

fn write_runs(out: &mut String, plan: &Plan) -> fmt::Result {
    let pairs = counted(plan.pairs as usize, "interleaved pair");
    let runs = match plan.strategy {
        Strategy::Paired => pairs,
        Strategy::Screen => format!("a screen of every case, then {pairs} of the cases that may have changed"),
        Strategy::Sequential => {
            let looks = looks::looks(plan.strategy, plan.pairs, 1.0);
            let after: Vec<String> = looks.iter().map(|look| look.pairs.to_string()).collect();
            format!("at most {pairs}, with looks after {}", after.join(", "))
        }
        Strategy::Single => counted(plan.pairs as usize, "repetition"),
    };
    writeln!(out, "runs      {runs}, seed {}", plan.seed)?;
    if let Some(expected) = &plan.expected {
        writeln!(out, "time      {}", time(plan, expected))?;
    }
    let Some(Search { ttft_ms, tpot_ms, max_probes, max_concurrency }) = &plan.search else { return Ok(()) };
    writeln!(
        out,
        "search    the largest concurrency up to {max_concurrency} with p99 TTFT <= {ttft_ms} ms and p99 TPOT <= {tpot_ms} ms, at most {max_probes} probes a test and rate"
    )
}

/// The expected time, and what it is bound by.
fn time(plan: &Plan, expected: &TimeRange) -> String {
    let bound = match (plan.tier, plan.budget.map(duration::text_of_seconds)) {
        (Some(tier), Some(budget)) => format!("; tier {}, at most {budget}", tier.as_str()),
        (Some(tier), None) => format!("; tier {}", tier.as_str()),
        (None, Some(budget)) => format!("; at most {budget}"),
        (None, None) => String::new(),
    };
    let hours = |seconds: f64| seconds * f64::from(plan.device.count) / 3600.0;
    let [least, most] = [expected.least, expected.most].map(|seconds| format!("{:.2}", hours(seconds)));
    let hours = if least == most { least } else { format!("{least} to {most}") };
    let unit = if plan.device.name.is_cpu() { "NUMA node hours" } else { "device hours" };
    let time = duration::range_of_seconds(expected.least, expected.most);
    format!("about {time} ({hours} {unit}), from the suite alone{bound}")
}

fn write_counts(out: &mut String, cases: &[Case], servers: usize) -> fmt::Result {
    let by = |client: MeasuredBy| cases.iter().filter(|case| case.measured_by == client).count();
    let (native, by_rust) = (by(MeasuredBy::Native), by(MeasuredBy::VllmRs));
    let (on, by_vllm) = (counted(servers, "server"), by(MeasuredBy::Vllm));
    let of_rust = if by_rust > 0 { format!(", {by_rust} by {}", MeasuredBy::VllmRs.command()) } else { String::new() };
    let cases = counted(cases.len(), "case");
    writeln!(out, "cases     {cases} on {on}: {native} measured by the native client, {by_vllm} by vllm bench{of_rust}")
}

/// Every command: the serving cases by server, then the other kinds.
fn write_cases(out: &mut String, cases: &[Case], servers: &[(&Command, Vec<&Case>)]) -> fmt::Result {
    for (index, (server, cases)) in servers.iter().enumerate() {
        let count = counted(cases.len(), "case");
        writeln!(out, "\nserver {} of {}, {count}\n  $ {}", index + 1, servers.len(), server.line(&[]))?;
        for case in cases {
            write_case(out, case)?;
        }
    }
    for kind in [Kind::Latency, Kind::Startup, Kind::Throughput] {
        let cases: Vec<&Case> = cases.iter().filter(|case| case.kind == kind).collect();
        if !cases.is_empty() {
            writeln!(out, "\n{}, {}", kind.as_str(), counted(cases.len(), "case"))?;
        }
        for case in cases {
            write_case(out, case)?;
        }
    }
    Ok(())
}

fn write_case(out: &mut String, case: &Case) -> fmt::Result {
    writeln!(out, "  {}\n    $ {}", case.name, case.client.line(&[]))?;
    match &case.client_reason {
        Some(reason) => {
            writeln!(out, "    measured by {}: {}", case.measured_by.command(), escape::sentence(reason))
        }
        None => Ok(()),
    }
}

/// The distinct servers in the order of the plan, each with its cases.
fn servers(cases: &[Case]) -> Vec<(&Command, Vec<&Case>)> {
    let mut servers: Vec<(&Command, Vec<&Case>)> = Vec::new();
    for case in cases {
        let Some(server) = &case.server else { continue };
        match servers.iter_mut().find(|(known, _)| *known == server) {
            Some((_, cases)) => cases.push(case),
            None => servers.push((server, vec![case])),
        }
    }
    servers
}

fn event(event: &Event) -> String {
    let mut words = vec![event.name.clone()];
    words.extend(event.pull_request.map(|number| format!("#{number}")));
    words.extend(event.repository.as_ref().map(|repository| format!("of {repository}")));
    words.extend(event.head_sha.as_ref().map(|commit| format!("at {commit}")));
    if event.fork {
        words.push("from a fork".to_owned());
    }
    let mut text = words.join(" ");
    if !event.labels.is_empty() {
        text = format!("{text}, labels {}", event.labels.join(", "));
    }
    text
}

fn side(side: Option<&SidePlan>) -> String {
    let Some(side) = side else { return "none".to_owned() };
    let mut text = side.target.to_string();
    if let Some(commit) = side.commit.as_ref().filter(|commit| !text.contains(commit.as_str())) {
        text = format!("{text} for {commit}");
    }
    if !side.server_args.is_empty() {
        text = format!("{text}\n          server with {}", shell_words::join(&side.server_args));
    }
    text
}

fn counted(count: usize, unit: &str) -> String {
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}
