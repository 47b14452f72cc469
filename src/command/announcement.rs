//! The note on the comment of an earlier run that a new run is in progress.

use std::time::Duration;

use anyhow::Result;

use crate::ci::event::CiRun;
use crate::command::event_flags::EventArgs;
use crate::plan::Plan;
use crate::publish;
use crate::publish::comment;
use crate::report::markdown;
use crate::system::github::Github;
use crate::system::shell::Shell;

/// The comment of an earlier run, with the note on it.
pub(super) struct Announcement {
    github: Github,
    repository: String,
    number: u64,
    id: String,
    before: String,
    announced: String,
}

impl Announcement {
    /// The note on the comment of an earlier run, if there is one. It is not there before [`Self::put`]. A failure is printed
    /// and does not stop the run.
    pub(super) async fn make(event_flags: &EventArgs, ci: &CiRun, plan: &Plan, shell: &Shell) -> Option<Self> {
        let event = &plan.event;
        let (Some(repository), Some(number), false) = (event.repository.clone(), event.pull_request, event.fork) else {
            return None;
        };
        let made = async {
            let Some(github) = event_flags.github(ci, &shell.environment)? else {
                return Ok(None);
            };
            let id = publish::comment_id(ci, Some(&plan.device), Some(event));
            let Some(before) = comment::existing(&github, &repository, number, &id).await? else { return Ok(None) };
            let announced = markdown::in_progress(&before, ci.run_url.as_deref());
            Ok(Some(Self { github, repository, number, id, before, announced }))
        };
        let made: Result<Option<Self>> = made.await;
        made.unwrap_or_else(|error| {
            refused(&error, shell);
            None
        })
    }

    /// Adds the note. A failure is printed and does not stop the run.
    pub(super) async fn put(&self, shell: &Shell) {
        let put = comment::stick(&self.github, &self.repository, self.number, &self.id, &self.announced).await;
        if let Err(error) = put {
            refused(&error, shell);
        }
    }

    /// Restores the comment, where no report will replace it and nobody has changed it. CI leaves an interrupted run little
    /// time.
    pub(super) async fn take_back(self) {
        let texts = [self.announced.as_str(), &self.before];
        let restored = comment::replace(&self.github, &self.repository, self.number, &self.id, texts);
        let _ = tokio::time::timeout(Duration::from_secs(3), restored).await;
    }
}

fn refused(error: &anyhow::Error, shell: &Shell) {
    shell.say(&format!("cannot announce on the pull request that a run is in progress: {error:#}"));
}
