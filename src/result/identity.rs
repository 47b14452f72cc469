//! What a case measured, as its files tell it: model, load, layout and device. Results of one name that measured different
//! things are not compared.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use vllm_verdict::repetition::{Outcome, Repetition};

use crate::plan::suite::parallel_sizes::ParallelSizes;
use crate::result::case_commands::{Commands, flags, parallel_sizes};
use crate::result::case_files::{CaseFiles, Folder};
use crate::result::result_document::{Document, Serving};

/// Flags of a measuring command that say where it runs, what it prints and where it writes.
const OF_THE_PLACE: [&str; 25] = [
    "--append-result",
    "--base-url",
    "--disable-tqdm",
    "--download-dir",
    "--endpoint",
    "--goodput",
    "--host",
    "--insecure",
    "--label",
    "--metadata",
    "--metric-percentiles",
    "--output-json",
    "--percentile-metrics",
    "--plot-timeline",
    "--port",
    "--profile",
    "--ready-check-timeout-sec",
    "--request-id-prefix",
    "--result-dir",
    "--result-filename",
    "--save-detailed",
    "--save-result",
    "--stall-timeout-sec",
    "--tokenizer",
    "--trust-remote-code",
];

/// Prompt tokens of two results that differ by a larger share are those of different loads.
const SAME_TOKENS: f64 = 0.01;

/// What was measured: by name of the property, its value in words.
type Identity = IndexMap<String, String>;

fn identity(case: &CaseFiles) -> Identity {
    let Commands { server_command, client_command, latency_command, throughput_command, startup_command, gpu_type } =
        &case.commands;
    let mut identity = Identity::new();
    let model = case.commands.model().or_else(|| document(case)?.model().map(str::to_owned));
    identity.extend(model.map(|model| ("model".to_owned(), model)));
    if !gpu_type.is_empty() {
        identity.insert("device".to_owned(), gpu_type.lines().collect::<Vec<_>>().join(", "));
    }
    if let Some(server) = server_command {
        identity.extend(layout(server));
    }
    for command in [client_command, latency_command, throughput_command, startup_command].into_iter().flatten() {
        for (flag, value) in flags(command) {
            let flag = flag.replace('_', "-");
            let value = match flag.as_str() {
                "--model" => continue,
                flag if OF_THE_PLACE.contains(&flag) => continue,
                // Both are completions.
                "--backend" if value == "vllm" => "openai".to_owned(),
                // The same file can lie elsewhere.
                "--dataset-path" => value.rsplit('/').next().unwrap_or_default().to_owned(),
                _ if value.is_empty() => "set".to_owned(),
                _ => value,
            };
            identity.insert(format!("`{flag}`"), value);
        }
    }
    identity
}

/// The sizes of the layout; one that is not named is 1.
fn layout(server: &str) -> Identity {
    let ParallelSizes { tensor, pipeline, data, .. } = parallel_sizes(server);
    let sizes = [("tensor", tensor), ("pipeline", pipeline), ("data", data)];
    sizes.map(|(name, size)| (format!("{name} parallel size"), size.unwrap_or(1).to_string())).into_iter().collect()
}

fn document(case: &CaseFiles) -> Option<Document> {
    Document::read(case.kind, case.text.as_deref()?).ok()
}

/// The differences between what two results measured, in words; `None` where there is none that is known.
fn difference(base: &CaseFiles, head: &CaseFiles) -> Option<String> {
    let (of_base, of_head) = (identity(base), identity(head));
    // Without the commands of both, a flag that is missing says nothing.
    let has_commands = |case: &CaseFiles| case.commands != Commands::default();
    let is_known = has_commands(base) && has_commands(head);
    let names: BTreeSet<&String> = of_base.keys().chain(of_head.keys()).collect();
    let order = |name: &&&String| of_base.get_index_of(**name).or(of_head.get_index_of(**name)).unwrap_or_default();
    let mut names: Vec<&String> = names.into_iter().collect();
    names.sort_by_key(|name| order(&name));
    let differs = |name: &String| match (of_base.get(name), of_head.get(name)) {
        (Some(one), Some(other)) => (one != other).then(|| format!("{name} {one} and {other}")),
        (one, other) if is_known => {
            let words = |value: Option<&String>| value.cloned().unwrap_or_else(|| "not set".to_owned());
            Some(format!("{name} {} and {}", words(one), words(other)))
        }
        _ => None,
    };
    let mut differences: Vec<String> = names.into_iter().filter_map(differs).collect();
    differences.extend(clients(base, head));
    differences.extend(prompt_tokens(base, head));
    (!differences.is_empty()).then(|| differences.join(", "))
}

/// The clients of both, where they differ: two clients measure the same load differently.
fn clients(base: &CaseFiles, head: &CaseFiles) -> Option<String> {
    let (base, head) = (base.client()?, head.client()?);
    (base != head).then(|| format!("client {} and {}", base.as_str(), head.as_str()))
}

/// The prompt tokens of both, where those of one request differ.
fn prompt_tokens(base: &CaseFiles, head: &CaseFiles) -> Option<String> {
    let of = |case: &CaseFiles| match document(case)? {
        Document::Serving(serving) => {
            let Serving { total_input_tokens, completed, .. } = *serving;
            let (tokens, requests) = (total_input_tokens?, completed.filter(|requests| *requests > 0)?);
            Some(tokens as f64 / requests as f64)
        }
        _ => None,
    };
    let (base, head) = (of(base)?, of(head)?);
    ((base - head).abs() > SAME_TOKENS * base.max(head))
        .then(|| format!("prompt tokens a request {base:.0} and {head:.0}"))
}

/// The cases of two sides that measured different things, with the difference.
pub fn unlike(base: &[Folder], head: &[Folder]) -> IndexMap<String, String> {
    let of_side = |folders: &[Folder], name: &str| folders.iter().filter_map(|it| it.cases.get(name)).next().cloned();
    let names: BTreeSet<&String> = base.iter().flat_map(|folder| folder.cases.keys()).collect();
    let differing = |name: &String| {
        let first = of_side(base, name)?;
        let others = base.iter().chain(head).filter_map(|folder| folder.cases.get(name));
        let difference = others.into_iter().find_map(|other| difference(&first, other))?;
        Some((name.clone(), difference))
    };
    names.into_iter().filter_map(differing).collect()
}

/// Takes the results of base away from cases that measured different things: their values are not comparable.
pub fn keep_apart(base: &mut [Repetition], unlike: &IndexMap<String, String>) {
    for repetition in base {
        for (name, difference) in unlike {
            if let Some(outcome) = repetition.get_mut(name) {
                *outcome = Outcome::Failed(format!("not compared, the sides measured different things: {difference}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use vllm_verdict::case::Kind;

    use super::*;

    const SERVER: &str = "vllm serve org/m --tensor-parallel-size 1";
    const CLIENT: &str = "vllm bench serve --model org/m --dataset-name random --random-input-len 64 --port 8000";

    fn case(server: &str, client: &str, gpu: &str, tokens: u64) -> CaseFiles {
        CaseFiles {
            kind: Kind::Serving,
            text: Some(format!(r#"{{"model_id": "org/m", "completed": 10, "total_input_tokens": {tokens}}}"#)),
            commands: Commands {
                server_command: Some(server.to_owned()),
                client_command: Some(client.to_owned()),
                gpu_type: gpu.to_owned(),
                ..Commands::default()
            },
            outcome: Outcome::Failed(String::new()),
        }
    }

    #[test]
    fn a_difference_in_what_was_measured_is_named_and_one_in_where_it_ran_is_not() {
        let base = case(SERVER, CLIENT, "NVIDIA H100", 640);
        let of = |server: &str, client: &str, gpu: &str, tokens| difference(&base, &case(server, client, gpu, tokens));
        let moved =
            "vllm bench serve --model org/m --dataset-name random --random-input-len 64 --port 9000 --save-result";
        let configured = "vllm serve org/m -tp 1 --enforce-eager --max-num-seqs 4";
        assert_eq!(of(configured, moved, "NVIDIA H100", 641), None);
        let words = |server: &str, client: &str, gpu: &str, tokens| of(server, client, gpu, tokens).unwrap();
        insta::assert_snapshot!(words("vllm serve org/m -tp 4", CLIENT, "NVIDIA H100", 640), @"tensor parallel size 1 and 4");
        assert_eq!(words("vllm serve org/m -tp=4", CLIENT, "NVIDIA H100", 640), "tensor parallel size 1 and 4");
        insta::assert_snapshot!(words("vllm serve org/m --data_parallel_size=2", CLIENT, "NVIDIA H100", 640), @"data parallel size 1 and 2");
        insta::assert_snapshot!(words(SERVER, &CLIENT.replace("64 ", "640 "), "NVIDIA H200", 6400), @"device NVIDIA H100 and NVIDIA H200, `--random-input-len` 64 and 640, prompt tokens a request 64 and 640");
        insta::assert_snapshot!(words(SERVER, &CLIENT.replace("org/m", "org/n"), "NVIDIA H100", 640), @"model org/m and org/n");
        insta::assert_snapshot!(words(SERVER, &format!("{CLIENT} --ignore-eos"), "NVIDIA H100", 640), @"`--ignore-eos` not set and set");
        insta::assert_snapshot!(words(SERVER, CLIENT, "NVIDIA H100", 900), @"prompt tokens a request 64 and 90");
    }

    #[test]
    fn without_commands_only_what_both_results_hold_is_compared() {
        let base = case(SERVER, CLIENT, "NVIDIA H100", 640);
        let bare = CaseFiles { commands: Commands::default(), ..base.clone() };
        assert_eq!(difference(&base, &bare), None);
        let other = CaseFiles { text: bare.text.clone().map(|text| text.replace("org/m", "org/n")), ..bare };
        assert_eq!(difference(&base, &other).as_deref(), Some("model org/m and org/n"));
    }
}
