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
