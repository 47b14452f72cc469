//! Whether what a side runs has been published: an image by its registry, a wheel by its index. And the wait until it has.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};
use url::Url;
use vllm_verdict::v1::DeviceName;

use crate::duration;
use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::target::Target;
use crate::plan::wheel::Wheel;
use crate::system::docker;
use crate::system::registry::{self, ImageState, Registry};
use crate::system::retrying_http::{self, PAUSE};
use crate::system::wheel_index::{WheelIndex, WheelState};

/// Whether the target of a side can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    Yes,
    /// Not, or not yet.
    Missing {
        /// `image` or `wheel`.
        what: &'static str,
        /// Where it is known.
        why: Option<String>,
    },
}

impl From<ImageState> for Published {
    fn from(state: ImageState) -> Self {
        let why = match state {
            ImageState::Present => return Self::Yes,
            ImageState::Absent => None,
            ImageState::OtherPlatforms(platforms) => Some(format!("only available for {}", platforms.join(", "))),
        };
        Self::Missing { what: "image", why }
    }
}

impl From<WheelState> for Published {
    fn from(state: WheelState) -> Self {
        match state {
            WheelState::Present(_) => Self::Yes,
            WheelState::Missing(why) => Self::Missing { what: "wheel", why: Some(why) },
        }
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yes => f.write_str("available"),
            Self::Missing { what, why: None } => write!(f, "{what} missing"),
            Self::Missing { what, why: Some(why) } => write!(f, "{what} missing: {why}"),
        }
    }
}

/// Access to registries and to the wheel index, for one device.
#[derive(Debug)]
pub struct Availability {
    registry: Registry,
    wheels: WheelIndex,
    environment: Environment,
}

impl Availability {
    /// Access for a device. `index` is the address of the wheel index.
    ///
    /// # Errors
    /// The user's mistake (exit 2): uv is set to an index that is no URL. Exit 4: no TLS.
    pub fn new(index: &Url, device: DeviceName, environment: &Environment) -> Result<Self> {
        Ok(Self {
            registry: Registry::new(PAUSE, registry::architecture(device), environment)?,
            wheels: WheelIndex::new(PAUSE, index, device, environment)?,
            environment: environment.clone(),
        })
    }

    /// Whether a target is published. What is no image and no wheel of an index needs not be.
    ///
    /// # Errors
    /// The user's mistake (exit 2): no image reference, or no wheels for the device. Exit 4: the server cannot be reached, or
    /// refuses.
    pub async fn find(&self, target: &Target) -> Result<Published> {
        Ok(match target {
            Target::Image(reference) => self.registry.find(reference).await?.into(),
            Target::Wheel(Wheel::File(_)) | Target::Local(_) | Target::Remote(_) | Target::Sim(_) => Published::Yes,
            Target::Wheel(wheel) => self.wheels.find(wheel).await?.into(),
        })
    }

    /// Whether a target is here or published.
    ///
    /// # Errors
    /// As of [`Self::find`], and where the container engine does not answer.
    pub async fn is_within_reach(&self, target: &Target) -> Result<bool> {
        if let Target::Image(reference) = target
            && docker::is_here(reference, &self.environment).await?
        {
            return Ok(true);
        }
        Ok(self.find(target).await? == Published::Yes)
    }

    /// The wheel index.
    pub fn wheels(&self) -> &WheelIndex {
        &self.wheels
    }
}

/// Waits until `find` says that `name` is published, asking every `poll`, at most until `deadline` from now. `on_progress`
/// gets, at every poll, what is missing and how long the wait has lasted.
///
/// # Errors
/// Exit 4: it is missing at the deadline, or the error of `find`; a server that is busy or broken for the moment is asked again
/// until then.
pub async fn wait(
    name: &str,
    find: impl AsyncFn() -> Result<Published>,
    (deadline, poll): (Duration, Duration),
    mut on_progress: impl FnMut(&str, Duration),
) -> Result<()> {
    let start = Instant::now();
    loop {
        let (what, why) = match find().await {
            Ok(Published::Yes) => return Ok(()),
            Ok(Published::Missing { what, why }) => (what, why),
            Err(error) if retrying_http::is_temporary(&error) && start.elapsed() < deadline => {
                ("answer", Some(error.root_cause().to_string()))
            }
            Err(error) => return Err(error),
        };
        let shown = why.map_or_else(|| name.to_owned(), |why| format!("{name} ({why})"));
        let waited = start.elapsed();
        if waited >= deadline {
            return Err(NotPublished(format!(
                "{what} missing: {shown} after {}: look at the {what} build of that commit, or choose another --base or --head",
                duration::text(deadline)
            )))
            .context("nothing was measured")
            .world();
        }
        on_progress(&shown, waited);
        sleep(poll.min(deadline - waited)).await;
    }
}

/// An image or a wheel that was missing at the deadline.
#[derive(Debug)]
pub struct NotPublished(String);

impl fmt::Display for NotPublished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotPublished {}
