//! Base and head as the user names them, before they are sides of a plan. The command line is turned into these types
//! once; git and GitHub are asked in `command/base_commit.rs`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use vllm_verdict::side::Side;

use crate::exit::Classify;
use crate::names::Commit;
use crate::plan::image;
use crate::plan::target::{self, Target};

/// What head is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// Nothing: head is measured alone.
    None,
    /// The image of a commit of main.
    Commit(Commit),
    /// A target that the user named.
    Target(Target),
    /// Head of an earlier run, from its output folder. Nothing of base runs.
    Recorded(PathBuf),
}

impl Base {
    /// Reads `none`, a full commit hash or a target.
    ///
    /// # Errors
    /// The user's mistake (exit 2): as of [`NamedSide::read`].
    pub fn read(text: &str) -> anyhow::Result<Self> {
        if text == "none" {
            return Ok(Self::None);
        }
        Ok(match NamedSide::read(Side::Base, text)? {
            NamedSide::Commit(commit) => Self::Commit(commit),
            NamedSide::Target(target) => Self::Target(target),
        })
    }

    /// Whether a server of base is measured.
    pub fn runs(&self) -> bool {
        matches!(self, Self::Commit(_) | Self::Target(_))
    }
}

/// A side that is measured, as the user names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedSide {
    /// The image of a commit.
    Commit(Commit),
    /// A target.
    Target(Target),
}

impl NamedSide {
    /// Reads a full commit hash or a target. `side` is the one whose flag is named in the error.
    ///
    /// # Errors
    /// The user's mistake (exit 2): `none` for head, a shortened or upper-case hash, or a text that is not a target.
    pub fn read(side: Side, text: &str) -> anyhow::Result<Self> {
        let read = || match text {
            "none" if side == Side::Head => {
                bail!("--head none: head is what is measured; only --base may be `none`")
            }
            text => {
                parse(text).with_context(|| format!("cannot use --{} {}", side.as_str(), target::without_user(text)))
            }
        };
        read().mistake()
    }

    /// The commit, where the user named one, alone or as a wheel.
    pub fn commit(&self) -> Option<&Commit> {
        match self {
            Self::Commit(commit) => Some(commit),
            Self::Target(Target::Wheel(wheel)) => wheel.commit(),
            Self::Target(_) => None,
        }
    }

    /// Whether no build of a known commit is measured, so that no commit is known to compare it with.
    pub fn is_without_commit(&self) -> bool {
        match self {
            Self::Commit(_) => false,
            Self::Target(Target::Wheel(wheel)) => wheel.commit().is_none(),
            Self::Target(target) => !matches!(target, Target::Image(_)),
        }
    }
}

fn parse(text: &str) -> anyhow::Result<NamedSide> {
    if let Ok(commit) = text.parse() {
        return Ok(NamedSide::Commit(commit));
    }
    if is_short_hash(text) {
        bail!("images are tagged by full hashes in lower case: pass all 40 digits (git rev-parse {text})");
    }
    let target: Target = match text.contains([':', '/']) {
        // Not a commit in any spelling.
        true => text.parse()?,
        false => text.parse().context("not a full commit hash")?,
    };
    if let Target::Image(reference) = &target {
        reference.parse::<image::Reference>()?;
    }
    Ok(NamedSide::Target(target))
}

/// Whether `text` is a commit hash of up to 40 digits, so that it is not taken for the name of a branch.
pub fn is_short_hash(text: &str) -> bool {
    text.len() <= 40 && Commit::is_hash(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{self, Exit};

    #[test]
    fn a_base_is_none_a_commit_or_a_target() {
        let hash = "7f42dc20bb2800d09faa72b26f25d54e26f1b694";
        assert_eq!(Base::read("none").unwrap(), Base::None);
        assert_eq!(Base::read(hash).unwrap(), Base::Commit(hash.parse().unwrap()));
        assert_eq!(Base::read("sim").unwrap(), Base::Target(Target::Sim(String::new())));
    }

    #[test]
    fn a_text_that_names_no_side_is_a_mistake_that_says_what_is_expected() {
        let error = |side, text: &str| {
            let error = NamedSide::read(side, text).unwrap_err();
            assert_eq!(exit::of(&error), Exit::Mistake);
            format!("{error:#}")
        };
        let errors = [
            error(Side::Head, "none"),
            error(Side::Base, "1da94e6"),
            error(Side::Base, "docker:x"),
            error(Side::Base, "image:A B"),
        ];
        insta::assert_snapshot!(errors.join("\n"), @"
        --head none: head is what is measured; only --base may be `none`
        cannot use --base 1da94e6: images are tagged by full hashes in lower case: pass all 40 digits (git rev-parse 1da94e6)
        cannot use --base docker:x: `docker:x` is not a target: expected image:REF, wheel:COMMIT, local[:PATH], remote:URL or sim[:key=value,...]; did you mean `image:x`?
        cannot use --base image:A B: `A B` is not an image reference: expected [HOST/]REPOSITORY[:TAG][@sha256:DIGEST]
        ");
    }
}
