//! What stands for a commit: its image or its wheel.

use serde::{Deserialize, Serialize};

use crate::names::Commit;
use crate::plan::config::ImagesConfig;
use crate::plan::image::{self, Pipeline};
use crate::plan::target::Target;
use crate::plan::wheel::Wheel;
use vllm_verdict::v1::Device;

/// The kind of build that a commit is measured as.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Build {
    /// Its container image.
    #[default]
    Image,
    /// Its wheel, without a container.
    Wheel,
}

impl Build {
    /// The kind of a target; `None` where it is of no commit.
    pub fn of(target: &Target) -> Option<Self> {
        match target {
            Target::Image(_) => Some(Self::Image),
            Target::Wheel(_) => Some(Self::Wheel),
            Target::Local(_) | Target::Remote(_) | Target::Sim(_) => None,
        }
    }

    /// `image` or `wheel`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::Wheel => "wheel",
        }
    }

    /// The build of a commit. `number` is that of the CI build that made it, where it is known.
    ///
    /// # Errors
    /// The user's mistake (exit 2): the config does not give an image reference.
    pub fn target(
        self,
        device: &Device,
        commit: &Commit,
        pipeline: Pipeline,
        images: &ImagesConfig,
        number: Option<u64>,
    ) -> anyhow::Result<Target> {
        match self {
            Self::Image => image::reference(device, commit, pipeline, images, number).map(Target::Image),
            Self::Wheel => Ok(Target::Wheel(Wheel::of(commit.clone()))),
        }
    }
}

/// The build that commits are measured as, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenBuild {
    pub build: Build,
    /// In words for the plan, after `because`.
    pub reason: String,
}
