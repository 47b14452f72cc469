//! Reads vLLM's test files from the folder of a suite.
use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::suite::FileName;
use crate::plan::suite::SuiteFile;
use crate::plan::suite::file_names;
use anyhow::Context;
use anyhow::anyhow;
use std::io::ErrorKind;
use std::path::Path;
use vllm_verdict::case::Kind;
use vllm_verdict::v1::DeviceName;
use vllm_verdict::v1::Skipped;

/// Reads the files of `device` in `dir` or, where the suite has a folder for each device, in that folder; a kind without a
/// file is left out, and said.
///
/// # Errors
/// The user's mistake (exit 2): no such folder, no file at all, or a missing file that a variable names.
pub fn read(dir: &Path, env: &Environment, device: DeviceName) -> anyhow::Result<(Vec<SuiteFile>, Vec<Skipped>)> {
    let shown = dir.display();
    if !dir.is_dir() {
        return Err(anyhow!(
            "`{shown}` is not a folder: pass --suite DIR; in a vLLM checkout it is .buildkite/performance-benchmarks/tests"
        ))
        .mistake();
    }
    let own = dir.join(device.as_str());
    let (mut files, mut skipped) = (Vec::new(), Vec::new());
    for FileName { kind, name, variable } in file_names(env, device) {
        // In a folder of its own a device's files need no suffix.
        let plain = own.join(format!("{}-tests.json", kind.as_str()));
        let path = match own.is_dir() {
            true if variable.is_none() && !own.join(&name).exists() => plain,
            true => own.join(&name),
            false => dir.join(&name),
        };
        match (std::fs::read_to_string(&path), variable) {
            (Ok(text), _) => files.push(SuiteFile { kind, path: path.display().to_string(), text }),
            (Err(error), None) if error.kind() == ErrorKind::NotFound => {
                let reason = format!("no file `{name}` in `{shown}`");
                skipped.push(Skipped { name: kind.as_str().to_owned(), reason });
            }
            (Err(error), variable) => {
                let because = variable.map(|variable| format!(", which {variable} names")).unwrap_or_default();
                return Err(error).with_context(|| format!("cannot read `{}`{because}", path.display())).mistake();
            }
        }
    }
    if files.is_empty() {
        let names = file_names(env, device).into_iter().map(|file| file.name).collect::<Vec<_>>().join(", ");
        return Err(anyhow!(
            "no test file for {device} in `{shown}`: expected one of {names}; pass --suite DIR or --device NAME"
        ))
        .mistake();
    }
    Ok((files, skipped))
}

/// The serving files of `device` in `dir`: that of [`file_names`] or, where the suite has a folder for each device, every
/// file of that folder with `serving` in its name. None where the suite has nothing for the device.
///
/// # Errors
/// The user's mistake (exit 2): no such folder, or a file that cannot be read.
pub fn serving(dir: &Path, env: &Environment, device: DeviceName) -> anyhow::Result<Vec<SuiteFile>> {
    let own = dir.join(device.as_str());
    let mut paths = Vec::new();
    if own.is_dir() {
        for entry in own.read_dir().with_context(|| format!("cannot read `{}`", own.display())).mistake()? {
            let path = entry.with_context(|| format!("cannot read `{}`", own.display())).mistake()?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.contains("serving") && name.ends_with(".json") {
                paths.push(path);
            }
        }
        paths.sort();
    } else if !dir.is_dir() {
        return Err(anyhow!("`{}` is not a folder: pass --suite DIR", dir.display())).mistake();
    } else {
        let named = file_names(env, device).into_iter().filter(|file| file.kind == Kind::Serving);
        let there = |file: FileName| Some(dir.join(file.name)).filter(|path| file.variable.is_some() || path.exists());
        paths.extend(named.filter_map(there));
    }
    let read = |path: &std::path::PathBuf| {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display())).mistake()?;
        Ok(SuiteFile { kind: Kind::Serving, path: path.display().to_string(), text })
    };
    paths.iter().map(read).collect()
}
