//! The settings in force for an event. A pull request is measured by the settings of its base, so that it cannot change
//! the rules that it is judged by.

use std::path::Path;

use anyhow::Result;
use vllm_verdict::v1::Event;

use crate::exit::Classify;
use crate::plan::config::LoadedConfig;
use crate::system::config_file::{self, PLACES};
use crate::system::git::{self, Tracked};
use crate::system::shell::Shell;

/// The settings of the checkout.
pub fn of_checkout(explicit: Option<&Path>) -> Result<LoadedConfig> {
    match config_file::find(Path::new("."), explicit).mistake()? {
        Some(file) => LoadedConfig::read(&file.text, &file.path.display().to_string()).mistake(),
        None => Ok(LoadedConfig::default()),
    }
}

/// The settings in force for an event, and a notice for the report where they are not those of the checkout.
pub async fn of_event(event: &Event, explicit: Option<&Path>, shell: &Shell) -> Result<(LoadedConfig, Option<String>)> {
    if event.pull_request.is_none() {
        return Ok((of_checkout(explicit)?, None));
    }
    let base = match (&event.base_sha, &event.base_branch) {
        (Some(commit), _) => Some(commit.clone()),
        (None, Some(branch)) => git::branch(branch).await,
        (None, None) => None,
    };
    match base {
        Some(commit) if git::date(&commit).await.is_some() => of_base(&commit, explicit).await,
        _ => {
            let loaded = of_checkout(explicit)?;
            if let Some(file) = &loaded.file {
                shell.say(&format!(
                    "`{file}` is read from the pull request, which may have changed it: this checkout does not contain \
                     the base commit. Check out with `fetch-depth: 0`."
                ));
            }
            Ok((loaded, None))
        }
    }
}

async fn of_base(base: &str, explicit: Option<&Path>) -> Result<(LoadedConfig, Option<String>)> {
    let in_checkout = config_file::find(Path::new("."), explicit).mistake()?;
    let mut in_base = Vec::new();
    let places = explicit.map_or_else(|| PLACES.map(Path::new).to_vec(), |path| vec![path]);
    for place in places {
        match git::tracked(base, place).await? {
            Tracked::As(text) => in_base.push((place.display().to_string(), text)),
            // A file that is in no commit was made by the job.
            Tracked::Never if in_checkout.as_ref().is_some_and(|file| file.path.ends_with(place)) => {
                return Ok((of_checkout(explicit)?, None));
            }
            Tracked::Never | Tracked::Absent => {}
        }
    }
    let short = base.get(..7).unwrap_or(base);
    let Some((path, text)) = in_base.first() else {
        let notice = "The pull request adds settings that its base does not have: the defaults are in force.";
        return Ok((LoadedConfig::default(), in_checkout.map(|_| notice.to_owned())));
    };
    let loaded = LoadedConfig::read(text, &format!("{path} of base ({short})")).mistake()?;
    let same = in_checkout.is_some_and(|file| file.path.ends_with(path) && file.text.trim_end() == text.trim_end());
    let notice = format!("The pull request changes `{path}`: the settings of its base ({short}) are in force.");
    Ok((loaded, (!same).then_some(notice)))
}
