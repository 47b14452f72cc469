//! The matrix for `strategy.matrix: ${{ fromJSON(...) }}` of a GitHub workflow.

use anyhow::{Context, ensure};
use serde::Serialize;

use super::MatrixJob;
use crate::exit::Classify;

/// Most jobs of one matrix on GitHub.
const LIMIT: usize = 256;

#[derive(Serialize)]
struct Matrix<'a> {
    include: &'a [MatrixJob],
}

/// One line: `{"include":[{"runner":...,"device":...,"model":...}]}`.
///
/// # Errors
/// The user's mistake: more jobs than GitHub allows.
pub fn text(jobs: &[MatrixJob]) -> anyhow::Result<String> {
    let check = || {
        let count = jobs.len();
        ensure!(count <= LIMIT, "{count} jobs, but GitHub allows {LIMIT} per matrix: select with --model or --runner");
        Ok(())
    };
    check().mistake()?;
    serde_json::to_string(&Matrix { include: jobs }).context("cannot print the matrix")
}

#[cfg(test)]
mod tests {
    use vllm_verdict::v1::DeviceName;

    use super::*;

    fn job(model: &str, commit: Option<&str>) -> MatrixJob {
        MatrixJob {
            runner: "linux.aws.h100".to_owned(),
            device: DeviceName::Cuda,
            device_type: commit.map(|_| "NVIDIA H100".to_owned()),
            model: model.to_owned(),
            commit: commit.map(str::to_owned),
        }
    }

    #[test]
    fn the_matrix_is_one_line_for_a_step_output() {
        let jobs = [job("a/b\n::set-output", None), job("c", Some("1da94e6"))];
        assert_eq!(
            text(&jobs).unwrap(),
            r#"{"include":[{"runner":"linux.aws.h100","device":"cuda","model":"a/b\n::set-output"},{"runner":"linux.aws.h100","device":"cuda","device_type":"NVIDIA H100","model":"c","commit":"1da94e6"}]}"#
        );
        assert_eq!(text(&[]).unwrap(), r#"{"include":[]}"#);
    }

    #[test]
    fn more_jobs_than_github_allows_are_rejected() {
        let jobs = vec![job("a", None); 257];
        assert!(text(&jobs[..256]).is_ok());
        assert!(text(&jobs).unwrap_err().to_string().starts_with("257 jobs, but GitHub allows 256 per matrix"));
    }
}
