//! Reads vLLM's test files from the folder of a suite.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use vllm_verdict::case::Kind;
use vllm_verdict::v1::{DeviceName, Skipped};

use crate::environment::Environment;
use crate::exit::Classify;
use crate::plan::suite::{FileName, SuiteFile, file_names};
use crate::system::regular_file;
use crate::system::suite_files::SuiteFiles;

/// Largest test file, in bytes: those of vLLM have up to 20 kB.
const FILE_LIMIT: u64 = 8 << 20;

/// Reads the files of `device` in `dir` or, where the suite has a folder for each device, in that folder. A kind without a
/// file is among the skipped.
///
/// # Errors
/// The user's mistake (exit 2): no such folder, no file at all, a missing file that a variable names, or one outside of
/// `allowed`.
pub fn read(
    dir: &Path,
    env: &Environment,
    device: DeviceName,
    allowed: &SuiteFiles,
) -> anyhow::Result<(Vec<SuiteFile>, Vec<Skipped>)> {
    let shown = dir.display();
    if !dir.is_dir() {
        return Err(anyhow!(
            "`{shown}` is not a folder: pass --suite DIR; in a vLLM checkout it is .buildkite/performance-benchmarks/tests"
        ))
        .mistake();
    }
    let own = Some(dir.join(device.as_str())).filter(|own| own.is_dir());
    let folder = own.as_deref().unwrap_or(dir);
    let place = folder.display();
    let (mut files, mut skipped, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for FileName { kind, names: mut known, variable } in file_names(env, device) {
        let plain = format!("{}-tests.json", kind.as_str());
        // In the folder of a device, files need no suffix.
        if own.is_some() && variable.is_none() && !known.contains(&plain) {
            known.push(plain);
        }
        let name = first_in(folder, known);
        let path = folder.join(&name);
        // A link of the checkout to a file elsewhere: errors would quote that file.
        allowed.check(&path).with_context(|| format!("cannot read `{}`", path.display())).mistake()?;
        match (regular_file::text_followed(&path, FILE_LIMIT), variable) {
            (Ok(text), _) => files.push(SuiteFile { kind, path: path.display().to_string(), text }),
            (Err(error), None) if error.kind() == ErrorKind::NotFound => {
                let reason = format!("no file `{name}` in `{place}`");
                names.push(name);
                skipped.push(Skipped::new(kind.as_str(), reason));
            }
            (Err(error), variable) => {
                let because = variable.map(|variable| format!(", which {variable} names")).unwrap_or_default();
                return Err(error).with_context(|| format!("cannot read `{}`{because}", path.display())).mistake();
            }
        }
    }
    if files.is_empty() {
        return Err(anyhow!(
            "no test file for {device} in `{place}`: expected one of {}; pass --suite DIR or --device NAME",
            names.join(", ")
        ))
        .mistake();
    }
    Ok((files, skipped))
}

/// The first of `names` that is in `folder`, or else the last, by which an error tells what is missing.
fn first_in(folder: &Path, mut names: Vec<String>) -> String {
    let found = names.iter().position(|name| folder.join(name).exists());
    names.swap_remove(found.unwrap_or(names.len().saturating_sub(1)))
}

/// The serving files of `device` in `dir`: that of [`file_names`] or, where the suite has a folder for each device, every
/// file of that folder with `serving` in its name. None where the suite has nothing for the device.
///
/// # Errors
/// The user's mistake (exit 2): no such folder, or a file that cannot be read or lies outside of `allowed`.
pub fn serving(
    dir: &Path,
    env: &Environment,
    device: DeviceName,
    allowed: &SuiteFiles,
) -> anyhow::Result<Vec<SuiteFile>> {
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
        let there = |file: FileName| {
            let is_named = file.variable.is_some();
            Some(dir.join(first_in(dir, file.names))).filter(|path| is_named || path.exists())
        };
        paths.extend(named.filter_map(there));
    }
    let read = |path: &PathBuf| {
        allowed.check(path).with_context(|| format!("cannot read `{}`", path.display())).mistake()?;
        let text = regular_file::text_followed(path, FILE_LIMIT)
            .with_context(|| format!("cannot read `{}`", path.display()))
            .mistake()?;
        Ok(SuiteFile { kind: Kind::Serving, path: path.display().to_string(), text })
    };
    paths.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::{self, Exit};
    use crate::system::output;

    const UPSTREAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/vllm-suite");

    #[test]
    fn a_suite_may_have_a_folder_for_each_device() {
        let dir = tempfile::tempdir().unwrap();
        let text = std::fs::read_to_string(Path::new(UPSTREAM).join("serving-tests-cpu.json")).unwrap();
        for name in ["rocm/serving-tests.json", "cpu/serving-tests-cpu.json", "serving-tests.json"] {
            output::write(&dir.path().join(name), text.as_bytes()).unwrap();
        }
        let file = |device| {
            let (files, _) = read(dir.path(), &Environment::default(), device, &SuiteFiles::Everywhere).unwrap();
            files[0].path.strip_prefix(&format!("{}/", dir.path().display())).unwrap().to_owned()
        };
        assert_eq!(file(DeviceName::Rocm), "rocm/serving-tests.json");
        assert_eq!(file(DeviceName::Cpu), "cpu/serving-tests-cpu.json");
        assert_eq!(file(DeviceName::Cuda), "serving-tests.json");
    }

    #[test]
    fn a_file_that_is_missing_is_named_where_it_is_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for name in ["cpu/serving-tests.json", "rocm/latency-tests-rocm.json", "serving-tests.json"] {
            output::write(&root.join(name), b"[]").unwrap();
        }
        std::fs::create_dir(root.join("hpu")).unwrap();
        let read = |device| read(root, &Environment::default(), device, &SuiteFiles::Everywhere);
        for (device, folder) in [(DeviceName::Cpu, "cpu"), (DeviceName::Rocm, "rocm"), (DeviceName::Cuda, "")] {
            let (files, skipped) = read(device).unwrap();
            assert_eq!((files.len(), skipped.len()), (1, 3));
            for skipped in skipped {
                let words: Vec<&str> = skipped.reason.raw().split('`').collect();
                assert_eq!(Path::new(words[3]), root.join(folder));
                // A file of that name is found.
                let named = Path::new(words[3]).join(words[1]);
                output::write(&named, b"[]").unwrap();
                let found = read_again(root, device);
                assert!(found.iter().any(|path| Path::new(path) == named), "{}", named.display());
                std::fs::remove_file(named).unwrap();
            }
        }
        let error = format!("{:#}", read(DeviceName::Hpu).unwrap_err()).replace(&root.display().to_string(), "DIR");
        insta::assert_snapshot!(error, @"no test file for hpu in `DIR/hpu`: expected one of serving-tests.json, latency-tests.json, startup-tests.json, throughput-tests.json; pass --suite DIR or --device NAME");
    }

    #[test]
    fn rocm_and_xpu_read_the_file_without_a_suffix_where_they_have_none_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["serving-tests.json", "serving-tests-rocm.json", "latency-tests.json"] {
            output::write(&dir.path().join(name), b"[]").unwrap();
        }
        let names = |device, serving_alone: bool| -> Vec<String> {
            let (none, everywhere) = (Environment::default(), &SuiteFiles::Everywhere);
            let files = match serving_alone {
                true => serving(dir.path(), &none, device, everywhere).unwrap(),
                false => read(dir.path(), &none, device, everywhere).map(|(files, _)| files).unwrap_or_default(),
            };
            files.into_iter().map(|file| file.path.rsplit('/').next().unwrap_or_default().to_owned()).collect()
        };
        assert_eq!(names(DeviceName::Rocm, false), ["serving-tests-rocm.json", "latency-tests.json"]);
        assert_eq!(names(DeviceName::Rocm, true), ["serving-tests-rocm.json"]);
        assert_eq!(names(DeviceName::Xpu, false), ["serving-tests.json", "latency-tests.json"]);
        assert_eq!(names(DeviceName::Xpu, true), ["serving-tests.json"]);
        // Upstream's script has a suffix for these.
        for device in [DeviceName::Hpu, DeviceName::Cpu, DeviceName::Arm64Cpu] {
            assert_eq!((names(device, false), names(device, true)), (Vec::new(), Vec::new()), "{device}");
        }
    }

    fn read_again(root: &Path, device: DeviceName) -> Vec<String> {
        let (files, _) = read(root, &Environment::default(), device, &SuiteFiles::Everywhere).unwrap();
        files.into_iter().map(|file| file.path).collect()
    }

    #[test]
    fn files_are_upstreams_unless_a_variable_names_one() {
        let dir = Path::new(UPSTREAM);
        let env = |variables: &[(&'static str, &'static str)]| variables.iter().copied().collect();
        let (files, skipped) = read(dir, &env(&[]), DeviceName::Cpu, &SuiteFiles::Everywhere).unwrap();
        let kinds: Vec<Kind> = files.iter().map(|file| file.kind).collect();
        assert_eq!(kinds, [Kind::Serving, Kind::Latency, Kind::Throughput]);
        assert_eq!(skipped[0].name, "startup");
        assert_eq!(skipped[0].reason.raw(), format!("no file `startup-tests-cpu.json` in `{UPSTREAM}`"));

        let (files, _) = read(
            dir,
            &env(&[("SERVING_JSON", "serving-tests-cpu-asr.json")]),
            DeviceName::Cpu,
            &SuiteFiles::Everywhere,
        )
        .unwrap();
        assert!(files[0].path.ends_with("serving-tests-cpu-asr.json"), "{}", files[0].path);

        let empty = tempfile::tempdir().unwrap();
        let shown = |result: anyhow::Result<(Vec<SuiteFile>, Vec<Skipped>)>| {
            let error = result.unwrap_err();
            assert_eq!(exit::of(&error), Exit::Mistake);
            format!("{error:#}").replace(UPSTREAM, "DIR").replace(&empty.path().display().to_string(), "DIR")
        };
        let errors = [
            shown(read(dir, &env(&[("LATENCY_JSON", "nope.json")]), DeviceName::Cpu, &SuiteFiles::Everywhere)),
            shown(read(empty.path(), &env(&[]), DeviceName::Xpu, &SuiteFiles::Everywhere)),
            shown(read(&dir.join("nowhere"), &env(&[]), DeviceName::Cpu, &SuiteFiles::Everywhere)),
        ];
        insta::assert_snapshot!(errors.join("\n"), @"
        cannot read `DIR/nope.json`, which LATENCY_JSON names: No such file or directory (os error 2)
        no test file for xpu in `DIR`: expected one of serving-tests.json, latency-tests.json, startup-tests.json, throughput-tests.json; pass --suite DIR or --device NAME
        `DIR/nowhere` is not a folder: pass --suite DIR; in a vLLM checkout it is .buildkite/performance-benchmarks/tests
        ");
    }
}
