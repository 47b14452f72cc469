//! The history of a pull request, as GitHub tells it: labels, pushes and reviews.

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde::Deserialize;

use super::github::{Github, root};
use crate::ci::event::Person;
use crate::ci::label_trust::Step;
use crate::exit::Classify;
use crate::names::Commit;

/// The relations to a repository of those who may approve.
const MEMBERS: [&str; 3] = ["OWNER", "MEMBER", "COLLABORATOR"];

/// The labels that were set, and the pushes, oldest first. `head` is the commit at the head.
///
/// # Errors
/// GitHub's API fails (exit 4).
pub async fn steps(github: &Github, repository: &str, number: u64, head: &str) -> Result<Vec<Step>> {
    let issue = format!("{}/issues/{number}", root(repository)?);
    let events = match github.pages::<Entry>(&format!("{issue}/timeline")).await {
        Ok(events) => events,
        // Without the commits.
        Err(_) => {
            github.pages::<Entry>(&format!("{issue}/events")).await.context("cannot read who set the labels").world()?
        }
    };
    let mut steps: Vec<Step> = events.into_iter().filter_map(Entry::step).collect();
    if !steps.iter().any(|step| matches!(step, Step::Pushed { .. })) {
        steps.extend(dated(github, repository, head).await);
    }
    Ok(steps)
}

/// The reviews that approve a commit.
///
/// # Errors
/// GitHub's API fails (exit 4).
pub async fn approvals(github: &Github, repository: &str, number: u64) -> Result<Vec<Step>> {
    let path = format!("{}/pulls/{number}/reviews", root(repository)?);
    let reviews: Vec<Review> = github.pages(&path).await.context("cannot read the reviews").world()?;
    let approvals = reviews.into_iter().filter(|review| review.state == "APPROVED").filter_map(|review| {
        let is_member = review.author_association.is_some_and(|relation| MEMBERS.contains(&relation.as_str()));
        Some(Step::Approved { commit: review.commit_id?, by: review.user.map(Person::from), is_member })
    });
    Ok(approvals.collect())
}

async fn dated(github: &Github, repository: &str, head: &str) -> Option<Step> {
    let read = async {
        ensure!(Commit::is_hash(head), "`{head}` is not a commit hash");
        github.read::<Dated>(&format!("{}/commits/{head}", root(repository)?)).await
    };
    let at = read.await.ok()?.commit?.committer?.date?.parse().ok()?;
    Some(Step::Pushed { commit: Some(head.to_owned()), at })
}

#[derive(Deserialize)]
struct Entry {
    event: Option<String>,
    created_at: Option<String>,
    actor: Option<Account>,
    label: Option<Label>,
    sha: Option<String>,
    committer: Option<Signature>,
}

impl Entry {
    fn step(self) -> Option<Step> {
        let time = |text: Option<String>| text.and_then(|text| text.parse::<Timestamp>().ok());
        match self.event.as_deref()? {
            "labeled" => Some(Step::Labelled {
                label: self.label?.name,
                by: self.actor.map(Person::from),
                at: time(self.created_at)?,
            }),
            "committed" => Some(Step::Pushed { commit: Some(self.sha?), at: time(self.committer?.date)? }),
            "head_ref_force_pushed" => Some(Step::Pushed { commit: None, at: time(self.created_at)? }),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct Review {
    user: Option<Account>,
    state: String,
    commit_id: Option<String>,
    author_association: Option<String>,
}

#[derive(Deserialize)]
struct Account {
    login: String,
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl From<Account> for Person {
    fn from(account: Account) -> Self {
        Self { is_bot: account.kind.as_deref().is_some_and(|kind| kind != "User"), login: account.login }
    }
}

#[derive(Deserialize)]
struct Label {
    name: String,
}

#[derive(Deserialize)]
struct Dated {
    commit: Option<Signed>,
}

#[derive(Deserialize)]
struct Signed {
    committer: Option<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    date: Option<String>,
}
