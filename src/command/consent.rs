//! Whether the code of a pull request may run here, for the pull requests where the settings ask for more than labels.

use vllm_verdict::v1::Event;

use crate::ci::event::Proposal;
use crate::ci::label_trust::{self, Step};
use crate::plan::config::{Config, Forks};
use crate::system::github::Github;
use crate::system::github_history;

/// The answer to the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consent {
    Given,
    /// Why not, as the reason of a skip.
    Refused(String),
    /// Nobody can tell; why, as the reason of a skip.
    Unknown(String),
}

/// Asks the event and, where that does not tell, GitHub.
pub async fn consent(event: &Event, proposal: &Proposal, config: &Config, github: Option<&Github>) -> Consent {
    let trigger = &config.trigger;
    if event.name != "pull_request" {
        return Consent::Given;
    }
    let mut asked = Asked { event, proposal, github, author: None };
    if event.fork && trigger.forks == Forks::Never {
        return Consent::Refused(
            "pull requests from forks are not benchmarked (`trigger.forks: never`). Push the branch to this repository to run it."
                .to_owned(),
        );
    }
    if event.fork && trigger.forks == Forks::Approved {
        return asked.approval().await;
    }
    if trigger.labels.is_empty() || !trigger.require_label_after_push.unwrap_or(event.fork) {
        return Consent::Given;
    }
    let devices = config.devices.values().filter_map(|device| device.label.as_deref());
    let labels: Vec<&str> = trigger.labels.iter().map(String::as_str).chain(devices).collect();
    asked.label(&labels).await
}

struct Asked<'a> {
    event: &'a Event,
    proposal: &'a Proposal,
    github: Option<&'a Github>,
    author: Option<String>,
}

impl Asked<'_> {
    async fn label(&mut self, labels: &[&str]) -> Consent {
        if label_trust::by_event(self.event, self.proposal, labels).is_some() {
            return Consent::Given;
        }
        let again = "Remove a label and set it again to run this commit.";
        let unknown = |why: &str| {
            Consent::Unknown(format!("a label counts only for the commit that it was set on, and {why}. {again}"))
        };
        let steps = match self.history().await {
            Ok(steps) => steps,
            Err(why) => return unknown(&why),
        };
        match label_trust::by_history(self.event, self.proposal, self.author.as_deref(), &steps, labels) {
            Ok(_) => Consent::Given,
            Err(why) => {
                Consent::Refused(format!("a label counts only for the commit that it was set on, and {why}. {again}"))
            }
        }
    }

    async fn approval(&mut self) -> Consent {
        let needed = "this commit has no approving review of a member (`trigger.forks: approved`)";
        let Some((github, repository, number, _)) = self.place() else {
            return Consent::Refused(format!("{needed}, as far as is known without a token."));
        };
        let steps = github_history::approvals(github, repository, number).await;
        self.learn_author().await;
        match steps {
            Ok(steps) if label_trust::is_approved(self.event, self.author.as_deref(), &steps) => Consent::Given,
            Ok(_) => Consent::Refused(format!("{needed}. Approve it, and run the job again.")),
            Err(error) => Consent::Refused(format!("{needed}, as far as is known: {error:#}.")),
        }
    }

    async fn history(&mut self) -> Result<Vec<Step>, String> {
        let (github, repository, number, head) =
            self.place().ok_or("without a token it is not known who set the labels, and when")?;
        let steps = github_history::steps(github, repository, number, head).await;
        self.learn_author().await;
        steps.map_err(|error| format!("it is not known who set the labels ({error:#})"))
    }

    /// The author, by the event or else by the API.
    async fn learn_author(&mut self) {
        self.author.clone_from(&self.proposal.author);
        if let (None, Some((github, repository, number, _))) = (&self.author, self.place()) {
            self.author = github.pull_request(repository, number).await.ok().and_then(|pull| pull.author);
        }
    }

    fn place(&self) -> Option<(&Github, &str, u64, &str)> {
        let event = self.event;
        Some((self.github?, event.repository.as_deref()?, event.pull_request?, event.head_sha.as_deref()?))
    }
}
