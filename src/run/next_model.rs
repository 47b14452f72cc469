//! While a server starts nothing is measured: the files of the model that is served after it are read into memory then.

use vllm_verdict::side::Side;

use super::session::{Bench, is_instant, servers};
use crate::plan::suite::{Case, Command};
use crate::system::host::read_ahead::Reading;
use crate::system::model_folder;

impl Bench<'_> {
    /// Begins to read what the server after `server` needs; `None` where that is nothing, or not on this machine.
    pub fn read_ahead(&mut self, side: Side, server: &Command) -> Option<Reading> {
        if is_instant(&self.side(side)?.plan.target) {
            return None;
        }
        let folder = model_folder::folder(next_model(&self.plan.cases, server)?, self.environment)?;
        Some(Reading::begin(model_folder::files(&folder), &self.read))
    }

    /// Stops reading, before anything is measured.
    pub async fn end_reading(&mut self, reading: Option<Reading>) {
        if let Some(reading) = reading {
            self.read.extend(reading.end().await);
        }
    }
}

/// The model that is needed after `server`, where it is another one.
fn next_model<'a>(cases: &'a [Case], server: &Command) -> Option<&'a str> {
    let groups = servers(cases);
    let at = groups.iter().position(|(known, _)| *known == Some(server))?;
    let mut models = groups[at..].iter().filter_map(|(_, cases)| Some(cases.first()?.model.as_str()));
    let model = models.next()?;
    models.find(|next| *next != model)
}

#[cfg(test)]
mod tests {
    use vllm_verdict::case::{Kind, MeasuredBy};

    use super::*;

    fn case(model: &str, server: Option<&str>) -> Case {
        let command = |words: &[&str]| Command {
            argv: words.iter().map(|word| (*word).to_owned()).collect(),
            env: Default::default(),
        };
        Case {
            name: String::new(),
            kind: Kind::Serving,
            test: String::new(),
            model: model.to_owned(),
            request_rate: None,
            max_concurrency: None,
            server: server.map(|words| command(&["vllm", "serve", model, words])),
            client: command(&["vllm", "bench", "serve"]),
            measured_by: MeasuredBy::Native,
        }
    }

    #[test]
    fn the_next_model_is_another_one_that_is_needed_later() {
        // The second case of `a 1` comes late and shares the first server.
        let cases = [("a", "1"), ("a", "2"), ("b", "1"), ("a", "1")].map(|(model, words)| case(model, Some(words)));
        let mut cases = cases.to_vec();
        cases.push(case("c", None));
        let next = |at: usize| next_model(&cases, cases[at].server.as_ref().unwrap());
        assert_eq!([next(0), next(1), next(2), next(3)], [Some("b"), Some("b"), Some("c"), Some("b")]);
    }
}
