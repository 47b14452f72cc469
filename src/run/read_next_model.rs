//! Reads the files of the next model into memory while a server starts, when nothing is measured.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::session::Session;
use super::side_run::SideRun;
use crate::plan::estimate::by_server;
use crate::plan::suite::{Case, Command};
use crate::system::host::read_ahead::Reading;
use crate::system::model_folder;

/// Begins to read the model of the server after `server`, without the files in `known`; `None` where there is no other
/// model, or its files are not on this machine.
pub fn begin(session: &Session<'_>, side: &SideRun, server: &Command, known: &BTreeSet<PathBuf>) -> Option<Reading> {
    if side.plan.target.is_instant() {
        return None;
    }
    let folder = model_folder::folder(next_model(&session.plan.cases, server)?, session.environment)?;
    Some(Reading::begin(model_folder::files(&folder), known))
}

/// The next model after that of `server`, if there is a different one.
fn next_model<'a>(cases: &'a [Case], server: &Command) -> Option<&'a str> {
    let groups = by_server(cases);
    let at = groups.iter().position(|(known, _)| *known == Some(server))?;
    let mut models = groups[at..].iter().filter_map(|(_, cases)| Some(cases.first()?.model.as_str()));
    let model = models.next()?;
    models.find(|next| *next != model)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(model: &str, server: Option<&str>) -> Case {
        Case {
            model: model.to_owned(),
            server: server.map(|words| Command::sample(&format!("vllm serve {model} {words}"))),
            ..Case::sample("vllm bench serve")
        }
    }

    #[test]
    fn the_next_model_is_a_different_one_that_is_needed_later() {
        // The second case of `a 1` comes last and shares the first server.
        let cases = [("a", "1"), ("a", "2"), ("b", "1"), ("a", "1")].map(|(model, words)| case(model, Some(words)));
        let mut cases = cases.to_vec();
        cases.push(case("c", None));
        let next = |at: usize| next_model(&cases, cases[at].server.as_ref().unwrap());
        assert_eq!([next(0), next(1), next(2), next(3)], [Some("b"), Some("b"), Some("c"), Some("b")]);
    }
}
