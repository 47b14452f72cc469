//! The image of a side: pulled, waited for where the registry does not have it yet, and checked against the run's digest.

use std::time::Duration;

use anyhow::Result;
use vllm_verdict::side::Side;
use vllm_verdict::v1::{DeviceName, SideFacts};

use super::run_folder;
use super::side_run::Fetched;
use crate::duration;
use crate::exit::Classify;
use crate::plan::SidePlan;
use crate::plan::target::Target;
use crate::system::git::Git;
use crate::system::output::OutputFolder;
use crate::system::registry::{self, Registry};
use crate::system::shell::Shell;
use crate::system::{docker, image_wait};

/// How often a registry is asked for a missing image.
const POLL: Duration = Duration::from_secs(15);

/// What fetching images needs.
pub struct ImageFetch<'a> {
    pub out: &'a OutputFolder,
    pub device: DeviceName,
    /// How long to wait for an image that is missing.
    pub wait: Duration,
    pub shell: &'a Shell,
}

impl ImageFetch<'_> {
    /// The facts of a side that are known before it runs. Its image is on this machine when this returns.
    pub async fn facts(&self, side: Side, planned: SidePlan) -> Result<Fetched> {
        let mut pinned = None;
        let mut facts = SideFacts {
            target: planned.target.to_string().into(),
            commit: planned.commit.as_deref().map(Into::into),
            server_args: planned.server_args.into_iter().map(Into::into).collect(),
            ..SideFacts::default()
        };
        if let Some(commit) = &planned.commit {
            facts.dated = Git::new(&self.shell.environment).date(commit).await.map(Into::into);
        }
        if let Target::Image(reference) = &planned.target {
            self.fetch(reference).await?;
            let image = docker::pinned(reference, &self.shell.environment).await.world()?;
            let digest = docker::digest_of(&image);
            run_folder::check_digest(self.out, side, reference, digest)?;
            facts.image_digest = Some(digest.into());
            pinned = Some(image);
            if facts.dated.is_none() {
                facts.dated = docker::built(reference, &self.shell.environment).await.map(Into::into);
            }
        }
        Ok(Fetched { facts, pinned })
    }

    /// Pulls an image that the engine does not have, as soon as the registry has it.
    async fn fetch(&self, reference: &str) -> Result<()> {
        if docker::is_here(reference, &self.shell.environment).await.world()? {
            return Ok(());
        }
        self.shell.say(&format!("pulling {reference}"));
        // The engine may have credentials that vllm-perf does not know: only an image that it cannot pull is waited for.
        let Err(refused) = docker::pull(reference, &self.shell.environment).await else { return Ok(()) };
        let architecture = registry::architecture(self.device);
        let registry = Registry::new(registry::PAUSE, architecture, &self.shell.environment)?;
        image_wait::wait(&registry, &[reference.to_owned()], self.wait, POLL, |missing, waited| {
            self.shell.say(&format!(
                "waiting for {} since {}, at most {}",
                missing.join(", "),
                duration::text(waited),
                duration::text(self.wait)
            ));
        })
        .await
        .map_err(|error| error.context(format!("{refused:#}")))?;
        self.shell.say(&format!("pulling {reference}"));
        docker::pull(reference, &self.shell.environment).await.world()
    }
}
