//! `records` in the config file: which results become dashboard records, and where those go.

use serde_json::json;
use url::Url;

use super::record_rules::{BENCHMARK, BRANCH_FORMS, Choice, KeyCase, Rules, Spelling, unshown};
use super::scalar::{SHARE, Scalar, Schema, not, one_of, valid};
use super::section::{Section, Walk};
use super::value_kinds::Optional;
use crate::names;

#[derive(Debug, Clone, PartialEq)]
pub struct RecordsConfig {
    /// The name that the dashboard's pages select records by.
    pub benchmark: String,
    pub spelling: Spelling,
    pub rules: Rules,
    pub build_number_offset: Option<u64>,
    pub uploader: Option<String>,
    /// Endpoint of perf-eval's rows.
    pub rows: Option<String>,
}

impl Default for RecordsConfig {
    fn default() -> Self {
        let (spelling, rules) = (Spelling::default(), Rules::default());
        Self { benchmark: BENCHMARK.to_owned(), spelling, rules, build_number_offset: None, uploader: None, rows: None }
    }
}

impl Section for RecordsConfig {
    fn keys(&mut self, walk: &mut impl Walk) {
        walk.key(
            "benchmark",
            "Name of the benchmark in every record; the dashboard's pages select records by it.",
            &mut self.benchmark,
            BENCHMARK_NAME,
        );
        walk.key(
            "branch",
            "How records spell a branch, with `{branch}` for its name. The daily workflow of PyTorch writes `{branch}(refs/heads/{branch})`.",
            &mut self.spelling.branch,
            BRANCH,
        );
        walk.key(
            "model_key",
            "The letters of a model in the key of its object: `kept` as they are, or `lower` as the daily workflow of PyTorch has them.",
            &mut self.spelling.model_key,
            MODEL_KEY,
        );
        walk.key(
            "collision",
            "Of the cases of a test that the dashboard cannot distinguish, the one that is published: that at the highest or the lowest concurrency. Of several such tests, it is one with the shortest name.",
            &mut self.rules.collision,
            COLLISION,
        );
        walk.key(
            "failed_share",
            "Largest share of failed requests of a case that has records; by default none may fail.",
            &mut self.rules.failed_share,
            SHARE,
        );
        walk.key(
            "build_number_offset",
            "On Buildkite, added to the number of the build to make the number of the run, which orders the dashboard.",
            &mut self.build_number_offset,
            Optional { value: NUMBER, none: "none" },
        );
        walk.key(
            "uploader",
            "API that takes records in place of the store. VLLM_PERF_UPLOADER_USERNAME and VLLM_PERF_UPLOADER_PASSWORD are its credentials.",
            &mut self.uploader,
            Optional { value: UPLOADER, none: "none" },
        );
        walk.key(
            "rows",
            "Endpoint that takes a row of perf-eval's dashboard for each serving case of main. VLLM_PERF_ROWS_TOKEN is its token.",
            &mut self.rows,
            Optional { value: ROWS, none: "none" },
        );
    }
}

const BENCHMARK_NAME: Scalar<String> = Scalar::text("a name", r#"^[^;+<>"\\\x00-\x1f]{1,200}$"#, |text| {
    let shown = !text.trim().is_empty() && text.chars().count() <= 200 && unshown(text).is_none();
    valid(
        shown,
        text,
        "the name of a benchmark: expected 1 to 200 characters without `;`, `+`, `<`, `>`, `\"` and `\\`",
    )
});

const BRANCH: Scalar<&str> = Scalar {
    expecting: "a form of a branch",
    numbers: false,
    schema: Schema::OneOf(|| BRANCH_FORMS.to_vec()),
    read: |text| one_of(text, "a form of a branch", &BRANCH_FORMS, |form| form),
    show: |form| (*form).to_owned(),
};

const MODEL_KEY: Scalar<KeyCase> = Scalar {
    expecting: "`kept` or `lower`",
    numbers: false,
    schema: Schema::OneOf(|| KEY_CASES.map(KeyCase::as_str).to_vec()),
    read: |text| one_of(text, "a choice of letters", &KEY_CASES, KeyCase::as_str),
    show: |case| case.as_str().to_owned(),
};

const KEY_CASES: [KeyCase; 2] = [KeyCase::Kept, KeyCase::Lower];

const COLLISION: Scalar<Choice> = Scalar {
    expecting: "`highest` or `lowest`",
    numbers: false,
    schema: Schema::OneOf(|| CHOICES.map(Choice::as_str).to_vec()),
    read: |text| one_of(text, "a choice of concurrency", &CHOICES, Choice::as_str),
    show: |choice| choice.as_str().to_owned(),
};

const CHOICES: [Choice; 2] = [Choice::Highest, Choice::Lowest];

const NUMBER: Scalar<u64> = Scalar {
    expecting: "a whole number",
    numbers: true,
    schema: Schema::Other(|| json!({"type": "integer", "minimum": 0})),
    read: |text| text.parse().map_err(|_| not(text, "a whole number")),
    show: u64::to_string,
};

const UPLOADER: Scalar<String> =
    Scalar::text("a URL", r"^(https://|http://(localhost|127\.0\.0\.1|\[::1\])[:/]).+$", |text| {
        valid(is_url(text), text, "an upload API: expected `https://HOST/PATH`, without a password in it")
    });

const ROWS: Scalar<String> =
    Scalar::text("a URL", r"^(https://|http://(localhost|127\.0\.0\.1|\[::1\])[:/]).+$", |text| {
        valid(is_url(text), text, "an endpoint of rows: expected `https://HOST/PATH`, without a password in it")
    });

/// Whether a password may be sent to a URL.
pub fn is_url(url: &str) -> bool {
    names::is_safe(url).is_ok()
        && Url::parse(url)
            .is_ok_and(|url| url.username().is_empty() && url.password().is_none() && url.fragment().is_none())
}
