//! Python environments with packages, by `uv`: the one on `PATH`, or one that is installed from PyPI into the cache.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use indexmap::IndexMap;

use super::wheel_cache::{self, WheelCache};
use crate::environment::Environment;
use crate::escape;
use crate::exit::Classify;
use crate::system::host_variables;
use crate::system::program::{self, Failure, Program};
use crate::system::program_path;
use crate::system::shell::Shell;

/// How long one command may take: an installation downloads gigabytes.
const LIMIT: Duration = Duration::from_secs(2 * 3600);

/// Longest message of `uv` in an error, in characters.
const MESSAGE: usize = 600;

/// Where uv is explained.
const HELP: &str = "install uv (https://docs.astral.sh/uv) so that it is on PATH";

/// A `uv` of this machine.
#[derive(Debug)]
pub struct Uv {
    program: PathBuf,
    variables: IndexMap<String, String>,
}

impl Uv {
    /// The `uv` on `PATH`, or else one in the cache, which is installed from PyPI first.
    ///
    /// # Errors
    /// Exit 4: it can neither be found nor installed.
    pub async fn find(cache: &WheelCache, shell: &Shell) -> Result<Self> {
        let environment = &shell.environment;
        let variables = variables(environment);
        let path = environment.get("PATH").unwrap_or_default();
        if let Some(program) = program_path::find(Path::new("uv"), path) {
            return Ok(Self { program, variables });
        }
        let slot = cache.slot("uv", shell).await?;
        let program = slot.folder.join("bin/uv");
        if WheelCache::held::<String>(&slot.folder).is_none() {
            shell.say("there is no `uv` on PATH: installing it from PyPI");
            let python = program_path::find(Path::new("python3"), path)
                .with_context(|| format!("there is neither `uv` nor `python3` on PATH: {HELP}"))
                .world()?;
            slot.clear()?;
            let folder = slot.folder.display().to_string();
            let cannot = || format!("there is no `uv` on PATH, and it cannot be installed from PyPI: {HELP}");
            run(&python, &["-m", "venv", &folder], &variables).await.with_context(cannot).world()?;
            let pip = slot.folder.join("bin/python");
            let install =
                ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "uv"];
            run(&pip, &install, &variables).await.with_context(cannot).world()?;
            WheelCache::complete(&slot.folder, &"uv")?;
        }
        Ok(Self { program, variables })
    }

    /// What of the operator's settings of uv decides which packages are installed, as part of the name of an environment.
    pub fn settings(&self) -> String {
        let decides = |name: &str| {
            (name.starts_with("UV_") && !["UV_CACHE_DIR", "UV_OFFLINE"].contains(&name)) || name == "PIP_INDEX_URL"
        };
        let settings = self.variables.iter().filter(|(name, _)| decides(name));
        let shown = settings.map(|(name, value)| {
            // A setting may be a file with versions.
            let content = wheel_cache::hash_of(Path::new(value)).unwrap_or_default();
            format!("{name}={value}={content}\n")
        });
        shown.collect()
    }

    /// Whether the operator has decided where PyTorch comes from.
    pub fn is_torch_chosen(&self, environment: &Environment) -> bool {
        environment.is_set("UV_TORCH_BACKEND")
    }

    /// Makes an environment.
    ///
    /// # Errors
    /// When uv cannot; its own words are in the error.
    pub async fn make(&self, folder: &Path, python: &str) -> Result<()> {
        let folder = folder.display().to_string();
        self.uv(&["venv", "--quiet", "--python", python, &folder]).await
    }

    /// Installs into an environment.
    ///
    /// # Errors
    /// When uv cannot; its own words are in the error.
    pub async fn install(&self, folder: &Path, arguments: &[&str]) -> Result<()> {
        let python = folder.join("bin/python").display().to_string();
        self.uv(&[&["pip", "install", "--quiet", "--python", &python][..], arguments].concat()).await
    }

    async fn uv(&self, arguments: &[&str]) -> Result<()> {
        run(&self.program, arguments, &self.variables).await
    }
}

/// What uv and pip get of the operator's environment: their own settings, and how the network is reached. Packages are not
/// built here: that would run code of theirs.
fn variables(environment: &Environment) -> IndexMap<String, String> {
    let is_own =
        |name: &str| ["UV_", "PIP_"].iter().any(|prefix| name.starts_with(prefix)) && !name.starts_with("UV_PUBLISH_");
    let mut all = host_variables::chosen(environment, |name| host_variables::is_of_the_host(name) || is_own(name));
    all.retain(|name, value| name != "UV_TORCH_BACKEND" || !value.is_empty());
    all.entry("UV_NO_BUILD".to_owned()).or_insert_with(|| "1".to_owned());
    all
}

async fn run(program: &Path, arguments: &[&str], variables: &IndexMap<String, String>) -> Result<()> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let words = host_variables::words(variables);
    // Not in the current folder: a pull request could put settings of uv there.
    let folder = Some(Path::new("/"));
    let program = Program { name: program, arguments, variables: &words, folder, stdin: b"", limit: LIMIT };
    let output = program::run(&program).await.map_err(|failure| match failure {
        Failure::NotFound => anyhow!("there is no `{name}` any more"),
        failure => anyhow!("`{name}`: {failure}"),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said: Vec<String> = output.message().split_whitespace().map(str::to_owned).collect();
    bail!("`{name} {}`: {}", arguments.first().copied().unwrap_or_default(), escape::clean(said.join(" "), MESSAGE))
}
