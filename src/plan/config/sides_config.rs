//! `sides` and `wheels` in the config file: what a commit is measured as, and where its wheel is.

use url::Url;

use super::scalar::{Scalar, one_of, valid};
use super::section::{Section, Walk};
use crate::plan::config::scalar::Schema;

/// What stands for a commit that is named alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum CommitSides {
    /// Images where a container engine answers, else wheels.
    #[default]
    Auto,
    Image,
    Wheel,
}

impl CommitSides {
    const ALL: [Self; 3] = [Self::Auto, Self::Image, Self::Wheel];

    /// The word in the config file and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Image => "image",
            Self::Wheel => "wheel",
        }
    }
}

pub(super) const COMMIT_SIDES: Scalar<CommitSides> = Scalar {
    expecting: "auto, image or wheel",
    numbers: false,
    schema: Schema::OneOf(|| CommitSides::ALL.map(CommitSides::as_str).to_vec()),
    read: |text| one_of(text, "a kind of side", &CommitSides::ALL, CommitSides::as_str),
    show: |sides| sides.as_str().to_owned(),
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WheelsConfig {
    /// Address of the wheel index, below which each commit and version has its folder.
    pub index: String,
}

impl WheelsConfig {
    /// The address.
    ///
    /// # Errors
    /// When it is no URL, which the config's reader does not let through.
    pub fn url(&self) -> anyhow::Result<Url> {
        Ok(Url::parse(&self.index)?)
    }
}

impl Default for WheelsConfig {
    fn default() -> Self {
        Self { index: "https://wheels.vllm.ai".to_owned() }
    }
}

impl Section for WheelsConfig {
    fn keys(&mut self, walk: &mut impl Walk) {
        let index = "Address of the wheel index: `https://`, or `http://` on this machine. Each commit and version has a folder there.";
        walk.key("index", index, &mut self.index, INDEX);
    }
}

const INDEX: Scalar<String> = Scalar::text("a URL", "^https?://.+$", |text| {
    let is_index = Url::parse(text).is_ok_and(|url| {
        let is_here = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        (url.scheme() == "https" || url.scheme() == "http" && is_here)
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
    });
    valid(is_index, text, "a wheel index: expected https://HOST/PATH, or http:// on this machine, without a password")
});
