//! The changing part of a run: its sides, the time and cost of passes so far, and the build that is still being fetched.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Result;
use vllm_verdict::side::Side;
use vllm_verdict::strategy::Pass;

use super::cost::Costs;
use super::pass::{PassRun, Tally};
use super::session::Session;
use super::side_run::{Fetched, SideRun};
use super::time_spent::Times;
use crate::run::journal::Journal;

#[derive(Debug)]
pub struct RunState<'a> {
    /// `None` where nothing of base runs.
    pub base: Option<SideRun>,
    pub head: SideRun,
    pub times: Times,
    pub costs: Costs,
    /// When the pair in progress began, after the start of the run.
    pub pair_begun: Duration,
    /// Model files that have been read into memory.
    pub read_files: BTreeSet<PathBuf>,
    /// Head's build, where it is fetched during base's warm-up.
    pub head_fetch: Option<HeadFetch<'a>>,
}

/// The fetch of head's build.
pub struct HeadFetch<'a>(pub Pin<Box<dyn Future<Output = Result<Fetched>> + 'a>>);

impl fmt::Debug for HeadFetch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeadFetch")
    }
}

impl RunState<'_> {
    /// Waits for head's build.
    pub async fn fetch_head(&mut self) -> Result<()> {
        if let Some(fetch) = self.head_fetch.take() {
            self.head.know(fetch.0.await?);
        }
        Ok(())
    }

    /// A pass of a side, or `None` where nothing of that side runs.
    pub fn pass<'r, 's>(
        &'r mut self,
        session: &'r Session<'s>,
        side: Side,
        pass: Pass,
        journal: &'r mut Journal,
    ) -> Option<PassRun<'r, 's>> {
        let side_run = match side {
            Side::Base => self.base.as_mut()?,
            Side::Head => &mut self.head,
        };
        Some(PassRun {
            session,
            side,
            pass,
            slice: 1,
            side_run,
            journal,
            costs: &mut self.costs,
            times: &mut self.times,
            pair_begun: self.pair_begun,
            read_files: &mut self.read_files,
            tally: Tally::default(),
        })
    }
}
