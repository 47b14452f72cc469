//! The data sets that the containers of a side read: files of this machine, mounted where the commands look for them.

use std::path::{Component, Path, PathBuf};

use vllm_verdict::case::MeasuredBy;

use crate::plan::suite::Case;
use crate::plan::suite::data_set_file::{DataSetFiles, data_set_file};

/// The folder that the commands of a container run in, where one of them names a data set by a relative path. Upstream's
/// script runs them in the folder with its data sets.
const WORKING_FOLDER: &str = "/vllm-perf-data";

/// The options of `docker run` that bring the data sets of `cases` into a container, for reading only. One that is not among
/// `files` may be in the image. The native client reads its own on this machine.
pub fn options(cases: &[Case], files: &DataSetFiles) -> Vec<String> {
    let (mut words, mut mounted) = (Vec::new(), Vec::new());
    let by_vllm = cases.iter().filter(|case| case.measured_by != MeasuredBy::Native);
    for named in by_vllm.filter_map(data_set_file) {
        let Some(inside) = inside(named).filter(|inside| !mounted.contains(inside)) else { continue };
        let Some(file) = files.get(named).and_then(found) else { continue };
        words.extend(["--volume".to_owned(), format!("{file}:{inside}:ro")]);
        mounted.push(inside);
    }
    if mounted.iter().any(|inside| Path::new(inside).starts_with(WORKING_FOLDER)) {
        words.extend(["--workdir".to_owned(), WORKING_FOLDER.to_owned()]);
    }
    words
}

/// The absolute path of a file that can be mounted. Docker takes a colon in a path for a separator.
fn found(file: &Path) -> Option<String> {
    let file = file.canonicalize().ok().filter(|file| file.is_file())?;
    file.to_str().filter(|file| !file.contains(':')).map(str::to_owned)
}

/// The path of a data set inside a container; `None` for one above the working folder.
fn inside(named: &Path) -> Option<String> {
    let mut path = if named.is_absolute() { PathBuf::from("/") } else { PathBuf::from(WORKING_FOLDER) };
    for part in named.components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    path.to_str().filter(|path| !path.contains(':')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::output;

    fn case(flags: &str, measured_by: MeasuredBy) -> Case {
        Case { measured_by, ..Case::sample(&format!("vllm bench throughput {flags}")) }
    }

    #[test]
    fn a_data_set_is_mounted_where_the_command_looks_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["cwd/share.json", "cwd/sub/lines.jsonl", "cwd/a:b.json", "share.json", "suite/other.json"] {
            output::write(&root.join(name), b"[]").unwrap();
        }
        let mut files = DataSetFiles::default();
        for named in ["./share.json", "share.json", "sub/lines.jsonl", "../share.json", "a:b.json"] {
            files.insert(Path::new(named), root.join("cwd").join(named));
        }
        files.insert(&root.join("share.json"), root.join("share.json"));
        files.insert(Path::new("./ShareGPT.json"), root.join("suite/other.json"));
        let of = |flags: &str, measured_by| {
            let words = options(&[case(flags, measured_by)], &files).join(" ");
            words.replace(&root.display().to_string(), "DIR")
        };
        let vllm = |flags: &str| of(flags, MeasuredBy::Vllm);
        let workdir = "--workdir /vllm-perf-data";
        assert_eq!(
            vllm("--dataset ./share.json"),
            format!("--volume DIR/cwd/share.json:/vllm-perf-data/share.json:ro {workdir}")
        );
        assert_eq!(
            vllm("--dataset-path sub/lines.jsonl"),
            format!("--volume DIR/cwd/sub/lines.jsonl:/vllm-perf-data/sub/lines.jsonl:ro {workdir}")
        );
        assert_eq!(
            vllm("--dataset-path ./ShareGPT.json"),
            format!("--volume DIR/suite/other.json:/vllm-perf-data/ShareGPT.json:ro {workdir}")
        );
        let absolute = root.join("share.json");
        assert_eq!(
            vllm(&format!("--dataset-path {}", absolute.display())),
            "--volume DIR/share.json:DIR/share.json:ro"
        );
        for none in [
            "",
            "--dataset-path org/name",
            "--dataset ./gone.json",
            "--dataset ./other.json",
            "--dataset ../share.json",
            "--dataset a:b.json",
        ] {
            assert_eq!(vllm(none), "", "{none}");
        }
        assert_eq!(of("--dataset ./share.json", MeasuredBy::Native), "");
        let twice = [case("--dataset ./share.json", MeasuredBy::Vllm), case("--dataset share.json", MeasuredBy::Vllm)];
        assert_eq!(options(&twice, &files).len(), 4);
    }
}
