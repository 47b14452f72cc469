//! The choice of the client that measures each serving case.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use indexmap::IndexMap;
use vllm_load::prompts;
use vllm_verdict::case::MeasuredBy;
use vllm_verdict::number::plural;

use crate::command::planning_flags::Client;
use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::config::Config;
use crate::plan::serve_flags::DatasetName;
use crate::plan::suite::Case;
use crate::plan::target::Target;
use crate::plan::{Plan, serve_flags};
use crate::run::native_client;
use crate::system::data_sets::{DataSets, Whereabouts};

/// Why the native client cannot read a custom data set, by its path.
type Checked = HashMap<PathBuf, Option<String>>;

/// Sets the client of each serving case, the same on both sides: the native client if it knows all the flags and has the
/// model's tokenizer (the simulated server needs none).
///
/// # Errors
/// The user's mistake (exit 2): `--client native`, and a case that it cannot measure. Those of [`DataSets::of`].
pub fn choose(plan: &mut Plan, choice: Client, config: &Config, environment: &Environment) -> Result<()> {
    if !plan.trigger.run {
        return Ok(());
    }
    let places = DataSets::of(&plan.event, config, environment)?;
    let simulated = plan.sides.present().all(|(_, side)| matches!(side.target, Target::Sim(_)));
    // One file is the data set of many cases.
    let mut checked = Checked::new();
    for case in plan.cases.iter_mut().filter(|case| case.server.is_some()) {
        let native = check_native(case, simulated, environment, &places, &mut checked);
        let (client, reason) = match (choice, native) {
            (Client::Vllm, _) => (MeasuredBy::Vllm, Some("--client vllm".to_owned())),
            (Client::VllmRs, _) => (MeasuredBy::VllmRs, Some("--client vllm-rs".to_owned())),
            (Client::Auto, Err(error)) => (MeasuredBy::Vllm, Some(format!("{error:#}"))),
            (Client::Native | Client::Auto, Ok(())) => (MeasuredBy::Native, None),
            (Client::Native, Err(error)) => {
                let name = &case.name;
                let error = error.context(format!("the native client cannot measure `{name}`; use --client auto"));
                return Err(error).mistake();
            }
        };
        case.set_client(client, reason);
    }
    if choice == Client::Auto {
        plan.notices.extend(sentences(&plan.cases));
    }
    Ok(())
}

/// Most sentences about the clients in a report.
const SENTENCES: usize = 3;

/// For the reader of the report: how many cases vLLM's client measures, for each reason.
fn sentences(cases: &[Case]) -> Vec<String> {
    let mut reasons: IndexMap<&str, usize> = IndexMap::new();
    for reason in cases.iter().filter_map(|case| case.client_reason.as_deref()) {
        *reasons.entry(reason).or_default() += 1;
    }
    reasons.sort_by(|_, one, _, other| other.cmp(one));
    let mut sentences: Vec<String> = reasons
        .iter()
        .take(SENTENCES)
        .map(|(reason, count)| {
            let verb = if *count == 1 { "is" } else { "are" };
            format!("{} {verb} measured by `vllm bench serve`: {reason}.", plural(*count, "serving case"))
        })
        .collect();
    if reasons.len() > SENTENCES {
        sentences.push(format!("`plan.json` has {} more reasons for this client.", reasons.len() - SENTENCES));
    }
    sentences
}

/// Whether the native client can measure a case; the error is the reason why not.
fn check_native(
    case: &Case,
    simulated: bool,
    environment: &Environment,
    places: &DataSets<'_>,
    checked: &mut Checked,
) -> Result<()> {
    // The suite has parsed the flags before; to parse them again costs as much as the rest of the plan.
    if simulated && case.measured_by == MeasuredBy::Native {
        return Ok(());
    }
    let arguments = serve_flags::parse(case.client.argv.get(3..).unwrap_or_default())?;
    let tokenizer = arguments.model.tokenizer_id();
    ensure!(
        simulated || native_client::draw::find_tokenizer(tokenizer, environment).is_some(),
        "no tokenizer.json of `{tokenizer}` in its folder or in the Hugging Face cache (HF_HOME)"
    );
    if let Some(path) = &arguments.dataset.dataset_path {
        let is_custom = arguments.dataset.dataset_name == DatasetName::Custom;
        let file = match places.find(path) {
            Whereabouts::Here(file) => file,
            Whereabouts::OnHub(_) if !is_custom => return Ok(()),
            Whereabouts::OnHub(_) | Whereabouts::Unknown(_) => bail!("no file {} on this machine", path.display()),
        };
        if is_custom {
            let check = || prompts::check_custom(&file).err().map(|error| format!("{:#}", anyhow::Error::from(error)));
            let problem = checked.entry(path.clone()).or_insert_with(check);
            ensure!(problem.is_none(), "{}", problem.as_deref().unwrap_or_default());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::suite::Command;

    fn case(name: &str, flags: &str) -> Case {
        Case {
            name: name.to_owned(),
            model: "org/tiny".to_owned(),
            server: Some(Command::sample("")),
            measured_by: MeasuredBy::Vllm,
            ..Case::sample(&format!("vllm bench serve --model org/tiny {flags}"))
        }
    }

    fn reason(flags: &str) -> String {
        let (environment, config) = (Environment::default(), Config::default());
        let places = DataSets::sample(&config, &environment);
        let checked = check_native(&case("a", flags), false, &environment, &places, &mut Checked::new());
        format!("{:#}", checked.unwrap_err())
    }

    #[test]
    fn the_reason_for_vllms_client_names_what_is_missing() {
        insta::assert_snapshot!(reason(""), @"no tokenizer.json of `org/tiny` in its folder or in the Hugging Face cache (HF_HOME)");
        insta::assert_snapshot!(reason("--lora-modules a"), @"`--lora-modules` is a flag of `vllm bench serve` that the native client lacks");
        insta::assert_snapshot!(reason("--backend openai-audio"), @"`--backend openai-audio` is not supported by the native client: it has vllm, openai, openai-chat, openai-embeddings, vllm-pooling");
        let tokenizer = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-llama");
        let flags = format!("--tokenizer {tokenizer} --dataset-name sharegpt --dataset-path ./not-here.json");
        insta::assert_snapshot!(reason(&flags), @"no file ./not-here.json on this machine");
    }

    #[test]
    fn a_report_has_one_sentence_for_each_reason() {
        let with = |name: &str, reason: &str| Case { client_reason: Some(reason.to_owned()), ..case(name, "") };
        let mut cases = vec![case("native", ""), with("a", "one"), with("b", "two"), with("c", "two")];
        insta::assert_snapshot!(sentences(&cases).join("\n"), @r"
        2 serving cases are measured by `vllm bench serve`: two.
        1 serving case is measured by `vllm bench serve`: one.
        ");
        cases.extend(["three", "four", "five"].map(|reason| with("d", reason)));
        assert_eq!(sentences(&cases).len(), 4);
        insta::assert_snapshot!(sentences(&cases)[3], @"`plan.json` has 2 more reasons for this client.");
        assert_eq!(sentences(&cases[..1]), [""; 0]);
    }
}
