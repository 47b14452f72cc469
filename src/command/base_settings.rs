//! The settings in force for an event. A pull request is measured by the settings of its base, so that it cannot change
//! the rules that it is judged by.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use vllm_verdict::v1::Event;

use crate::ci::event::is_proposal;
use crate::command::event_flags::EventArgs;
use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::config::{LONGEST_FILE, LoadedConfig};
use crate::system::config_file::{self, PLACES};
use crate::system::git::{Git, InCommit};
use crate::system::github::Github;
use crate::system::shell::Shell;
use crate::system::work_tree::WorkTree;

/// The settings of the checkout.
pub fn of_checkout(explicit: Option<&Path>) -> Result<LoadedConfig> {
    match config_file::find(Path::new("."), explicit).mistake()? {
        Some(file) => LoadedConfig::read(&file.text, &file.path.display().to_string()).mistake(),
        None => Ok(LoadedConfig::default()),
    }
}

/// The settings in force for a command that reads no event: those of the event of the CI job that it runs in, if it does.
///
/// # Errors
/// The user's mistake (exit 2): an event or settings that cannot be read.
pub async fn of_job(explicit: Option<&Path>, shell: &Shell) -> Result<LoadedConfig> {
    let (event, ci) = EventArgs::of_job().read(&[], &shell.environment).await?;
    let github = EventArgs::of_job().github(&ci, &shell.environment)?;
    let (loaded, notice) = of_event(&event, explicit, github.as_ref(), &shell.environment).await?;
    notice.iter().for_each(|notice| shell.say(notice));
    Ok(loaded)
}

/// Whether a store is a folder that the pull request of an event can write.
pub fn is_of_proposal(event: &Event, store: &str, environment: &Environment) -> bool {
    let folder = match store.strip_prefix("file://") {
        Some(folder) => folder,
        None if store.contains("://") => return false,
        None => store,
    };
    is_proposal(event) && WorkTree::here(environment).holds(Path::new(folder))
}

/// The settings in force for an event, and a notice for the report where they are not those of the checkout. Those of a
/// pull request come from its base alone; a file that the operator names counts if it lies outside the checkout.
///
/// # Errors
/// The user's mistake (exit 2): settings that cannot be read.
pub async fn of_event(
    event: &Event,
    explicit: Option<&Path>,
    github: Option<&Github>,
    environment: &Environment,
) -> Result<(LoadedConfig, Option<String>)> {
    if !is_proposal(event) {
        return Ok((of_checkout(explicit)?, None));
    }
    let (tree, git) = (WorkTree::here(environment), Git::new(environment));
    let places = match explicit {
        Some(path) if !tree.holds(path) && !is_of_head(event, tree.repository_of(path), &git).await => {
            return Ok((of_checkout(explicit)?, None));
        }
        Some(path) => {
            let Some((folder, path)) = tree.place_of(path) else { return Err(hidden(path)).mistake() };
            Places { folder, paths: vec![path] }
        }
        None => {
            let paths = PLACES.map(|place| tree.from_top(Path::new(place)));
            Places { folder: tree.top().to_owned(), paths: paths.to_vec() }
        }
    };
    let found = match base_of(event, &git, github).await {
        Some(commit) => places.of_commit(&commit, &git, github.zip(event.repository.as_deref())).await.mistake()?,
        None => Found::Unknown("the event does not name it".to_owned(), "base".to_owned()),
    };
    in_force(found, &places)
}

/// The settings of the base of a pull request, for a job that has no checkout of it.
///
/// # Errors
/// The user's mistake (exit 2): settings that cannot be read.
pub async fn of_commit(commit: &str, github: &Github, repository: &str) -> Result<(LoadedConfig, Option<String>)> {
    let places = Places { folder: PathBuf::new(), paths: PLACES.map(PathBuf::from).to_vec() };
    let why = "GitHub's API does not give them";
    in_force(places.of_api(commit, why, Some((github, repository))).await.mistake()?, &places)
}

/// Whether a repository is another checkout of the pull request, or git does not tell.
async fn is_of_head(event: &Event, repository: Option<PathBuf>, git: &Git) -> bool {
    match (repository, &event.head_sha) {
        (Some(folder), Some(head)) => git.has_commit(&folder, head).await.unwrap_or(true),
        (repository, _) => repository.is_some(),
    }
}

/// A link outside the checkout that leads into it, or a file of another checkout.
fn hidden(path: &Path) -> anyhow::Error {
    anyhow!(
        "the config file `{}` leads into a checkout, which a pull request can change: name a file outside of it",
        path.display()
    )
}

/// The commit that the settings are read from: the tip of the target branch, as CI or the repository knows it.
async fn base_of(event: &Event, git: &Git, github: Option<&Github>) -> Option<String> {
    let branch = match (&event.base_sha, &event.base_branch) {
        (Some(commit), _) => return Some(commit.clone()),
        (None, branch) => branch.as_deref()?,
    };
    match (git.branch_of_origin(branch).await, github, &event.repository) {
        (Some(commit), ..) => Some(commit),
        (None, Some(github), Some(repository)) => github.tip(repository, branch).await.ok(),
        _ => None,
    }
}

/// Where a repository may keep its settings.
struct Places {
    folder: PathBuf,
    /// From the top of the repository.
    paths: Vec<PathBuf>,
}

/// What a commit has in these places.
enum Found {
    /// Path and text of the file, and the commit.
    File(String, String, String),
    /// The commit has no settings.
    Nothing,
    /// Why it is not known, and the commit.
    Unknown(String, String),
}

impl Places {
    /// Asks git, and where it cannot answer, the API.
    async fn of_commit(&self, commit: &str, git: &Git, github: Option<(&Github, &str)>) -> Result<Found> {
        let mut files = Vec::new();
        for path in &self.paths {
            match git.file_of(&self.folder, commit, path, LONGEST_FILE).await {
                Ok(InCommit::Text(text)) => files.push((path.display().to_string(), text)),
                Ok(InCommit::Absent) => {}
                Ok(InCommit::Refused(why)) => {
                    let name = path.display();
                    return Err(anyhow!("cannot read the settings `{name}` of base ({}): {why}", short(commit)));
                }
                Err(error) => return self.of_api(commit, &format!("{error:#}"), github).await,
            }
        }
        one(files, commit)
    }

    async fn of_api(&self, commit: &str, why: &str, github: Option<(&Github, &str)>) -> Result<Found> {
        let unknown = |why: String| Ok(Found::Unknown(why, short(commit).to_owned()));
        let Some((github, repository)) = github else {
            return unknown(format!("{why}, and there is no token for GitHub's API"));
        };
        let mut files = Vec::new();
        for path in &self.paths {
            let path = path.display().to_string();
            match github.file_of(repository, commit, &path, LONGEST_FILE).await {
                Ok(text) => files.extend(text.map(|text| (path, text))),
                Err(error) => return unknown(format!("{error:#}")),
            }
        }
        if files.is_empty() && !github.has_commit(repository, commit).await {
            return unknown(format!("{why}, and GitHub's API does not have it either"));
        }
        one(files, commit)
    }

    /// Whether the checkout has a file in one of the places.
    fn are_taken(&self) -> bool {
        self.paths.iter().any(|path| self.folder.join(path).symlink_metadata().is_ok())
    }

    /// Whether the checkout has this text there, in a regular file.
    fn have(&self, path: &str, text: &str) -> bool {
        let file = self.folder.join(path);
        let regular = file.symlink_metadata().is_ok_and(|it| it.is_file() && it.len() <= LONGEST_FILE as u64);
        let others = self.paths.iter().filter(|other| **other != Path::new(path));
        let alone = others.into_iter().all(|other| self.folder.join(other).symlink_metadata().is_err());
        regular && alone && std::fs::read_to_string(file).is_ok_and(|there| there.trim_end() == text.trim_end())
    }
}

fn one(files: Vec<(String, String)>, commit: &str) -> Result<Found> {
    match <[_; 1]>::try_from(files) {
        Ok([(path, text)]) => Ok(Found::File(path, text, commit.to_owned())),
        Err(files) if files.is_empty() => Ok(Found::Nothing),
        Err(files) => {
            let names: Vec<String> = files.into_iter().map(|(path, _)| format!("`{path}`")).collect();
            Err(anyhow!("base ({}) has both {}: remove one", short(commit), names.join(" and ")))
        }
    }
}

/// The settings, and the notice where the checkout has others.
fn in_force(found: Found, places: &Places) -> Result<(LoadedConfig, Option<String>)> {
    let names = places.paths.first().map_or_else(String::new, |path| path.display().to_string());
    match found {
        Found::File(path, text, commit) => {
            let short = short(&commit);
            let loaded = LoadedConfig::read(&text, &format!("{path} of base ({short})")).mistake()?;
            let known = places.folder.as_os_str().is_empty() || places.have(&path, &text);
            let notice = format!("The pull request changes `{path}`: the settings of its base ({short}) are in force.");
            Ok((loaded, (!known).then_some(notice)))
        }
        Found::Nothing => {
            let notice = "The pull request adds settings that its base does not have: the defaults are in force. A \
                          file that the job makes counts outside the checkout.";
            Ok((LoadedConfig::default(), places.are_taken().then(|| notice.to_owned())))
        }
        Found::Unknown(why, commit) => {
            let notice = format!(
                "The settings of the base ({commit}) are not known, and `{names}` of the pull request does not count: \
                 the defaults are in force, for labels, images and thresholds. Check out with `fetch-depth: 0`, or give a token. Cause: {why}."
            );
            Ok((LoadedConfig::default(), Some(notice)))
        }
    }
}

fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}
