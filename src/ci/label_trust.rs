//! Whether a person allowed the commit of a pull request to run, as opposed to an earlier commit of it: a label counts if it
//! was set after the last push, by a person who is not the author. Pure: `system/github_history.rs` asks GitHub.

use jiff::Timestamp;
use vllm_verdict::v1::Event;

use super::event::{Person, Proposal};

/// What happened to a pull request, by GitHub's clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A label was set.
    Labelled { label: String, by: Option<Person>, at: Timestamp },
    /// A commit was pushed, or the head was moved to one. The time of a commit is its author's word.
    Pushed { commit: Option<String>, at: Timestamp },
    /// A review of a commit.
    Approved { commit: String, by: Option<Person>, is_member: bool },
}

/// The label that allows the commit of the event by the event itself: it was just set, while this commit was the head.
pub fn by_event<'a>(event: &'a Event, proposal: &Proposal, labels: &[&str]) -> Option<&'a str> {
    let label = event.changed_label.as_deref().filter(|_| event.action.as_deref() == Some("labeled"))?;
    let trusted = labels.contains(&label) && event.labels.iter().any(|has| has == label);
    (trusted && is_another(proposal.sender.as_ref(), proposal.author.as_deref())).then_some(label)
}

/// The label that allows the commit of the event by the history of the pull request.
///
/// # Errors
/// A sentence on why no label counts.
pub fn by_history<'a>(
    event: &Event,
    proposal: &Proposal,
    author: Option<&str>,
    steps: &'a [Step],
    labels: &[&str],
) -> Result<&'a str, String> {
    let head = event.head_sha.as_deref();
    let pushes = steps.iter().filter_map(|step| match step {
        // The head was moved: to which commit is not always known.
        Step::Pushed { commit, at } if commit.is_none() || commit.as_deref() == head => Some(*at),
        _ => None,
    });
    // The event itself is later than the push that it is about, by GitHub's clock, which nobody else sets.
    let Some(pushed) = pushes.chain(proposal.at).max() else {
        return Err("it is not known when its head was pushed".to_owned());
    };
    let mut found = Err("no label of it counts".to_owned());
    for label in labels.iter().filter(|label| event.labels.iter().any(|has| has == *label)) {
        let set = steps.iter().rev().find_map(|step| match step {
            Step::Labelled { label: set, by, at } if set == label => Some((set.as_str(), by.as_ref(), *at)),
            _ => None,
        });
        found = match set {
            Some((set, by, at)) if at > pushed && is_another(by, author) => return Ok(set),
            Some((_, _, at)) if at <= pushed => Err(format!("the label `{label}` was set before the last push")),
            Some(_) => Err(format!("the label `{label}` was not set by a person other than the author")),
            None => Err(format!("it is not known who set the label `{label}`")),
        };
    }
    found
}

/// Whether a member other than the author approved the commit of the event.
pub fn is_approved(event: &Event, author: Option<&str>, steps: &[Step]) -> bool {
    steps.iter().any(|step| match step {
        Step::Approved { commit, by, is_member } => {
            *is_member && event.head_sha.as_ref() == Some(commit) && is_another(by.as_ref(), author)
        }
        _ => false,
    })
}

/// Whether it is a person, and known not to be the author. A program may set labels because of what the author wrote.
fn is_another(person: Option<&Person>, author: Option<&str>) -> bool {
    person.zip(author).is_some_and(|(person, author)| !person.is_bot && !person.login.eq_ignore_ascii_case(author))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ci::event::github_event;
    use crate::environment::Environment;

    const LABELS: [&str; 2] = ["perf-benchmarks", "ready"];
    const AUTHOR: Option<&str> = Some("Codertocat");

    fn person(login: &str) -> Option<Person> {
        Some(Person { login: login.to_owned(), is_bot: login.ends_with("[bot]") })
    }

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + 60 * minute).unwrap()
    }

    /// GitHub's example of a labeled pull request, with these labels, of which `ready` was just set.
    fn labelled() -> (Event, Proposal) {
        let text = include_str!("../../tests/data/github/events/pull_request.labeled.json");
        let mut payload: serde_json::Value = serde_json::from_str(text).unwrap();
        payload["pull_request"]["labels"] = LABELS.iter().map(|name| serde_json::json!({"name": name})).collect();
        payload["label"]["name"] = "ready".into();
        payload["sender"]["login"] = "maintainer".into();
        let (event, run) = github_event::parse("pull_request", &payload.to_string(), &Environment::default()).unwrap();
        (event, run.proposal)
    }

    #[test]
    fn a_label_that_another_person_just_set_allows_the_commit() {
        let (event, proposal) = labelled();
        assert_eq!(proposal.author.as_deref(), AUTHOR);
        assert_eq!(by_event(&event, &proposal, &LABELS), Some("ready"));
    }

    #[test]
    fn a_label_of_the_author_of_a_bot_or_of_nobody_known_allows_nothing() {
        let (event, proposal) = labelled();
        for sender in [person("Codertocat"), person("CODERTOCAT"), person("labeler[bot]"), None] {
            assert_eq!(by_event(&event, &Proposal { sender, ..proposal.clone() }, &LABELS), None);
        }
        assert_eq!(by_event(&event, &Proposal { author: None, ..proposal.clone() }, &LABELS), None);
        assert_eq!(by_event(&event, &proposal, &["perf-benchmarks"]), None, "another label was set");
        let pushed = Event { action: Some("synchronize".to_owned()), ..event.clone() };
        assert_eq!(by_event(&pushed, &proposal, &LABELS), None, "a push does not set labels");
        let removed = Event { labels: vec!["perf-benchmarks".to_owned()], ..event };
        assert_eq!(by_event(&removed, &proposal, &LABELS), None, "it was removed since");
    }

    fn history(pushed: Option<i64>, steps: &[Step]) -> Result<String, String> {
        let (event, _) = labelled();
        let proposal = Proposal { at: pushed.map(at), ..Proposal::default() };
        by_history(&event, &proposal, AUTHOR, steps, &LABELS).map(str::to_owned)
    }

    fn set(label: &str, by: &str, minute: i64) -> Step {
        Step::Labelled { label: label.to_owned(), by: person(by), at: at(minute) }
    }

    fn push(minute: i64) -> Step {
        Step::Pushed { commit: labelled().0.head_sha, at: at(minute) }
    }

    #[test]
    fn a_label_counts_after_the_last_push_and_from_another_person_alone() {
        let ready = |by, minute| set("ready", by, minute);
        assert_eq!(history(Some(5), &[ready("maintainer", 6)]), Ok("ready".to_owned()));
        assert_eq!(history(None, &[push(5), ready("maintainer", 6)]), Ok("ready".to_owned()));
        let stale = "the label `ready` was set before the last push";
        let own = "the label `ready` was not set by a person other than the author";
        for (pushed, steps, why) in [
            (Some(5), vec![ready("maintainer", 4)], stale),
            (Some(5), vec![ready("maintainer", 5)], stale),
            (Some(5), vec![push(1), ready("maintainer", 3)], stale),
            (None, vec![ready("maintainer", 4), push(5)], stale),
            (Some(1), vec![ready("maintainer", 4), Step::Pushed { commit: None, at: at(5) }], stale),
            (Some(5), vec![ready("codertocat", 6)], own),
            (Some(5), vec![ready("labeler[bot]", 6)], own),
            (Some(5), vec![ready("maintainer", 6), ready("Codertocat", 7)], own),
            (Some(5), vec![set("bug", "maintainer", 6)], "it is not known who set the label `ready`"),
            (None, vec![ready("maintainer", 6)], "it is not known when its head was pushed"),
        ] {
            assert_eq!(history(pushed, &steps), Err(why.to_owned()));
        }
    }

    #[test]
    fn a_commit_with_an_old_date_does_not_make_its_push_older() {
        let steps = [push(1), set("ready", "maintainer", 3)];
        assert!(history(Some(5), &steps).is_err(), "GitHub's clock says 5");
    }

    #[test]
    fn a_review_approves_its_commit_alone_and_only_of_a_member_who_is_not_the_author() {
        let (event, _) = labelled();
        let head = event.head_sha.clone().unwrap();
        let approved = |commit: &str, by: &str, is_member| {
            is_approved(&event, AUTHOR, &[Step::Approved { commit: commit.to_owned(), by: person(by), is_member }])
        };
        assert!(approved(&head, "maintainer", true));
        assert!(!approved(&"1".repeat(40), "maintainer", true) && !approved(&head, "stranger", false));
        assert!(!approved(&head, "Codertocat", true) && !approved(&head, "approver[bot]", true));
    }
}
