//! The files of one repetition, by case.

use std::collections::HashSet;

use anyhow::Context;
use indexmap::IndexMap;
use vllm_verdict::case::{Kind, MeasuredBy};
use vllm_verdict::repetition::{Outcome, Repetition};
use vllm_verdict::v1::CaseFacts;

use crate::result::case_commands::Commands;
use crate::result::result_document::Document;

/// The result files of one repetition.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Folder {
    /// By name of the case; sorted by name when read.
    pub cases: IndexMap<String, CaseFiles>,
}

/// The files of a case.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseFiles {
    pub kind: Kind,
    /// `<case>.json`; `None` where there is none.
    pub text: Option<String>,
    /// `<case>.commands`; empty where there is none.
    pub commands: Commands,
    pub outcome: Outcome,
}

impl CaseFiles {
    /// The client that wrote the result of a serving case, where there is one.
    pub fn client(&self) -> Option<MeasuredBy> {
        client(self.kind, self.text.as_deref()?)
    }
}

/// The client that wrote a result of serving.
pub fn client(kind: Kind, text: &str) -> Option<MeasuredBy> {
    match Document::read(kind, text).ok()? {
        Document::Serving(serving) => Some(serving.measured_by()),
        _ => None,
    }
}

impl Folder {
    /// The outcome of every case.
    pub fn repetition(&self) -> Repetition {
        self.cases.iter().map(|(name, case)| (name.clone(), case.outcome.clone())).collect()
    }

    /// The files of a folder that holds these cases: name and text.
    pub fn files(&self) -> anyhow::Result<Vec<(String, String)>> {
        let mut files = Vec::new();
        for (name, case) in &self.cases {
            files.extend(case.text.iter().map(|text| (format!("{name}.json"), text.clone())));
            let commands = serde_json::to_string_pretty(&case.commands)
                .with_context(|| format!("cannot write the commands of `{name}`"))?;
            files.push((format!("{name}.commands"), commands));
        }
        Ok(files)
    }
}

/// The facts of the cases of several folders, without duplicates: by kind and test, then by request rate and concurrency
/// as numbers. The client is the one that wrote the first result of a case.
pub fn facts<'a>(folders: impl IntoIterator<Item = &'a Folder>) -> Vec<CaseFacts> {
    let mut facts: IndexMap<&str, CaseFacts> = IndexMap::new();
    let mut clients = HashSet::new();
    for (name, case) in folders.into_iter().flat_map(|folder| &folder.cases) {
        let known = facts.entry(name).or_insert_with(|| CaseFacts::named(name, case.kind));
        if known.model.raw().is_empty() {
            known.model = model(case).unwrap_or_default().into();
        }
        if let Some(client) = case.client().filter(|_| clients.insert(name)) {
            known.measured_by = client;
        }
    }
    let mut facts: Vec<CaseFacts> = facts.into_values().collect();
    facts.sort_by(|a, b| {
        let rate =
            |facts: &CaseFacts| facts.request_rate.as_ref().map_or(0.0, |rate| rate.raw().parse().unwrap_or(0.0));
        (a.kind as u8, &a.test)
            .cmp(&(b.kind as u8, &b.test))
            .then(f64::total_cmp(&rate(a), &rate(b)))
            .then(a.max_concurrency.cmp(&b.max_concurrency))
            .then(a.name.cmp(&b.name))
    });
    facts
}

fn model(case: &CaseFiles) -> Option<String> {
    case.commands.model().or_else(|| {
        let document = Document::read(case.kind, case.text.as_deref()?).ok()?;
        document.model().map(str::to_owned)
    })
}

/// The kind that a case's name begins with, or that of a run; `None` for the other files of a folder.
pub(crate) fn kind_of(case: &str) -> Option<Kind> {
    if case.ends_with(".pytorch") || case.ends_with("_sla_summary") || case.starts_with("bench-") {
        return None;
    }
    let named =
        Kind::ALL.into_iter().find(|kind| case.strip_prefix(kind.as_str()).is_some_and(|rest| rest.starts_with('_')));
    named.or_else(|| is_run(case).then_some(Kind::Serving))
}

/// Whether a name is that of a run of perf-eval: `<config>-conc-<concurrency>`.
pub(crate) fn is_run(name: &str) -> bool {
    let concurrency = name.rsplit_once("-conc-").filter(|(config, _)| !config.is_empty());
    concurrency.is_some_and(|(_, number)| number.parse::<u64>().is_ok())
}
