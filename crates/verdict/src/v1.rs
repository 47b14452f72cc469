//! `comparison/v1`: the structs of `comparison.json`. The schema is frozen: a field may be added with a default, but none
//! may be removed, renamed or given another meaning. Unknown fields, from newer minor versions, are ignored.

mod comparison;
mod conduct;
mod row;
mod subject;

pub use comparison::{CaseFacts, Comparison, Counts, Look, Method, Problem, SCHEMA, Skipped};
pub use conduct::{Conduct, ExpectedTime, Found, PhaseTime, ServerSlices, SideTime, TimeRange};
pub use row::{Failed, OverallRow, RepetitionValue, Row, Verdict};
pub use subject::{Device, DeviceName, Event, Host, LabelsSource, Provider, SideFacts, Subject};

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;

    /// A comparison in which every optional field has a value and every list an entry.
    fn filled() -> Comparison {
        serde_json::from_str(include_str!("../../../tests/data/comparison/filled.json")).unwrap()
    }

    /// The paths of all values below `value`, each with its type; a list contributes its first entry.
    fn paths(value: &Value, path: &str, out: &mut Vec<String>) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(key, value)| paths(value, &format!("{path}.{key}"), out)),
            Value::Array(entries) => paths(entries.first().unwrap(), &format!("{path}[]"), out),
            Value::String(_) => out.push(format!("{path}: string")),
            Value::Number(_) => out.push(format!("{path}: number")),
            Value::Bool(_) => out.push(format!("{path}: boolean")),
            Value::Null => panic!("{path} has no value, so its type is unknown"),
        }
    }

    #[test]
    fn the_keys_of_comparison_v1_are_frozen() {
        let mut found = Vec::new();
        paths(&serde_json::to_value(filled()).unwrap(), "", &mut found);
        insta::assert_snapshot!(found.join("\n"), @"
        .schema: string
        .verdict: string
        .counts.failing: number
        .counts.regressed: number
        .counts.improved: number
        .counts.unchanged: number
        .counts.inconclusive: number
        .counts.screened: number
        .counts.not_measured: number
        .subject.version: string
        .subject.event.provider: string
        .subject.event.name: string
        .subject.event.action: string
        .subject.event.changed_label: string
        .subject.event.repository: string
        .subject.event.branch: string
        .subject.event.head_sha: string
        .subject.event.base_sha: string
        .subject.event.base_branch: string
        .subject.event.pull_request: number
        .subject.event.labels[]: string
        .subject.event.labels_source: string
        .subject.event.configuration: string
        .subject.event.fork: boolean
        .subject.device.name: string
        .subject.device.type: string
        .subject.device.count: number
        .subject.device.image_suffix: string
        .subject.base.target: string
        .subject.base.commit: string
        .subject.base.image_digest: string
        .subject.base.vllm_version: string
        .subject.base.server_args[]: string
        .subject.base.dated: string
        .subject.head.target: string
        .subject.head.commit: string
        .subject.head.image_digest: string
        .subject.head.vllm_version: string
        .subject.head.server_args[]: string
        .subject.head.dated: string
        .subject.host.cpu: string
        .subject.host.cores: number
        .subject.host.memory_gib: number
        .subject.host.numa_nodes: number
        .subject.host.kernel: string
        .subject.host.governor: string
        .subject.started: string
        .subject.seconds: number
        .subject.reproduce: string
        .method.strategy: string
        .method.pairs: number
        .method.planned_pairs: number
        .method.seed: number
        .method.fdr: number
        .method.looks[].pairs: number
        .method.looks[].fdr: number
        .method.blocked: boolean
        .method.ratio: number
        .method.rho: number
        .cases[].name: string
        .cases[].kind: string
        .cases[].test: string
        .cases[].model: string
        .cases[].request_rate: string
        .cases[].max_concurrency: number
        .cases[].measured_by: string
        .cases[].problems[].side: string
        .cases[].problems[].repetition: number
        .cases[].problems[].reason: string
        .cases[].warnings[].side: string
        .cases[].warnings[].repetition: number
        .cases[].warnings[].reason: string
        .rows[].case: string
        .rows[].metric: string
        .rows[].label: string
        .rows[].unit: string
        .rows[].direction: string
        .rows[].min_effect: number
        .rows[].primary: boolean
        .rows[].calibrated: boolean
        .rows[].aa_pairs: number
        .rows[].s0: number
        .rows[].n0: number
        .rows[].look: number
        .rows[].base[]: number
        .rows[].head[]: number
        .rows[].failed.base: number
        .rows[].failed.head: number
        .rows[].estimate: number
        .rows[].deviation: number
        .rows[].freedom: number
        .rows[].low: number
        .rows[].high: number
        .rows[].p: number
        .rows[].q: number
        .rows[].detectable: number
        .rows[].needed: number
        .rows[].verdict: string
        .rows[].why: string
        .overall[].kind: string
        .overall[].metric: string
        .overall[].label: string
        .overall[].direction: string
        .overall[].min_effect: number
        .overall[].cases: number
        .overall[].estimate: number
        .overall[].deviation: number
        .overall[].freedom: number
        .overall[].low: number
        .overall[].high: number
        .overall[].p: number
        .overall[].q: number
        .overall[].detectable: number
        .overall[].needed: number
        .overall[].verdict: string
        .overall[].why: string
        .skipped[].name: string
        .skipped[].reason: string
        .conduct.strategy: string
        .conduct.held: string
        .conduct.screened[]: string
        .conduct.notices[]: string
        .conduct.phases[].phase: string
        .conduct.phases[].passes: number
        .conduct.phases[].seconds: number
        .conduct.spent[].side: string
        .conduct.spent[].server_start: number
        .conduct.spent[].client_start: number
        .conduct.spent[].measuring: number
        .conduct.spent[].other: number
        .conduct.searches[].side: string
        .conduct.searches[].test: string
        .conduct.searches[].request_rate: string
        .conduct.searches[].ttft_ms: number
        .conduct.searches[].tpot_ms: number
        .conduct.searches[].largest: number
        .conduct.searches[].first_fail: number
        .conduct.slices[].cases: number
        .conduct.slices[].slices: number
        .conduct.slices[].restart_seconds: number
        .conduct.slices[].slice_seconds: number
        ");
    }

    /// Adds an unknown field to every object.
    fn extended(value: Value) -> Value {
        match value {
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(key, value)| (key, extended(value)));
                let newer = ("field_of_a_newer_version".to_owned(), json!({"nested": [1, null, "x"]}));
                Value::Object(fields.chain([newer]).collect::<Map<_, _>>())
            }
            Value::Array(entries) => Value::Array(entries.into_iter().map(extended).collect()),
            other => other,
        }
    }

    #[test]
    fn unknown_fields_are_ignored_at_every_level() {
        let comparison = filled();
        let text = extended(serde_json::to_value(&comparison).unwrap()).to_string();
        assert!(text.matches("field_of_a_newer_version").count() > 20);
        assert_eq!(serde_json::from_str::<Comparison>(&text).unwrap(), comparison);
    }
}
