//! Where the files that a suite names may lie. Nobody has reviewed the suite of a pull request: a data set of `/proc` or of the
//! operator's home would be sent to the server of that pull request as prompts.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use vllm_verdict::v1::{Event, Skipped};

use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::suite::Case;
use crate::plan::suite::client_flags::{FlagValue, is_flag, values};
use crate::system::file_words::paths;
use crate::system::model_folder;
use crate::system::work_tree::{repositories, without_dots};

/// Most entries of a folder that a suite names, such as that of a model.
const MOST_ENTRIES: usize = 10_000;

/// The folders in which the files of a suite may lie.
#[derive(Debug)]
pub enum SuiteFiles {
    /// Those of the user who started the run: everywhere.
    Everywhere,
    /// Those of a pull request: below these folders, which are resolved.
    Below(Vec<PathBuf>),
}

impl SuiteFiles {
    /// Everywhere, or [`Self::of_pull_request`] where the event is one.
    ///
    /// # Errors
    /// As of [`Self::of_pull_request`].
    pub fn of_event(event: &Event, suite: &Path, named: &[PathBuf], environment: &Environment) -> Result<Self> {
        match event.pull_request {
            Some(_) => Self::of_pull_request(suite, named, environment),
            None => Ok(Self::Everywhere),
        }
    }

    /// For the suite of a pull request in `suite`: the suite itself, the checkout, the cache of Hugging Face, and the
    /// folders that the operator `named`.
    ///
    /// # Errors
    /// The user's mistake (exit 2): the suite's folder is a link that leads out of the checkout.
    pub fn of_pull_request(suite: &Path, named: &[PathBuf], environment: &Environment) -> Result<Self> {
        let current = Path::new(".").canonicalize().context("cannot find the current folder").world()?;
        Self::below(&current, suite, named, environment).mistake()
    }

    fn below(current: &Path, suite: &Path, named: &[PathBuf], environment: &Environment) -> Result<Self> {
        let home = environment.get("HOME").and_then(|home| Path::new(home).canonicalize().ok());
        // A work tree in which the home folder lies, as for files of settings, is no checkout of a pull request.
        let narrow =
            |folder: &Path| folder.parent().is_some() && home.as_ref().is_none_or(|home| !home.starts_with(folder));
        let written = without_dots(&current.join(suite));
        let resolved = written.canonicalize().unwrap_or_else(|_| written.clone());
        let checkout = repositories(current).next().unwrap_or(current);
        // Every checkout that the folder is spelled to be in has to hold it: the commit can make it a link.
        let mut spelled = repositories(&written).chain([checkout]).filter(|tree| written.starts_with(tree));
        if !spelled.all(|tree| tree.canonicalize().is_ok_and(|tree| resolved.starts_with(tree))) {
            bail!("the suite's folder `{}` is a link that leads out of the checkout", suite.display());
        }
        let trees = [Some(checkout), repositories(&resolved).next()].into_iter().flatten();
        let mut folders: Vec<PathBuf> = trees.filter(|folder| narrow(folder)).map(Path::to_owned).collect();
        folders.push(resolved);
        folders.extend(model_folder::hub(environment).iter().chain(named).filter_map(|it| it.canonicalize().ok()));
        folders.dedup();
        Ok(Self::Below(folders))
    }

    /// Leaves out the cases that name a file elsewhere, and adds their tests to `skipped`. `file_of` is the test file of a
    /// case. With `remote`, the server runs elsewhere but the client runs here, where it must not run a model's code.
    pub fn leave_out(
        &self,
        cases: &mut Vec<Case>,
        skipped: &mut Vec<Skipped>,
        remote: bool,
        file_of: impl Fn(&Case) -> String,
    ) {
        let mut refused: Vec<Skipped> = Vec::new();
        cases.retain(|case| {
            let Err(error) = self.check_case(case, remote) else { return true };
            if !refused.iter().any(|refused| refused.name.raw() == case.test) {
                let reason = format!("{}: test `{}`: {error:#}", file_of(case), case.test);
                refused.push(Skipped::invalid(case.test.as_str(), reason));
            }
            false
        });
        // The first ones are in the error of a plan without cases.
        skipped.splice(0..0, refused);
    }

    fn check_case(&self, case: &Case, remote: bool) -> Result<()> {
        if let (true, Self::Below(_)) = (remote, self) {
            let name = |word: &String| word.split('=').next().unwrap_or_default().to_owned();
            let runs_code = case.client.argv.iter().any(|word| is_flag(&name(word), "trust-remote-code"));
            ensure!(!runs_code, "`--trust-remote-code` would run code of the model on this machine");
        }
        let commands = case.server.iter().chain([&case.client]);
        for FlagValue { flag, value } in commands.flat_map(|command| values(&command.argv)) {
            let checked = matches!(self, Self::Everywhere) || !is_flag(flag, "config");
            ensure!(checked, "`{flag}` names a file of flags, which are not checked: write them into the test");
            for path in paths(flag, value) {
                let place = if flag.is_empty() { "the model" } else { flag };
                self.check(&path).with_context(|| format!("`{place}` names `{}`", path.display()))?;
            }
        }
        Ok(())
    }

    /// Checks a file or a folder. One that does not exist may lie there, too: it can be in a container.
    ///
    /// # Errors
    /// It lies elsewhere, also by a link; it, or something in the folder, is neither a file nor a folder.
    pub fn check(&self, path: &Path) -> Result<()> {
        let Self::Below(folders) = self else { return Ok(()) };
        let place = resolve(path)?;
        let Some(folder) = folders.iter().find(|folder| place.starts_with(folder)) else {
            bail!(
                "a pull request's files must lie in its checkout, in the Hugging Face cache or in a folder of `allowed_folders` in vllm-perf.yml"
            );
        };
        let below = place.strip_prefix(folder).unwrap_or(&place);
        // It can hold the token that fetched the checkout.
        ensure!(!below.iter().any(|part| part == ".git"), "a pull request may not name a file of git");
        let tokens = ["token", "stored_tokens"].map(Path::new);
        ensure!(!tokens.contains(&below), "a pull request may not name a token of Hugging Face");
        let Ok(metadata) = fs::metadata(&place) else { return Ok(()) };
        ensure!(metadata.is_file() || metadata.is_dir(), "it is neither a file nor a folder");
        if metadata.is_dir() { self.check_folder(&place) } else { Ok(()) }
    }

    /// Checks that no link in a folder leads out.
    fn check_folder(&self, folder: &Path) -> Result<()> {
        let (mut folders, mut seen) = (vec![folder.to_owned()], 0);
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).with_context(|| format!("cannot read `{}`", folder.display()))? {
                let entry = entry.with_context(|| format!("cannot read `{}`", folder.display()))?;
                let (path, kind) = (entry.path(), entry.file_type().context("cannot read a folder")?);
                seen += 1;
                ensure!(seen <= MOST_ENTRIES, "it has more than {MOST_ENTRIES} files");
                if kind.is_dir() && entry.file_name() != ".git" {
                    folders.push(path);
                } else if kind.is_symlink() {
                    self.check_link(&path).with_context(|| format!("the link `{}`", path.display()))?;
                } else if !kind.is_file() && !kind.is_dir() {
                    bail!("`{}` in it is neither a file nor a folder", path.display());
                }
            }
        }
        Ok(())
    }

    /// Checks where a link in a folder leads. A folder that it leads to is not entered: it may be one above.
    fn check_link(&self, link: &Path) -> Result<()> {
        let Self::Below(folders) = self else { return Ok(()) };
        let place = resolve(link)?;
        let inside = folders.iter().any(|folder| place.starts_with(folder));
        ensure!(inside && !place.iter().any(|part| part == ".git"), "leads out");
        ensure!(fs::metadata(&place).is_ok_and(|it| it.is_file()), "does not lead to a file");
        Ok(())
    }
}

/// The place of `path` without links. Of a path that does not exist, the part that does is resolved.
fn resolve(path: &Path) -> Result<PathBuf> {
    let mut existing = path;
    loop {
        let shown = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
        if let Ok(resolved) = shown.canonicalize() {
            let rest = path.strip_prefix(existing).unwrap_or(Path::new(""));
            let plain = rest.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
            ensure!(plain, "it leads through a folder that is not there");
            return Ok(if rest.as_os_str().is_empty() { resolved } else { resolved.join(rest) });
        }
        ensure!(shown.symlink_metadata().is_err(), "`{}` is a link to nothing, or cannot be read", shown.display());
        existing = existing.parent().context("no part of it exists")?;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::system::output;

    /// A checkout with a suite and a model, beside a folder with a secret and one with models of the operator.
    fn machine() -> (tempfile::TempDir, PathBuf) {
        let machine = tempfile::tempdir().unwrap();
        let root = machine.path().canonicalize().unwrap();
        for file in [
            "pr/.git/config",
            "pr/suite/a.json",
            "pr/m/tokenizer.json",
            "home/.cache/huggingface/hub/models--a--b/refs/main",
            "home/.cache/huggingface/token",
            "home/.ssh/id",
            "models/llama/tokenizer.json",
        ] {
            output::write(&root.join(file), b"x").unwrap();
        }
        (machine, root)
    }

    fn allowed(root: &Path, suite: &str) -> Result<SuiteFiles> {
        let environment = [("HOME", root.join("home").display().to_string())].into_iter().collect();
        SuiteFiles::below(&root.join("pr"), Path::new(suite), &[root.join("models")], &environment)
    }

    #[test]
    fn files_of_the_checkout_of_the_cache_and_of_named_folders_are_allowed() {
        let (_machine, root) = machine();
        let files = allowed(&root, "suite").unwrap();
        symlink("tokenizer.json", root.join("pr/m/link.json")).unwrap();
        for path in [
            "pr/suite/a.json",
            "pr/m",
            "pr/suite/../m/tokenizer.json",
            "pr/m/link.json",
            "pr/not/there",
            "home/.cache/huggingface/hub/models--a--b",
            "models/llama",
        ] {
            let checked = files.check(&root.join(path));
            assert!(checked.is_ok(), "{path}: {:#}", checked.unwrap_err());
        }
        assert!(SuiteFiles::Everywhere.check(Path::new("/proc/self/environ")).is_ok());
    }

    #[test]
    fn everything_else_is_refused_however_it_is_reached() {
        let (_machine, root) = machine();
        let pr = root.join("pr");
        let link = |to: &str, from: &str| symlink(to, pr.join(from)).unwrap();
        link("/proc/self/environ", "environ");
        link("/proc/self", "process");
        link("../home", "home");
        link("environ", "twice");
        link("loop", "loop");
        link("../nowhere/../home/.ssh/id", "dangling");
        link(".git/config", "git-link");
        for model in ["m1", "m2", "m3", "m4"] {
            fs::create_dir(pr.join(model)).unwrap();
        }
        link("../../home/.ssh/id", "m1/chat_template.jinja");
        link("../m1", "m2/below");
        nix::unistd::mkfifo(&pr.join("m3/tokenizer.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        link("/dev/zero", "m4/zero");
        let files = allowed(&root, "suite").unwrap();
        for path in [
            "/proc/self/environ",
            "/proc/self/../self/environ",
            "/dev/zero",
            "/dev/stdin",
            "/sys/kernel",
            "/",
            "environ",
            "process/environ",
            "home/.ssh/id",
            "twice",
            "loop",
            "dangling",
            "git-link",
            ".git/config",
            "m/../../home/.ssh/id",
            "nowhere/../../home/.ssh/id",
            "m1",
            "m2",
            "m3",
            "m3/tokenizer.json",
            "m4",
            "../home/.cache/huggingface/token",
            "../models-of-others",
        ] {
            assert!(files.check(&pr.join(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn a_suite_that_is_a_link_out_of_its_checkout_is_refused() {
        let (_machine, root) = machine();
        symlink("../home/.ssh", root.join("pr/out")).unwrap();
        symlink("/proc/self", root.join("pr/process")).unwrap();
        output::write(&root.join("home/.git/config"), b"x").unwrap();
        symlink("../home", root.join("pr/tree")).unwrap();
        for suite in ["out", "process", "process/fd", "tree", "tree/.ssh"] {
            assert!(allowed(&root, suite).is_err(), "{suite}");
            assert!(allowed(&root, &root.join("pr").join(suite).display().to_string()).is_err(), "{suite}");
        }
        // A home folder that is a work tree is not the checkout of a pull request.
        let files = allowed(&root, &root.join("home/.cache").display().to_string()).unwrap();
        assert!(files.check(&root.join("home/.ssh/id")).is_err());
    }
}
