//! A recorded base: head of an earlier run, from its output folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use vllm_verdict::repetition::Repetition;
use vllm_verdict::side::Side;
use vllm_verdict::v1::{Comparison, SideFacts};

use crate::exit::Classify;
use crate::result::{Folder, identity};
use crate::run::collect;
use crate::run::fingerprint::Fingerprint;
use crate::system::{regular_file, results_folder};

/// Head of an earlier run.
pub struct Recorded {
    folder: PathBuf,
    pub facts: SideFacts,
    /// One for each repetition.
    folders: Vec<Folder>,
}

impl Recorded {
    /// Reads an output folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("comparison.json");
        let text = std::fs::read(&path)
            .and_then(regular_file::utf8)
            .with_context(|| format!("cannot read `{}`: did the run that is used as base finish?", path.display()))
            .mistake()?;
        let comparison: Comparison =
            serde_json::from_str(&text).with_context(|| format!("cannot read `{}`", path.display())).mistake()?;
        let unknown = SideFacts { target: folder.display().to_string().into(), ..SideFacts::default() };
        let folders = results_folder::repetitions(folder)?;
        Ok(Self { folder: folder.to_owned(), facts: comparison.subject.head.unwrap_or(unknown), folders })
    }

    /// Its repetitions as the base of `head`, the repetitions of this run: cases that measured something else have no value.
    pub fn repetitions(&self, head: &[Folder]) -> Vec<Repetition> {
        let mut repetitions: Vec<Repetition> = self.folders.iter().map(Folder::repetition).collect();
        identity::keep_apart(&mut repetitions, &identity::unlike(&self.folders, head));
        repetitions
    }

    /// The fingerprints of its repetitions, where they have one.
    pub fn fingerprints(&self) -> impl Iterator<Item = (Side, u32, Fingerprint)> {
        let of = |number: u32| {
            let folder = self.folder.join(Side::Head.as_str()).join(format!("{number:02}"));
            Some((Side::Base, number, collect::fingerprint(&folder)?))
        };
        (1..=self.folders.len() as u32).filter_map(of)
    }
}
