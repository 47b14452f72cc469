//! The folders that a pull request can write: the checkout that a job works in. What lies there is the pull request's word.

use std::path::{Component, Path, PathBuf};

use crate::environment::Environment;

/// The checkout, as absolute paths without links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkTree {
    /// The current folder.
    current: PathBuf,
    /// The top of the checkout: the nearest folder above the current one that has `.git`, or else the current folder.
    top: PathBuf,
    /// Further folders into which CI checks out.
    others: Vec<PathBuf>,
}

impl WorkTree {
    /// The checkout of the current folder. git is not asked: it may refuse to answer.
    pub fn here(environment: &Environment) -> Self {
        let current = Path::new(".").canonicalize().unwrap_or_else(|_| PathBuf::from("/"));
        Self::of(current, environment)
    }

    fn of(current: PathBuf, environment: &Environment) -> Self {
        let top = repository(&current).unwrap_or(&current).to_owned();
        let variables = ["GITHUB_WORKSPACE", "BUILDKITE_BUILD_CHECKOUT_PATH"];
        let others = variables.into_iter().filter_map(|name| Path::new(environment.get(name)?).canonicalize().ok());
        Self { others: others.collect(), current, top }
    }

    /// The top of the checkout.
    pub fn top(&self) -> &Path {
        &self.top
    }

    /// The path of a file of the current folder, from the top of the checkout.
    pub fn from_top(&self, name: &Path) -> PathBuf {
        self.current.strip_prefix(&self.top).unwrap_or(Path::new("")).join(name)
    }

    /// Whether a pull request can write what `path` names: by its own words, or by where its links lead.
    pub fn holds(&self, path: &Path) -> bool {
        let real = path_without_links(&self.absolute(path));
        let inside = |path: &Path| self.roots().any(|root| path.starts_with(root));
        inside(&self.absolute(path)) || inside(&real)
    }

    /// The top of any repository that holds what `path` leads to.
    pub fn repository_of(&self, path: &Path) -> Option<PathBuf> {
        repository(path_without_links(&self.absolute(path)).parent()?).map(Path::to_owned)
    }

    /// The folder of the checkout that holds `path`, and the path from there; `None` where only its links lead into it.
    pub fn place_of(&self, path: &Path) -> Option<(PathBuf, PathBuf)> {
        let absolute = self.absolute(path);
        let root = self.roots().find(|root| absolute.starts_with(root))?;
        Some((root.clone(), absolute.strip_prefix(root).ok()?.to_owned()))
    }

    /// Whether `path`, or a folder on the way to it from the top of the checkout, is a link.
    pub fn is_linked(&self, path: &Path) -> bool {
        let absolute = self.absolute(path);
        let below = |part: &&Path| self.roots().any(|root| part.starts_with(root) && part != root);
        absolute.ancestors().filter(below).any(|part| part.symlink_metadata().is_ok_and(|it| it.is_symlink()))
    }

    fn roots(&self) -> impl Iterator<Item = &PathBuf> {
        std::iter::once(&self.top).chain(&self.others)
    }

    /// The path from the root of the file system, without `.` and `..`.
    fn absolute(&self, path: &Path) -> PathBuf {
        without_dots(&self.current.join(path))
    }
}

/// The top of the checkout that the current folder is in, if it is in one.
pub fn top_of_current() -> Option<PathBuf> {
    repository(&Path::new(".").canonicalize().ok()?).map(Path::to_owned)
}

/// The nearest folder, from `folder` upwards, that has `.git`.
fn repository(folder: &Path) -> Option<&Path> {
    repositories(folder).next()
}

/// The folders, from `folder` upwards by its spelling, that have `.git`, the nearest first.
pub fn repositories(folder: &Path) -> impl Iterator<Item = &Path> {
    folder.ancestors().filter(|folder| folder.join(".git").symlink_metadata().is_ok())
}

/// The path without `.` and `..`; links are not followed.
pub fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = plain.pop(),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

/// Where `path` leads: the links of its existing part are followed.
fn path_without_links(path: &Path) -> PathBuf {
    let existing = path.ancestors().find_map(|part| Some((part.canonicalize().ok()?, part)));
    existing.map_or_else(|| path.to_owned(), |(real, part)| real.join(path.strip_prefix(part).unwrap_or(path)))
}

#[cfg(test)]
mod tests {
    use std::fs::create_dir_all;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_a_pull_request_can_write_is_told_from_what_the_operator_names() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for made in ["repository/.git", "repository/ci", "outside", "other/.git"] {
            create_dir_all(root.join(made)).unwrap();
        }
        symlink(root.join("outside"), root.join("repository/linked")).unwrap();
        symlink(root.join("repository/ci"), root.join("back")).unwrap();
        let tree = WorkTree::of(root.join("repository/ci"), &Environment::default());
        assert_eq!(
            (tree.top(), tree.from_top(Path::new("a.yml"))),
            (root.join("repository").as_path(), "ci/a.yml".into())
        );
        for inside in ["a.yml", "../a.yml", "../linked/a.yml", "../../back/a.yml", "../missing/a.yml"] {
            assert!(tree.holds(Path::new(inside)), "{inside}");
        }
        for outside in ["../../outside/a.yml", "/etc/vllm-perf.yml", "../../a.yml", "../../other/a.yml"] {
            assert!(!tree.holds(Path::new(outside)), "{outside}");
        }
        assert_eq!(tree.repository_of(Path::new("../../other/a.yml")), Some(root.join("other")));
        assert_eq!(tree.place_of(Path::new("../a.yml")), Some((root.join("repository"), "a.yml".into())));
        assert_eq!(tree.place_of(Path::new("../../back/a.yml")), None);
        assert!(tree.is_linked(Path::new("../linked/a")) && !tree.is_linked(Path::new("../ci/a")));
    }

    #[test]
    fn the_folder_into_which_ci_checks_out_counts_wherever_the_step_works() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for made in ["workspace", "work"] {
            create_dir_all(root.join(made)).unwrap();
        }
        let workspace = root.join("workspace").display().to_string();
        let environment: Environment = [("GITHUB_WORKSPACE", workspace.as_str())].into_iter().collect();
        let tree = WorkTree::of(root.join("work"), &environment);
        assert!(tree.holds(Path::new("../workspace/a.yml")) && tree.holds(Path::new("a.yml")));
        assert!(!tree.holds(Path::new("../a.yml")));
    }
}
