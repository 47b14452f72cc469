//! The settings in force for an event. Those of a pull request are its base's: what it asks to be measured may not change
//! the rules that it is measured by.

use crate::system::config_file;
use std::path::Path;

use anyhow::Result;
use vllm_verdict::v1::Event;

use crate::exit::Classify;
use crate::plan::config::{self, Config};
use crate::system::config_file::PLACES;
use crate::system::git::{self, Tracked};
use crate::system::shell::Shell;

/// The config of the checkout, and the file that it came from.
pub fn of_checkout(explicit: Option<&Path>) -> Result<(Config, Option<(String, String)>)> {
    let Some((path, text)) = config_file::find(Path::new("."), explicit).mistake()? else {
        return Ok((Config::default(), None));
    };
    let file = path.display().to_string();
    let config = config::parse(&text, &file).mistake()?;
    Ok((config, Some((file, text))))
}

/// The config in force for an event, and what the report has to say of it.
pub async fn of_event(event: &Event, explicit: Option<&Path>, shell: &Shell) -> Result<(Config, Option<String>)> {
    if event.pull_request.is_none() {
        return Ok((of_checkout(explicit)?.0, None));
    }
    let base = match (&event.base_sha, &event.base_branch) {
        (Some(commit), _) => Some(commit.clone()),
        (None, Some(branch)) => git::branch(branch).await,
        (None, None) => None,
    };
    let base = match base {
        Some(commit) if git::date(&commit).await.is_some() => commit,
        _ => {
            let (config, file) = of_checkout(explicit)?;
            if let Some((file, _)) = file {
                shell.say(&format!(
                    "`{file}` is that of the pull request, which may have changed it: this checkout has no base to read it \
                     from. Check out with `fetch-depth: 0`."
                ));
            }
            return Ok((config, None));
        }
    };
    of_base(&base, explicit).await
}

async fn of_base(base: &str, explicit: Option<&Path>) -> Result<(Config, Option<String>)> {
    let now = config_file::find(Path::new("."), explicit).mistake()?;
    let mut found = Vec::new();
    let places = explicit.map_or_else(|| PLACES.map(Path::new).to_vec(), |path| vec![path]);
    for place in places {
        match git::tracked(base, place).await? {
            Tracked::As(text) => found.push((place.display().to_string(), text)),
            // A file that is in no commit was made by the job.
            Tracked::Never if now.as_ref().is_some_and(|(path, _)| path.ends_with(place)) => {
                return Ok((of_checkout(explicit)?.0, None));
            }
            Tracked::Never | Tracked::Absent => {}
        }
    }
    let short = base.get(..7).unwrap_or(base);
    let Some((file, text)) = found.first() else {
        let notice = "The pull request adds settings that its base does not have: the defaults are in force.";
        return Ok((Config::default(), now.map(|_| notice.to_owned())));
    };
    let config = config::parse(text, &format!("{file} of base ({short})")).mistake()?;
    let same = now.is_some_and(|(path, now)| path.ends_with(file) && now.trim_end() == text.trim_end());
    let notice = format!("The pull request changes `{file}`: the settings of its base ({short}) are in force.");
    Ok((config, (!same).then_some(notice)))
}
