//! The matrix for `strategy.matrix: ${{ fromJSON(...) }}` of a GitHub workflow. Pure.

use anyhow::{Context, ensure};
use serde::Serialize;

use super::Pair;
use crate::exit::Classify;

/// Jobs that a matrix of GitHub's may have.
const LIMIT: usize = 256;

#[derive(Serialize)]
struct Matrix<'a> {
    include: &'a [Pair],
}

/// One line: `{"include":[{"runner":...,"device":...,"model":...}]}`.
///
/// # Errors
/// The user's mistake: more jobs than GitHub takes.
pub fn text(pairs: &[Pair]) -> anyhow::Result<String> {
    let check = || {
        let jobs = pairs.len();
        ensure!(jobs <= LIMIT, "{jobs} jobs, and GitHub takes {LIMIT} a matrix: choose with --model or --runner");
        Ok(())
    };
    check().mistake()?;
    serde_json::to_string(&Matrix { include: pairs }).context("cannot print the matrix")
}

#[cfg(test)]
mod tests {
    use vllm_verdict::v1::DeviceName;

    use super::*;

    fn pair(model: &str, commit: Option<&str>) -> Pair {
        Pair {
            runner: "linux.aws.h100".to_owned(),
            device: DeviceName::Cuda,
            device_type: commit.map(|_| "NVIDIA H100".to_owned()),
            model: model.to_owned(),
            commit: commit.map(str::to_owned),
        }
    }

    #[test]
    fn it_is_one_line_for_an_output_of_a_step() {
        let pairs = [pair("a/b\n::set-output", None), pair("c", Some("1da94e6"))];
        assert_eq!(
            text(&pairs).unwrap(),
            r#"{"include":[{"runner":"linux.aws.h100","device":"cuda","model":"a/b\n::set-output"},{"runner":"linux.aws.h100","device":"cuda","device_type":"NVIDIA H100","model":"c","commit":"1da94e6"}]}"#
        );
        assert_eq!(text(&[]).unwrap(), r#"{"include":[]}"#);
    }

    #[test]
    fn more_jobs_than_github_takes_are_refused() {
        let pairs = vec![pair("a", None); 257];
        assert!(text(&pairs[..256]).is_ok());
        assert!(text(&pairs).unwrap_err().to_string().starts_with("257 jobs, and GitHub takes 256 a matrix"));
    }
}
