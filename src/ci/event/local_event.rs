//! The event of a local run.

use vllm_verdict::v1::{Event, LabelsSource, Provider};

use super::labels as valid;

/// The event of `--provider local`: no pull request, and the labels of `--label`, which restrict the devices.
/// `repository` is `owner/name`. An invalid label or repository is left out.
pub fn event(labels: &[String], repository: Option<&str>) -> Event {
    Event {
        provider: Provider::Local,
        name: "local".to_owned(),
        action: None,
        changed_label: None,
        repository: repository.and_then(super::repository),
        branch: None,
        head_sha: None,
        base_sha: None,
        base_branch: None,
        pull_request: None,
        labels: valid(labels.iter().map(String::as_str)),
        labels_source: LabelsSource::Flag,
        configuration: None,
        fork: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_labels_are_those_of_the_flags() {
        let event = event(&["perf-cpu".to_owned(), "`x`".to_owned()], Some("vllm-project/vllm"));
        assert_eq!(event.labels, ["perf-cpu"]);
        assert_eq!(event.repository.as_deref(), Some("vllm-project/vllm"));
        assert_eq!((event.provider, event.labels_source), (Provider::Local, LabelsSource::Flag));
    }
}
