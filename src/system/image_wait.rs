//! Waits until a registry has the images of a run.

use std::fmt;
use std::time::Duration;

use anyhow::Context;
use tokio::time::{Instant, sleep};

use crate::duration;
use crate::exit::Classify;
use crate::system::registry::{self, ImageState, Registry};

/// Waits until the registries have all of `references`, asking every `poll`, at most until `deadline` from now.
/// `on_progress` gets, at every poll, the images that are still missing and how long the wait has lasted.
///
/// # Errors
/// An external failure (exit 4): an image is missing at the deadline, or see [`Registry::find`]; a registry that is busy or
/// broken for the moment is asked again until then.
pub async fn wait(
    registry: &Registry,
    references: &[String],
    deadline: Duration,
    poll: Duration,
    mut on_progress: impl FnMut(&[String], Duration),
) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut missing = references.to_vec();
    loop {
        let (mut absent, mut shown) = (Vec::new(), Vec::new());
        for reference in missing {
            match registry.find(&reference).await {
                Ok(ImageState::Present) => {}
                Ok(ImageState::Absent) => {
                    shown.push(reference.clone());
                    absent.push(reference);
                }
                Ok(ImageState::OtherPlatforms(platforms)) => {
                    shown.push(format!("{reference} (there for {} alone)", platforms.join(", ")));
                    absent.push(reference);
                }
                Err(error) if registry::is_temporary(&error) && start.elapsed() < deadline => {
                    shown.push(format!("{reference} ({})", error.root_cause()));
                    absent.push(reference);
                }
                Err(error) => return Err(error),
            }
        }
        missing = absent;
        let waited = start.elapsed();
        if missing.is_empty() {
            return Ok(());
        }
        if waited >= deadline {
            return Err(ImageMissing(format!(
                "image missing: {} after {}: look at the image build of that commit, or choose another --base or --head",
                shown.join(", "),
                duration::text(deadline)
            )))
            .context("nothing was measured")
            .world();
        }
        on_progress(&shown, waited);
        sleep(poll.min(deadline - waited)).await;
    }
}

/// An image that was missing at the deadline.
#[derive(Debug)]
pub struct ImageMissing(String);

impl fmt::Display for ImageMissing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ImageMissing {}
