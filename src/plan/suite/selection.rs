//! The selection of tests and cases: upstream's variables, and `--only`.

use std::str::FromStr;

use anyhow::{anyhow, ensure};
use regex::Regex;

use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::suite::parameters;
use crate::plan::suite::suite_case::Case;
use crate::plan::suite::test_file::Test;

/// What to keep of a suite, and how many prompts each case sends.
#[derive(Debug, Clone)]
pub struct Selection {
    /// `--only`: keeps cases whose name it matches anywhere.
    pub only: Option<Regex>,
    /// `TEST_SELECTOR`: keeps tests whose name it matches anywhere.
    pub test_selector: Option<Regex>,
    /// `MODEL_FILTER`: keeps tests of exactly this model.
    pub model_filter: Option<String>,
    /// `DTYPE_FILTER`: keeps tests that name exactly this dtype.
    pub dtype_filter: Option<String>,
    /// `PROMPTS_PER_CONCURRENCY`: prompts of a case are its concurrency times this, instead of the file's number.
    pub prompts_per_concurrency: Option<u64>,
    /// `MIN_NUM_PROMPTS`: at least this many then.
    pub min_num_prompts: u64,
    /// `MAX_NUM_PROMPTS`: at most this many then.
    pub max_num_prompts: u64,
    /// `REMOTE_HOST`: the server that the client talks to.
    pub remote_host: Option<String>,
    /// `REMOTE_PORT`: its port.
    pub remote_port: Option<u16>,
    /// Whether the server runs on another machine, so that the device count of this one does not matter. True with
    /// `REMOTE_HOST`; the caller sets it for a `remote:` target.
    pub remote: bool,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            only: None,
            test_selector: None,
            model_filter: None,
            dtype_filter: None,
            prompts_per_concurrency: None,
            min_num_prompts: 1,
            max_num_prompts: 1_000_000,
            remote_host: None,
            remote_port: None,
            remote: false,
        }
    }
}

impl Selection {
    /// Upstream's variables in `env`, and `--only`.
    ///
    /// # Errors
    /// The user's mistake (exit 2): not a regular expression, not a number; the text names the variable.
    pub fn read(env: &Environment, only: Option<&str>) -> anyhow::Result<Self> {
        Self::from_variables(env, only).mistake()
    }

    fn from_variables(env: &Environment, only: Option<&str>) -> anyhow::Result<Self> {
        let default = Self::default();
        let text = |name| env.get(name).map(str::to_owned);
        Ok(Self {
            only: only.map(|pattern| regex("--only", pattern)).transpose()?,
            test_selector: env.get("TEST_SELECTOR").map(|pattern| regex("TEST_SELECTOR", pattern)).transpose()?,
            model_filter: text("MODEL_FILTER"),
            dtype_filter: text("DTYPE_FILTER"),
            prompts_per_concurrency: number(env, "PROMPTS_PER_CONCURRENCY")?,
            min_num_prompts: number(env, "MIN_NUM_PROMPTS")?.unwrap_or(default.min_num_prompts),
            max_num_prompts: number(env, "MAX_NUM_PROMPTS")?.unwrap_or(default.max_num_prompts),
            remote_host: text("REMOTE_HOST"),
            remote_port: number(env, "REMOTE_PORT")?,
            remote: env.get("REMOTE_HOST").is_some(),
        })
    }

    /// Why a test of which only the name is known is left out. `--only` is for the names of cases, which begin with that of
    /// their test: a pattern for their end keeps no test that has no cases.
    pub(super) fn reason_to_skip_name(&self, name: &str) -> Option<String> {
        let only = self.only.as_ref().filter(|only| !only.is_match(name));
        self.unselected(name).or_else(|| only.map(|only| format!("does not match --only `{only}`")))
    }

    /// Why `TEST_SELECTOR` leaves out a test of this name.
    pub(super) fn unselected(&self, name: &str) -> Option<String> {
        let selector = self.test_selector.as_ref().filter(|selector| !selector.is_match(name))?;
        Some(format!("does not match TEST_SELECTOR `{selector}`"))
    }

    /// Why the variables leave this test out; `None` where they keep it.
    pub(super) fn reason_to_skip(&self, test: &Test) -> Option<String> {
        if let Some(reason) = self.unselected(&test.name) {
            return Some(reason);
        }
        let client = test.load.as_ref().map(|load| parameters::text(&load.client, "model"));
        self.other_model(&[&test.model, &client.unwrap_or_default()], &parameters::text(&test.parameters, "dtype"))
    }

    /// Why the variables leave out a test of these models, the server's first, and this dtype.
    pub(super) fn other_model(&self, models: &[&str], dtype: &str) -> Option<String> {
        if let Some(wanted) = self.model_filter.as_deref().filter(|wanted| !models.contains(wanted)) {
            let model = models.first().copied().unwrap_or_default();
            return Some(format!("its model `{model}` is not MODEL_FILTER `{wanted}`"));
        }
        let wanted = self.dtype_filter.as_ref().filter(|wanted| *wanted != dtype)?;
        Some(format!("its dtype `{dtype}` is not DTYPE_FILTER `{wanted}`"))
    }

    /// Keeps the cases of a test whose names match `--only`; why others are left out.
    pub(super) fn keep(&self, cases: &mut Vec<Case>) -> Option<String> {
        let only = self.only.as_ref()?;
        let all = cases.len();
        cases.retain(|case| only.is_match(&case.name));
        match all - cases.len() {
            0 => None,
            out if out == all => Some(format!("no case of it matches --only `{only}`")),
            out => Some(format!("{out} of its {all} cases do not match --only `{only}`")),
        }
    }

    /// `--num-prompts` of a case, where it follows from the concurrency.
    pub(crate) fn num_prompts(&self, concurrency: u64) -> Option<u64> {
        let prompts = concurrency.saturating_mul(self.prompts_per_concurrency?);
        Some(prompts.max(self.min_num_prompts).min(self.max_num_prompts))
    }

    /// The words that send the client to the remote server.
    pub(super) fn remote_words(&self) -> impl Iterator<Item = String> {
        let host = self.remote_host.as_ref().map(|host| format!("--host={host}"));
        let port = self.remote_port.filter(|_| host.is_some()).map(|port| format!("--port={port}"));
        host.into_iter().chain(port)
    }
}

fn regex(name: &str, pattern: &str) -> anyhow::Result<Regex> {
    Regex::new(pattern).map_err(|error| {
        // The last line has the cause; the lines before it draw the pattern.
        let text = error.to_string();
        let cause = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
        anyhow!("{name} `{pattern}` is not a regular expression: {cause}")
    })
}

fn number<T: FromStr + Default + PartialEq>(env: &Environment, name: &str) -> anyhow::Result<Option<T>> {
    let Some(text) = env.get(name) else { return Ok(None) };
    let number = text.parse().ok().filter(|number| *number != T::default());
    ensure!(number.is_some(), "{name} must be a whole number from 1, not `{text}`");
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{self, Exit};

    fn selection(variables: &[(&str, &str)]) -> anyhow::Result<Selection> {
        Selection::read(&variables.iter().copied().collect(), None)
    }

    #[test]
    fn the_number_of_prompts_follows_the_concurrency_within_both_bounds() {
        let bounds = [("PROMPTS_PER_CONCURRENCY", "5"), ("MIN_NUM_PROMPTS", "20"), ("MAX_NUM_PROMPTS", "100")];
        let bounded = selection(&bounds).unwrap();
        assert_eq!([1, 8, 64].map(|concurrency| bounded.num_prompts(concurrency)), [Some(20), Some(40), Some(100)]);
        assert_eq!(selection(&[]).unwrap().num_prompts(8), None);
    }

    #[test]
    fn a_port_without_a_host_is_ignored_as_upstream_does() {
        let words = |variables: &[_]| selection(variables).unwrap().remote_words().collect::<Vec<_>>();
        assert_eq!(words(&[("REMOTE_HOST", "gpu1"), ("REMOTE_PORT", "9000")]), ["--host=gpu1", "--port=9000"]);
        assert_eq!(words(&[("REMOTE_PORT", "9000")]), Vec::<String>::new());
    }

    #[test]
    fn a_bad_variable_is_a_mistake_that_names_it() {
        for (name, value, expected) in [
            ("TEST_SELECTOR", "a(", "TEST_SELECTOR `a(` is not a regular expression: unclosed group"),
            ("PROMPTS_PER_CONCURRENCY", "0", "PROMPTS_PER_CONCURRENCY must be a whole number from 1, not `0`"),
            ("MAX_NUM_PROMPTS", "many", "MAX_NUM_PROMPTS must be a whole number from 1, not `many`"),
            ("REMOTE_PORT", "70000", "REMOTE_PORT must be a whole number from 1, not `70000`"),
        ] {
            let error = selection(&[(name, value)]).unwrap_err();
            assert_eq!((error.to_string().as_str(), exit::of(&error)), (expected, Exit::Mistake));
        }
    }
}
