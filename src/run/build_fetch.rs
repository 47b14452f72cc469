//! The build of a side: its image, pulled, or its wheel, installed. Waited for where it is not published yet, and checked against
//! what the run began with.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use vllm_verdict::side::Side;
use vllm_verdict::v1::{DeviceName, SideFacts};

use super::launch::FetchedBuild;
use super::run_folder;
use super::side_run::Fetched;
use crate::duration;
use crate::exit::Classify;
use crate::plan::SidePlan;
use crate::plan::config::Config;
use crate::plan::target::Target;
use crate::plan::wheel::Wheel;
use crate::system::availability::{self, Availability};
use crate::system::docker;
use crate::system::git::Git;
use crate::system::output::OutputFolder;
use crate::system::shell::Shell;
use crate::system::wheel_cache::WheelCache;
use crate::system::wheel_environment::{Installed, WheelEnvironments};
use crate::system::wheel_index::WheelState;
use crate::system::wheel_overlay::Overlay;

/// How often a registry or an index is asked for what is missing.
const POLL: Duration = Duration::from_secs(15);

/// What fetching builds needs.
pub struct BuildFetch<'a> {
    pub out: &'a OutputFolder,
    pub device: DeviceName,
    pub config: &'a Config,
    /// How long to wait for a build that is missing.
    pub wait: Duration,
    pub shell: &'a Shell,
}

/// A build, and what identifies it.
struct Found {
    build: FetchedBuild,
    digest: String,
    /// When it was built, where no commit says so.
    dated: Option<String>,
}

impl BuildFetch<'_> {
    /// The facts of a side that are known before it runs. Its build is on this machine when this returns.
    pub async fn facts(&self, side: Side, planned: SidePlan) -> Result<Fetched> {
        let mut facts = SideFacts {
            target: planned.target.to_string().into(),
            commit: planned.commit.as_deref().map(Into::into),
            server_args: planned.server_args.into_iter().map(Into::into).collect(),
            ..SideFacts::default()
        };
        if let Some(commit) = &planned.commit {
            facts.dated = Git::new(&self.shell.environment).date(commit).await.map(Into::into);
        }
        let found = match &planned.target {
            Target::Image(reference) => self.image(reference).await?,
            Target::Wheel(wheel) => self.wheel(wheel).await?,
            Target::Local(_) | Target::Remote(_) | Target::Sim(_) => return Ok(Fetched { facts, build: None }),
        };
        let name = planned.target.to_string();
        run_folder::check_digest(self.out, side, name.trim_start_matches("image:"), &found.digest)?;
        facts.image_digest = Some(found.digest.into());
        facts.dated = facts.dated.or(found.dated.map(Into::into));
        Ok(Fetched { facts, build: Some(found.build) })
    }

    async fn image(&self, reference: &str) -> Result<Found> {
        let environment = &self.shell.environment;
        self.pull(reference).await?;
        let pinned = docker::pinned(reference, environment).await.world()?;
        let digest = docker::digest_of(&pinned).to_owned();
        let dated = docker::built(reference, environment).await;
        Ok(Found { build: FetchedBuild::Image { pinned }, digest, dated })
    }

    /// Pulls an image that the engine does not have, as soon as the registry has it.
    async fn pull(&self, reference: &str) -> Result<()> {
        if docker::is_here(reference, &self.shell.environment).await.world()? {
            return Ok(());
        }
        self.shell.say(&format!("pulling {reference}"));
        // The engine may have credentials that vllm-perf does not know: only an image that it cannot pull is waited for.
        let Err(refused) = docker::pull(reference, &self.shell.environment).await else { return Ok(()) };
        let target = Target::Image(reference.to_owned());
        self.wait(&target, reference).await.map_err(|error| error.context(format!("{refused:#}")))?;
        self.shell.say(&format!("pulling {reference}"));
        docker::pull(reference, &self.shell.environment).await.world()
    }

    async fn wheel(&self, wheel: &Wheel) -> Result<Found> {
        let cache = WheelCache::of(&self.shell.environment)?;
        let index = &self.config.wheels.index;
        let environments = WheelEnvironments { cache: &cache, device: self.device, index, shell: self.shell };
        let installed = match wheel {
            Wheel::File(path) => environments.of_file(path).await?,
            _ => match environments.known(wheel).await? {
                Some(installed) => installed,
                None => self.published(wheel, &environments).await?,
            },
        };
        let program = installed.program();
        let Wheel::Commit { commit, checkout: Some(checkout), .. } = wheel else {
            let digest = format!("sha256:{}", installed.held.sha256);
            return Ok(Found { build: FetchedBuild::Wheel { program, over: None }, digest, dated: None });
        };
        let git = Git::new(&self.shell.environment);
        let overlay = Overlay::of(checkout, commit, self.device, &git).await?;
        let laid = overlay.lay(&installed, &cache, self.shell).await?;
        let build = FetchedBuild::Wheel { program, over: Some(laid.folder) };
        Ok(Found { build, digest: format!("sha256:{}", laid.sha256), dated: None })
    }

    /// The environment of a wheel of the index, as soon as that has it.
    async fn published(&self, wheel: &Wheel, environments: &WheelEnvironments<'_>) -> Result<Installed> {
        let target = Target::Wheel(wheel.clone());
        self.wait(&target, &target.to_string()).await?;
        match self.availability()?.wheels().find(wheel).await? {
            WheelState::Present(found) => environments.of_index(wheel, &found).await,
            WheelState::Missing(why) => Err(anyhow::anyhow!("{target} has gone from the index: {why}")).world(),
        }
    }

    fn availability(&self) -> Result<Availability> {
        Availability::new(&self.config.wheels.url()?, self.device, &self.shell.environment)
    }

    async fn wait(&self, target: &Target, name: &str) -> Result<()> {
        let availability = self.availability()?;
        let find = async || availability.find(target).await;
        availability::wait(name, find, (self.wait, POLL), |missing, waited| {
            let (waited, most) = (duration::text(waited), duration::text(self.wait));
            self.shell.say(&format!("waiting for {missing} since {waited}, at most {most}"));
        })
        .await
    }
}

/// Whether the checkout of a wheel side can be put over its wheel, before anything is fetched.
///
/// # Errors
/// The user's mistake (exit 2): as of [`Overlay::of`], or `head` is not what is checked out.
pub async fn check_checkout(wheel: &Wheel, head: Option<&str>, device: DeviceName, shell: &Shell) -> Result<()> {
    let Wheel::Commit { commit, checkout: Some(checkout), .. } = wheel else { return Ok(()) };
    let git = Git::new(&shell.environment);
    if let Some(head) = head.filter(|_| checkout == Path::new(".")) {
        let here = git.head_of(checkout).await.mistake()?;
        if here != head {
            let cure = "check out the head commit (`ref: ${{ github.event.pull_request.head.sha }}`)";
            return Err(anyhow::anyhow!("the checkout is at {here}, and head is {head}: {cure}, or name --head"))
                .mistake();
        }
    }
    Overlay::of(checkout, commit, device, &git).await.map(drop)
}
