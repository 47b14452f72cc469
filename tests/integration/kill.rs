//! `kill -9` at random moments, and a power cut that damages a file of the last second: afterwards a run is resumed, or the
//! command repeated, and ends whole. Slow: `cargo test --test integration kill:: -- --ignored --nocapture`, with the number of
//! moments of each test in `MOMENTS`.

#![expect(clippy::print_stderr, reason = "the count of moments is the result")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use crate::run::{TWO_CASES, comparison, journal, program, run, text};
use crate::store::pushed;

fn moments() -> u32 {
    std::env::var("MOMENTS").ok().and_then(|text| text.parse().ok()).unwrap_or(30)
}

/// Starts the command and kills it after a random part of `whole`; returns whether it was still running.
fn killed(command: &mut Command, whole: Duration) -> bool {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(whole.mul_f64(rand::random::<f64>()));
    let is_running = child.try_wait().unwrap().is_none();
    child.kill().unwrap();
    child.wait().unwrap();
    is_running
}

/// The files below `folder` that were written in the last second.
fn fresh(folder: &Path) -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            let age = SystemTime::now().duration_since(found.modified().unwrap()).unwrap_or_default();
            if found.is_dir() {
                folders.push(entry.path());
            } else if found.is_file() && age < Duration::from_secs(1) {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    files
}

/// Empties one of the files, or cuts it off, as a power cut may; says what it did.
fn damage(files: &[PathBuf]) -> String {
    let Some(path) = files.get(rand::random_range(0..files.len().max(1))) else {
        return "nothing is damaged".to_owned();
    };
    let length = fs::metadata(path).map_or(0, |found| found.len());
    let kept = if rand::random() { 0 } else { rand::random_range(0..=length) };
    let Ok(file) = fs::OpenOptions::new().write(true).open(path) else { return "nothing is damaged".to_owned() };
    file.set_len(kept).unwrap();
    format!("{} has {kept} of {length} bytes", path.display())
}

fn check(output: &Output, what: &str) {
    assert_eq!(output.status.code(), Some(0), "{what}: {}", text(output));
}

/// Kills runs of a strategy, and resumes each.
fn runs(strategy: &str, head: &str) {
    let folder = tempfile::tempdir().unwrap();
    let start =
        |out: &Path| run(out, "sim:itl=1ms", head, &["--pairs", "2", "--only", TWO_CASES, "--strategy", strategy]);
    let begun = Instant::now();
    let first = folder.path().join("first");
    check(&start(&first).output().unwrap(), "the first run");
    let (whole, rows) = (begun.elapsed(), comparison(&first).rows.len());
    let (mut resumed, mut times) = (0, 0);
    for moment in 0..moments() {
        let out = folder.path().join(format!("{moment}"));
        times += u32::from(killed(&mut start(&out), whole));
        let what = if moment % 2 == 0 { damage(&fresh(&out)) } else { "nothing is damaged".to_owned() };
        let mut again = start(&out);
        if out.is_dir() {
            again.arg("--resume");
            resumed += 1;
        }
        check(&again.output().unwrap(), &what);
        assert_eq!(comparison(&out).rows.len(), rows, "{what}");
        for entry in journal(&out) {
            assert!(serde_json::from_str::<serde_json::Value>(&entry).is_ok(), "{what}: {entry}");
        }
        let after = start(&out).arg("--resume").output().unwrap();
        check(&after, "resumed when it had ended");
    }
    eprintln!("{strategy}: {} moments, {times} while it ran, {resumed} resumed, all ended whole", moments());
}

#[test]
#[ignore = "takes minutes"]
fn a_paired_run_that_is_killed_is_resumed_and_ends_whole() {
    runs("paired", "sim:itl=1ms");
}

#[test]
#[ignore = "takes minutes"]
fn a_screened_run_that_is_killed_is_resumed_and_ends_whole() {
    runs("screen", "sim:itl=9ms");
}

#[test]
#[ignore = "takes minutes"]
fn a_sequential_run_that_is_killed_is_resumed_and_ends_whole() {
    runs("sequential", "sim:itl=1ms");
}

#[test]
#[ignore = "takes minutes"]
fn a_calibration_that_is_killed_continues_with_the_same_store() {
    let folder = tempfile::tempdir().unwrap();
    let start = |name: &str| {
        let (out, store) = (folder.path().join(name), folder.path().join(format!("{name}-store")));
        let mut command = program(&["calibrate", "--device", "cpu", "--head", "sim:itl=1ms", "--pairs", "5"]);
        command.args(["--precision", "50", "--only", "_64_16_.*_1$", "--suite", crate::run::SUITE]);
        command.args(["--config", crate::run::BUSY]).arg("--out").arg(out).arg("--store").arg(store);
        command
    };
    let begun = Instant::now();
    check(&start("first").output().unwrap(), "the first calibration");
    let whole = begun.elapsed();
    let mut times = 0;
    for moment in 0..moments() {
        let name = format!("{moment}");
        times += u32::from(killed(&mut start(&name), whole));
        let places = [folder.path().join(&name), folder.path().join(format!("{name}-store"))];
        let files: Vec<PathBuf> = places.iter().flat_map(|place| fresh(place)).collect();
        let what = if moment % 2 == 0 { damage(&files) } else { "nothing is damaged".to_owned() };
        let again = start(&name).output().unwrap();
        check(&again, &what);
        assert!(text(&again).contains("noise of a pair"), "{what}: {}", text(&again));
    }
    eprintln!("calibrate: {} moments, {times} while it ran, all ended whole", moments());
}

#[test]
#[ignore = "takes minutes"]
fn publishing_that_is_killed_is_repeated_and_adds_each_object_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let more = ["--only", TWO_CASES, "--pairs", "1", "--device-type", "x"];
    check(&run(&out, "none", "sim:itl=1ms", &more).envs(pushed(folder.path())).output().unwrap(), "the run");
    let records = fs::read_dir(out.join("records")).unwrap().next().unwrap().unwrap().path();
    let records = fs::read(records).unwrap();
    let publish = |store: &Path| {
        let mut command = program(&["publish", out.to_str().unwrap(), "--store", store.to_str().unwrap()]);
        command.envs(pushed(folder.path()));
        command
    };
    let begun = Instant::now();
    check(&publish(&folder.path().join("first")).output().unwrap(), "the first publication");
    let whole = begun.elapsed();
    let mut times = 0;
    for moment in 0..moments() {
        let store = folder.path().join(format!("{moment}"));
        times += u32::from(killed(&mut publish(&store), whole));
        let what = if moment % 2 == 0 { damage(&fresh(&out.join("spool"))) } else { "nothing is damaged".to_owned() };
        check(&publish(&store).output().unwrap(), &what);
        assert_eq!(crate::store::objects(&store), std::slice::from_ref(&records), "{what}");
        assert!(!out.join("spool").exists(), "{what}");
    }
    eprintln!("publish: {} moments, {times} while it ran, all ended whole", moments());
}
