//! Upload of the records of main: which records may be uploaded, the outcome of each object, and a spool in the output
//! folder for objects whose upload is not confirmed.

use std::fmt::Write;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::fcntl::OFlag;
use vllm_verdict::v1::{Event, Provider};

use crate::ci::event::CiRun;
use crate::names;
use crate::plan::config::record_rules::KeyCase;
use crate::report::records::Record;
use crate::system::delivery::Delivery;
use crate::system::json_post::PostReply;
use crate::system::output::{self, OutputFolder};
use crate::system::store::object_key::RecordKey;
use crate::system::store::{Added, Store};
use crate::system::uploader::Uploader;

/// Largest file of records, in bytes.
const FILE_LIMIT: u64 = 64 << 20;
/// Number of consecutive failures after which the remaining objects are kept for the next attempt.
const FAILURES_LIMIT: usize = 3;
/// Largest number of files of records in a folder.
const FILES_LIMIT: usize = 1000;

/// Events whose head commit was put on its branch by maintainers.
const EVENTS: [&str; 3] = ["push", "schedule", "workflow_dispatch"];

/// The destination of records.
pub enum Destination {
    Store(Store),
    /// The upload API.
    Uploader(Uploader),
    /// A configured destination that cannot be used, with the reason. The records stay in the spool.
    Unusable(String),
}

/// The inputs of an upload.
pub struct Upload<'a> {
    /// The output folder.
    pub folder: &'a Path,
    pub event: &'a Event,
    /// The current CI run.
    pub run: &'a CiRun,
    /// The measured commit: the event's, or an earlier one of its branch.
    pub commit: Option<&'a str>,
    /// Branches whose records are published.
    pub branches: &'a [String],
    /// The letters of a model in the key of its object.
    pub model_key: KeyCase,
    /// `None` if none is configured.
    pub destination: Option<&'a Destination>,
}

/// Uploads the records of an output folder, including those of earlier attempts that are still in the spool.
///
/// # Errors
/// A file that cannot be read or written. Records whose upload was not confirmed stay in the spool.
pub async fn records(upload: &Upload<'_>) -> Result<Delivery> {
    let out = OutputFolder::at(upload.folder);
    if let Some(why) = no_records(upload.event, upload.run, upload.branches) {
        return Ok(Delivery::Left(why));
    }
    let Some(destination) = upload.destination else {
        return Ok(Delivery::Left("neither a store nor an upload API is configured".to_owned()));
    };
    let files = files(&out.records())?;
    if files.is_empty() {
        return Ok(Delivery::Left("the run wrote no records".to_owned()));
    }
    // All files go to the spool first, so that none is lost if the process is terminated.
    for path in &files {
        let name = path.file_name().context("a file without a name")?;
        output::write(&out.spool().join(name), contents(path)?.as_bytes())?;
    }
    send(&out, (destination, upload.model_key), &|record| belongs(record, upload.event, upload.branches, upload.commit))
        .await
}

/// Uploads only the spool of an output folder. On CI, any run that may upload records may retry those of its repository; a
/// local run may always retry.
///
/// # Errors
/// A file that cannot be read. It stays in the spool.
pub async fn retry(upload: &Upload<'_>) -> Result<Delivery> {
    let local = upload.event.provider == Provider::Local;
    if let (false, Some(why)) = (local, no_records(upload.event, upload.run, upload.branches)) {
        return Ok(Delivery::Left(why));
    }
    let Some(destination) = upload.destination else {
        return Ok(Delivery::Failed(
            "neither a store nor an upload API is configured (--store, --uploader)".to_owned(),
        ));
    };
    let out = OutputFolder::at(upload.folder);
    if files(&out.spool())?.is_empty() {
        return Ok(Delivery::Left("the spool is empty".to_owned()));
    }
    send(&out, (destination, upload.model_key), &|record| {
        if local { Ok(()) } else { belongs(record, upload.event, upload.branches, None) }
    })
    .await
}

/// The reason why no records of this event are uploaded, if there is one: only records of main are published, never those
/// of a pull request.
pub(crate) fn no_records(event: &Event, run: &CiRun, branches: &[String]) -> Option<String> {
    let why = if run.completed_run.is_some() {
        "results from the artifact of another run are never records of main".to_owned()
    } else if event.provider == Provider::Local {
        "not a CI run; `vllm-perf records RESULTS --store STORE` adds records".to_owned()
    } else if event.pull_request.is_some() || event.fork || !EVENTS.contains(&event.name.as_str()) {
        format!("only a push, a schedule or a manual run on {} has records of main", branches.join(", "))
    } else if event.action.as_deref() == Some("deleted") {
        "the push deleted its branch".to_owned()
    } else {
        match event.branch.as_deref() {
            Some(branch) if branches.iter().any(|name| name == branch) => return None,
            _ => format!("only a push, a schedule or a manual run on {} has records of main", branches.join(", ")),
        }
    };
    Some(why)
}

/// Checks that a record belongs to the event.
fn belongs(record: &Record, event: &Event, branches: &[String], head: Option<&str>) -> Result<()> {
    ensure!(
        event.repository.as_deref() == Some(&record.repo),
        "it is a record of another repository, `{}`",
        record.repo
    );
    let is_published = branches.iter().any(|branch| branch == names::plain_branch(&record.head_branch));
    ensure!(is_published, "it is a record of another branch, `{}`", record.head_branch);
    ensure!(head.is_none_or(|head| head == record.head_sha), "it is a record of another commit, {}", record.head_sha);
    Ok(())
}

/// The outcome of the upload of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ObjectOutcome {
    Uploaded,
    AlreadyThere,
    /// Rejected permanently, with the reason. It stays in the records folder.
    Refused(String),
    /// Not uploaded, with the reason. It stays in the spool.
    Kept(String),
}

/// Sends every file of the spool and removes those that were uploaded or refused.
async fn send(
    out: &OutputFolder,
    (destination, model_key): (&Destination, KeyCase),
    may_go: &(dyn Fn(&Record) -> Result<()> + Sync),
) -> Result<Delivery> {
    let (mut outcomes, mut failures) = (Vec::new(), 0);
    for path in files(&out.spool())? {
        let text = contents(&path)?;
        let (name, outcome) = match object(&text, model_key, may_go) {
            Err(error) => (file_name(&path), ObjectOutcome::Refused(format!("{error:#}"))),
            // An attempt on an unreachable destination takes minutes.
            Ok(key) if failures >= FAILURES_LIMIT => {
                (key.to_string(), ObjectOutcome::Kept("not tried after the previous failures".to_owned()))
            }
            Ok(key) => (key.to_string(), put(destination, &key.to_string(), &text).await),
        };
        failures = if matches!(outcome, ObjectOutcome::Kept(_)) { failures + 1 } else { 0 };
        if !matches!(outcome, ObjectOutcome::Kept(_)) {
            std::fs::remove_file(&path)
                .with_context(|| format!("cannot remove `{}` from the spool", path.display()))?;
        }
        outcomes.push((name, outcome));
    }
    // Where everything was sent, only what a killed attempt was writing can be left.
    if files(&out.spool())?.is_empty() {
        let _ = output::delete_unfinished(&out.spool());
    }
    let _ = std::fs::remove_dir(out.spool());
    Ok(summarized(&outcomes, out.root()))
}

async fn put(destination: &Destination, key: &str, text: &str) -> ObjectOutcome {
    match destination {
        Destination::Store(store) => match store.add(key, text.as_bytes()).await {
            Ok(Added::Written) => ObjectOutcome::Uploaded,
            Ok(Added::AlreadyThere) => ObjectOutcome::AlreadyThere,
            Err(error) => ObjectOutcome::Kept(format!("{error:#}")),
        },
        Destination::Unusable(why) => ObjectOutcome::Kept(why.clone()),
        Destination::Uploader(uploader) => match uploader.post(key, text).await {
            PostReply::Taken => ObjectOutcome::Uploaded,
            PostReply::AlreadyThere => ObjectOutcome::AlreadyThere,
            PostReply::Refused(why) => ObjectOutcome::Refused(why),
            PostReply::Later(why) | PostReply::Unanswered(why) => ObjectOutcome::Kept(why),
        },
    }
}

/// The key of a file of records, from its records rather than its name.
fn object(text: &str, model_key: KeyCase, may_go: &(dyn Fn(&Record) -> Result<()> + Sync)) -> Result<RecordKey> {
    let mut found: Option<RecordKey> = None;
    for (at, line) in text.lines().enumerate() {
        let line = || -> Result<RecordKey> {
            let record: Record = serde_json::from_str(line)?;
            record.check()?;
            may_go(&record)?;
            Ok(record.key(model_key))
        };
        let key = line().with_context(|| format!("line {}", at + 1))?;
        ensure!(found.as_ref().is_none_or(|found| *found == key), "line {}: it belongs to another object", at + 1);
        found = Some(key);
    }
    found.context("it contains no record")
}

fn summarized(outcomes: &[(String, ObjectOutcome)], root: &Path) -> Delivery {
    let number = |of: fn(&ObjectOutcome) -> bool| outcomes.iter().filter(|(_, outcome)| of(outcome)).count();
    let kept = number(|outcome| matches!(outcome, ObjectOutcome::Kept(_)));
    let refused = number(|outcome| matches!(outcome, ObjectOutcome::Refused(_)));
    let mut text = format!(
        "{} uploaded, {} already there, {refused} refused, {kept} kept in the spool",
        number(|outcome| *outcome == ObjectOutcome::Uploaded),
        number(|outcome| *outcome == ObjectOutcome::AlreadyThere),
    );
    for (name, outcome) in outcomes {
        let _ = match outcome {
            ObjectOutcome::Uploaded => write!(text, "\n  uploaded: {name}"),
            ObjectOutcome::AlreadyThere => write!(text, "\n  already there: {name}"),
            ObjectOutcome::Refused(why) => write!(text, "\n  refused: {name}: {why}"),
            ObjectOutcome::Kept(why) => write!(text, "\n  kept: {name}: {why}"),
        };
    }
    if kept > 0 {
        let _ = write!(text, "\n  `vllm-perf publish {} --retry` uploads them", root.display());
    }
    if kept + refused > 0 { Delivery::Failed(text) } else { Delivery::Done(text) }
}

/// The files of records in a folder, in order; none without the folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    output::json_files(folder, FILES_LIMIT, |name| name.starts_with("benchmark_results_"))
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The content of a regular file. Links are not followed, pipes do not block, and the size is limited.
fn contents(path: &Path) -> Result<String> {
    let read = || -> Result<String> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file: File = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
        let metadata = file.metadata()?;
        ensure!(metadata.is_file(), "it is not a regular file");
        ensure!(metadata.len() <= FILE_LIMIT, "it has {} bytes; at most {FILE_LIMIT} are read", metadata.len());
        let mut text = String::new();
        file.take(FILE_LIMIT).read_to_string(&mut text)?;
        Ok(text)
    };
    read().with_context(|| format!("cannot read `{}`", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ci::event::CompletedRun;
    use crate::environment::Environment;
    use crate::report::records::tests::example;

    const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

    fn push() -> Event {
        let payload = r#"{"ref": "refs/heads/main", "repository": {"full_name": "vllm-project/vllm"}, "after": "SHA"}"#;
        crate::ci::event::github_event::parse("push", &payload.replace("SHA", SHA), &Environment::default()).unwrap().0
    }

    struct Fixture {
        folder: tempfile::TempDir,
        destination: Destination,
        branches: Vec<String>,
    }

    impl Fixture {
        /// An output folder with records of these models, and a store in it.
        fn with(models: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let store = folder.path().join("store").display().to_string();
            for model in models {
                let record = example(model);
                let path = folder.path().join("records").join(record.key(KeyCase::Kept).file_name());
                output::write(&path, format!("{}\n", serde_json::to_string(&record).unwrap()).as_bytes()).unwrap();
            }
            let destination = Destination::Store(Store::open(&store, &Environment::default()).unwrap());
            Self { folder, destination, branches: vec!["main".into()] }
        }

        fn upload<'a>(&'a self, event: &'a Event, run: &'a CiRun) -> Upload<'a> {
            let destination = Some(&self.destination);
            Upload {
                folder: self.folder.path(),
                event,
                run,
                commit: event.head_sha.as_deref(),
                branches: &self.branches,
                model_key: KeyCase::Kept,
                destination,
            }
        }

        async fn records(&self, event: &Event, run: &CiRun) -> Delivery {
            records(&self.upload(event, run)).await.unwrap()
        }

        async fn keys(&self) -> Vec<String> {
            let Destination::Store(store) = &self.destination else { unreachable!() };
            store.list("").await.unwrap().into_iter().map(|entry| entry.key).collect()
        }
    }

    #[tokio::test]
    async fn a_push_to_main_uploads_each_model_once() {
        let fixture = Fixture::with(&["org/a", "org/b"]);
        let Delivery::Done(first) = fixture.records(&push(), &CiRun::default()).await else { panic!() };
        let key =
            |model: &str| format!("v3/vllm-project/vllm/main/{SHA}/AMD_EPYC_2c/benchmark_results_org_{model}.json");
        assert_eq!(
            first,
            format!(
                "2 uploaded, 0 already there, 0 refused, 0 kept in the spool\n  uploaded: {}\n  uploaded: {}",
                key("a"),
                key("b")
            )
        );
        let again = fixture.records(&push(), &CiRun::default()).await.to_string();
        assert!(again.starts_with("0 uploaded, 2 already there, 0 refused, 0 kept"), "{again}");
        assert_eq!(fixture.keys().await, [key("a"), key("b")]);
        assert!(!fixture.folder.path().join("spool").exists());
    }

    #[tokio::test]
    async fn nothing_but_a_push_to_main_uploads_anything() {
        type Change = fn(&mut Event, &mut CiRun);
        let changes: [(Change, &str); 7] = [
            (|event, _| event.name = "merge_group".into(), "only a push, a schedule or a manual run on main"),
            (|event, _| event.pull_request = Some(1), "only a push, a schedule or a manual run on main"),
            (|event, _| event.fork = true, "only a push, a schedule or a manual run on main"),
            (|event, _| event.branch = Some("main2".into()), "only a push, a schedule or a manual run on main"),
            (|event, _| event.provider = Provider::Local, "not a CI run"),
            (|event, _| event.action = Some("deleted".into()), "deleted its branch"),
            (
                |_, run| {
                    run.completed_run = Some(CompletedRun {
                        event: "push".into(),
                        conclusion: None,
                        head_sha: SHA.into(),
                        head_branch: "main".into(),
                        head_repository: None,
                        pull_requests: Vec::new(),
                        number: None,
                        url: None,
                    });
                },
                "the artifact of another run",
            ),
        ];
        for (change, expected) in changes {
            let fixture = Fixture::with(&["org/a"]);
            let (mut event, mut run) = (push(), CiRun::default());
            change(&mut event, &mut run);
            let outcome = fixture.records(&event, &run).await;
            assert!(matches!(&outcome, Delivery::Left(why) if why.contains(expected)), "{outcome}");
            assert_eq!(fixture.keys().await, [""; 0]);
        }
    }

    #[tokio::test]
    async fn foreign_and_invalid_records_are_refused_with_the_line() {
        type Change = fn(&str) -> String;
        let changes: [(Change, &str); 7] = [
            (|text| text.replace("vllm-project/vllm", "other/vllm"), "another repository, `other/vllm`"),
            (|text| text.replace("\"main\"", "\"other\""), "another branch, `other`"),
            (|text| text.replace("0123456789", "1123456789"), "another commit, 1123456789"),
            (|text| text.replace("41.7", "-41.7"), "is negative"),
            (|text| text.replace("41.7", "null"), "invalid type: null"),
            (|text| text.replace("\"v3\"", "\"v2\""), "its schema is `v2`"),
            (
                |text| format!("{text}{}\n", serde_json::to_string(&example("org/b")).unwrap()),
                "line 2: it belongs to another",
            ),
        ];
        for (change, expected) in changes {
            let fixture = Fixture::with(&["org/a"]);
            let path = fixture.folder.path().join("records/benchmark_results_org_a.json");
            let text = change(&std::fs::read_to_string(&path).unwrap());
            output::write(&path, text.as_bytes()).unwrap();
            let outcome = fixture.records(&push(), &CiRun::default()).await;
            assert!(matches!(&outcome, Delivery::Failed(why) if why.contains(expected)), "{expected}: {outcome}");
            assert_eq!(fixture.keys().await, [""; 0]);
        }
    }

    #[tokio::test]
    async fn a_retry_only_uploads_the_spool() {
        let fixture = Fixture::with(&["org/a", "org/b"]);
        let (event, run) = (Event { provider: Provider::Local, ..push() }, CiRun::default());
        let nothing = retry(&fixture.upload(&event, &run)).await.unwrap();
        assert_eq!(nothing, Delivery::Left("the spool is empty".into()));
        let file = "benchmark_results_org_b.json";
        let text = std::fs::read(fixture.folder.path().join("records").join(file)).unwrap();
        output::write(&fixture.folder.path().join("spool").join(file), &text).unwrap();
        let done = retry(&fixture.upload(&event, &run)).await.unwrap().to_string();
        assert!(done.starts_with("1 uploaded, 0 already there"), "{done}");
        assert_eq!(fixture.keys().await.len(), 1);
        // A later run of the repository may upload records of another commit; a run of a pull request may not.
        output::write(&fixture.folder.path().join("spool").join(file), &text).unwrap();
        let later = Event { head_sha: Some("f".repeat(40)), ..push() };
        let again = retry(&fixture.upload(&later, &run)).await.unwrap().to_string();
        assert!(again.starts_with("0 uploaded, 1 already there"), "{again}");
        let pull = Event { pull_request: Some(1), ..push() };
        assert!(matches!(retry(&fixture.upload(&pull, &run)).await.unwrap(), Delivery::Left(_)));
    }

    #[tokio::test]
    async fn an_unusable_destination_is_not_tried_for_every_object() {
        let mut fixture = Fixture::with(&["a", "b", "c", "d", "e"]);
        fixture.destination = Destination::Unusable("it is unavailable".into());
        let Delivery::Failed(text) = fixture.records(&push(), &CiRun::default()).await else { panic!() };
        assert!(text.starts_with("0 uploaded, 0 already there, 0 refused, 5 kept in the spool"), "{text}");
        assert_eq!((text.matches(": it is unavailable").count(), text.matches(": not tried").count()), (3, 2));
        assert_eq!(std::fs::read_dir(fixture.folder.path().join("spool")).unwrap().count(), 5);
    }

    #[tokio::test]
    async fn a_link_is_not_followed() {
        let fixture = Fixture::with(&[]);
        std::fs::create_dir(fixture.folder.path().join("records")).unwrap();
        let link = fixture.folder.path().join("records/benchmark_results_x.json");
        std::os::unix::fs::symlink("/etc/passwd", link).unwrap();
        assert!(records(&fixture.upload(&push(), &CiRun::default())).await.is_err());
    }
}
