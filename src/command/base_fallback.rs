//! `--base-fallback`: an earlier commit as base, where the image or wheel of the wanted one is missing.

use anyhow::{Result, anyhow};

use crate::exit::Classify;
use crate::names::Commit;
use crate::plan::build::Build;
use crate::plan::config::Config;
use crate::plan::image::Pipeline;
use crate::plan::target::Target;
use crate::plan::wheel::Wheel;
use crate::plan::{Fallback, Plan};
use crate::system::availability::Availability;
use crate::system::git::Git;
use crate::system::github::Github;
use crate::system::shell::Shell;

/// Where base's image or wheel is missing, takes the nearest of at most `most` commits before it that has one, and notes it in
/// the plan. A base that is not the build of a commit of main is not changed.
///
/// # Errors
/// Exit 4: none of those commits has a build, or the registry, the index or GitHub fails. The user's mistake (exit 2): neither
/// git nor GitHub knows the commits.
pub async fn fall_back(
    plan: &mut Plan,
    most: u32,
    config: &Config,
    github: Option<&Github>,
    shell: &Shell,
) -> Result<()> {
    let device = plan.device.clone();
    let Some(base) = &mut plan.sides.base else { return Ok(()) };
    let (Some(build), Some(wanted)) = (Build::of(&base.target), base.commit.clone()) else { return Ok(()) };
    let of_main = |commit: &str| -> Result<Target> {
        build.target(&device, &commit.parse::<Commit>().mistake()?, Pipeline::Main, &config.images, None)
    };
    if most == 0 || base.target != of_main(&wanted)? {
        return Ok(());
    }
    let availability = Availability::new(&config.wheels.url()?, device.name, &shell.environment)?;
    if availability.is_within_reach(&base.target).await? {
        return Ok(());
    }
    let commits = match (Git::new(&shell.environment).before(&wanted, most).await, github, &plan.event.repository) {
        (Ok(commits), ..) => commits,
        (Err(_), Some(github), Some(repository)) => github.before(repository, &wanted, most).await?,
        (Err(error), ..) => return Err(error).mistake(),
    };
    for (behind, commit) in (1..).zip(commits) {
        let target = of_main(&commit)?;
        if availability.is_within_reach(&target).await? {
            shell.say(&format!("the {} of {wanted} is missing: base is {commit}, {behind} before it", build.as_str()));
            // Python files of head were over the wheel of the wanted base.
            if let Some(Target::Wheel(Wheel::Commit { commit: under, checkout: Some(_), .. })) =
                plan.sides.head.as_mut().map(|head| &mut head.target)
                && under.as_str() == wanted
            {
                *under = commit.parse().mistake()?;
            }
            base.target = target;
            base.commit = Some(commit.clone());
            plan.fallback = Some(Fallback { wanted, used: commit, behind });
            return Ok(());
        }
    }
    let (what, name) = (build.as_str(), base.target.to_string());
    let name = name.trim_start_matches("image:");
    Err(anyhow!("{what} missing: {name}, and those of the {most} commits before it (--base-fallback {most})")).world()
}
