//! Reads recipes in the format of vllm-project/perf-eval: one YAML file, or a folder of them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};

use crate::exit::Classify;
use crate::plan::suite::recipe::recipe_text::{LONGEST_FILE, RecipeFile};
use crate::system::regular_file;
use crate::system::suite_files::SuiteFiles;

/// Most recipes of a folder.
const MOST_RECIPES: usize = 1000;

/// The recipes at `path`, in the order of their names; `None` where it is a folder of vLLM's test files, or is not there.
///
/// # Errors
/// The user's mistake (exit 2): a file that is no YAML file, or one that cannot be read or lies outside of `allowed`.
pub fn read(path: &Path, allowed: &SuiteFiles) -> Result<Option<Vec<RecipeFile>>> {
    let paths = if path.is_file() {
        if !is_yaml(path) {
            return Err(anyhow!(
                "`{}` is a file: --suite is a folder of test files, or a recipe (.yaml) or a folder of recipes",
                path.display()
            ))
            .mistake();
        }
        vec![path.to_owned()]
    } else {
        recipes_of(path).with_context(|| format!("cannot read `{}`", path.display())).mistake()?
    };
    let read = |path: &PathBuf| {
        let text = allowed.check(path).and_then(|()| Ok(regular_file::text_followed(path, LONGEST_FILE as u64 * 2)?));
        let text = text.with_context(|| format!("cannot read `{}`", path.display())).mistake()?;
        Ok(RecipeFile { path: path.display().to_string(), text })
    };
    if paths.is_empty() { Ok(None) } else { paths.iter().map(read).collect::<Result<_>>().map(Some) }
}

/// The YAML files of a folder that has no JSON file: vLLM's test files are JSON.
fn recipes_of(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "json") {
            return Ok(Vec::new());
        }
        paths.extend(is_yaml(&path).then_some(path));
        anyhow::ensure!(paths.len() <= MOST_RECIPES, "it has more than {MOST_RECIPES} recipes");
    }
    paths.sort();
    Ok(paths)
}

fn is_yaml(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "yaml" || end == "yml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{self, Exit};
    use crate::system::output;

    #[test]
    fn a_file_or_a_folder_of_yaml_files_is_recipes_and_a_folder_of_json_files_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["w/b.yaml", "w/a.yml", "w/README.md", "s/a.yaml", "s/serving-tests.json"] {
            output::write(&path(name), b"x").unwrap();
        }
        let names = |place: &str| {
            let found = read(&path(place), &SuiteFiles::Everywhere).unwrap()?;
            let name = |file: RecipeFile| file.path.rsplit('/').next().unwrap().to_owned();
            Some(found.into_iter().map(name).collect::<Vec<_>>())
        };
        assert_eq!(names("w"), Some(vec!["a.yml".to_owned(), "b.yaml".to_owned()]));
        assert_eq!(names("w/b.yaml"), Some(vec!["b.yaml".to_owned()]));
        assert_eq!((names("s"), names("missing")), (None, None));
        let error = read(&path("w/README.md"), &SuiteFiles::Everywhere).unwrap_err();
        assert_eq!(exit::of(&error), Exit::Mistake);
        let outside = read(&path("w"), &SuiteFiles::Below(vec![path("s")])).unwrap_err();
        assert_eq!(exit::of(&outside), Exit::Mistake);
    }
}
