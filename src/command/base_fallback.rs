//! `--base-fallback`: an earlier commit as base, where the image of the wanted one is missing.

use anyhow::{Result, anyhow};

use crate::exit::Classify;
use crate::names::Commit;
use crate::plan::config::ImagesConfig;
use crate::plan::image::{self, Pipeline};
use crate::plan::target::Target;
use crate::plan::{Fallback, Plan};
use crate::system::docker;
use crate::system::git::Git;
use crate::system::github::Github;
use crate::system::registry::{self, ImageState, Registry};
use crate::system::shell::Shell;

/// Where base's image is missing, takes the nearest of at most `most` commits before it that has one, and notes it in the
/// plan. A base that is not the image of a commit of main is not changed.
///
/// # Errors
/// Exit 4: none of those commits has an image, or the registry or GitHub fails. The user's mistake (exit 2): neither git
/// nor GitHub knows the commits.
pub async fn fall_back(
    plan: &mut Plan,
    most: u32,
    images: &ImagesConfig,
    github: Option<&Github>,
    shell: &Shell,
) -> Result<()> {
    let device = plan.device.clone();
    let Some(base) = &mut plan.sides.base else { return Ok(()) };
    let (Target::Image(reference), Some(wanted)) = (&base.target, base.commit.clone()) else { return Ok(()) };
    let of_main = |commit: &str| -> Result<String> {
        image::reference(&device, &commit.parse::<Commit>().mistake()?, Pipeline::Main, images, None)
    };
    if most == 0 || *reference != of_main(&wanted)? {
        return Ok(());
    }
    let architecture = registry::architecture(device.name);
    let registry = Registry::new(registry::PAUSE, architecture, &shell.environment)?;
    let exists = async |reference: &str| -> Result<bool> {
        Ok(docker::is_here(reference, &shell.environment).await?
            || registry.find(reference).await? == ImageState::Present)
    };
    if exists(reference).await? {
        return Ok(());
    }
    let commits = match (Git::new(&shell.environment).before(&wanted, most).await, github, &plan.event.repository) {
        (Ok(commits), ..) => commits,
        (Err(_), Some(github), Some(repository)) => github.before(repository, &wanted, most).await?,
        (Err(error), ..) => return Err(error).mistake(),
    };
    for (behind, commit) in (1..).zip(commits) {
        let reference = of_main(&commit)?;
        if exists(&reference).await? {
            shell.say(&format!("the image of {wanted} is missing: base is {commit}, {behind} before it"));
            base.target = Target::Image(reference);
            base.commit = Some(commit.clone());
            plan.fallback = Some(Fallback { wanted, used: commit, behind });
            return Ok(());
        }
    }
    Err(anyhow!("image missing: {reference}, and those of the {most} commits before it (--base-fallback {most})"))
        .world()
}
