//! Records of main on their way to the dashboard: which may go, what became of each, and a spool in the output folder that
//! keeps what has not arrived. World: files; the store and the upload API do the rest.

use std::fmt::Write;
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::fcntl::OFlag;
use vllm_verdict::v1::{Event, Provider};

use crate::ci::event::CiRun;
use crate::report::records::Record;
use crate::system::delivery::Delivery;
use crate::system::output::{self, OutputFolder};
use crate::system::store::object_key::RecordKey;
use crate::system::store::{Added, Store};
use crate::system::uploader::{UploadReply, Uploader};

/// Bytes of one file of records.
const FILE_LIMIT: u64 = 64 << 20;
/// Objects in a row that could not be sent, after which the others wait for the next attempt.
const ENOUGH_IN_VAIN: usize = 3;
/// Files of records in one folder.
const FILES_LIMIT: usize = 1000;

/// Events whose head is a commit of their branch that nobody but its maintainers put there.
const EVENTS: [&str; 3] = ["push", "schedule", "workflow_dispatch"];

/// Where records go.
pub enum Destination {
    /// Directly.
    Store(Store),
    /// Through the upload API.
    Uploader(Uploader),
    /// One that is configured, and why it cannot be used. The records wait in the spool.
    Unusable(String),
}

/// What is uploaded, for whom, and where to.
pub struct Upload<'a> {
    /// The output folder.
    pub folder: &'a Path,
    /// What happened.
    pub event: &'a Event,
    /// The CI run that we are in.
    pub run: &'a CiRun,
    /// The commit that was measured: the event's, or one of its branch before it.
    pub commit: Option<&'a str>,
    /// Branches whose pushes are main's: records of no other arrive.
    pub branches: &'a [String],
    /// Where to; `None` where nobody configured it.
    pub destination: Option<&'a Destination>,
}

/// Uploads the records of an output folder, what an earlier attempt left included.
///
/// # Errors
/// A file that cannot be read or written. What was not confirmed is in the spool then.
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
    // All of them first: whatever ends us, what has not arrived is known.
    for path in &files {
        let name = path.file_name().context("a file without a name")?;
        output::write(&out.spool().join(name), contents(path)?.as_bytes())?;
    }
    send(&out, destination, &|record| belongs(record, upload.event, upload.branches, upload.commit)).await
}

/// Uploads what the spool of an output folder holds, and nothing else. On CI, what may be uploaded at all may be retried by
/// a later run of the same repository; on a person's machine that person decides.
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
        return Ok(Delivery::Left("nothing is left to upload".to_owned()));
    }
    send(&out, destination, &|record| if local { Ok(()) } else { belongs(record, upload.event, upload.branches, None) })
        .await
}

/// Why no record of this event is uploaded, where that is so: the dashboard is main's, and what a stranger's pull request
/// left is no record of main.
pub(crate) fn no_records(event: &Event, run: &CiRun, branches: &[String]) -> Option<String> {
    let why = if run.completed_run.is_some() {
        "results of another run's artifact are never records of main".to_owned()
    } else if event.provider == Provider::Local {
        "this is no CI run; `vllm-perf records RESULTS --store STORE` adds them".to_owned()
    } else if event.pull_request.is_some() || event.fork || !EVENTS.contains(&event.name.as_str()) {
        format!("only a push, a schedule or a request on {} has records of main", branches.join(", "))
    } else if event.action.as_deref() == Some("deleted") {
        "the push deleted its branch".to_owned()
    } else {
        match event.branch.as_deref() {
            Some(branch) if branches.iter().any(|name| name == branch) => return None,
            _ => format!("only a push, a schedule or a request on {} has records of main", branches.join(", ")),
        }
    };
    Some(why)
}

/// Whether a record is of the event that may upload it.
fn belongs(record: &Record, event: &Event, branches: &[String], head: Option<&str>) -> Result<()> {
    ensure!(
        event.repository.as_deref() == Some(&record.repo),
        "it is a record of another repository, `{}`",
        record.repo
    );
    ensure!(branches.contains(&record.head_branch), "it is a record of another branch, `{}`", record.head_branch);
    ensure!(head.is_none_or(|head| head == record.head_sha), "it is a record of another commit, {}", record.head_sha);
    Ok(())
}

/// What became of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    Uploaded,
    AlreadyThere,
    /// It will never be taken: why. It is in the records still.
    Refused(String),
    /// It may be taken another time: why.
    Kept(String),
}

/// Sends every file of the spool and takes out of it what is settled.
async fn send(
    out: &OutputFolder,
    destination: &Destination,
    may_go: &(dyn Fn(&Record) -> Result<()> + Sync),
) -> Result<Delivery> {
    let (mut fates, mut in_vain) = (Vec::new(), 0);
    for path in files(&out.spool())? {
        let text = contents(&path)?;
        let (name, fate) = match object(&text, may_go) {
            Err(error) => (file_name(&path), Fate::Refused(format!("{error:#}"))),
            // Each attempt waits for minutes where nobody answers.
            Ok(key) if in_vain >= ENOUGH_IN_VAIN => {
                (key.to_string(), Fate::Kept("not tried, after those before it".to_owned()))
            }
            Ok(key) => (key.to_string(), put(destination, &key.to_string(), &text).await),
        };
        in_vain = if matches!(fate, Fate::Kept(_)) { in_vain + 1 } else { 0 };
        if !matches!(fate, Fate::Kept(_)) {
            std::fs::remove_file(&path)
                .with_context(|| format!("cannot take `{}` out of the spool", path.display()))?;
        }
        fates.push((name, fate));
    }
    let _ = std::fs::remove_dir(out.spool());
    Ok(told(&fates, out.root()))
}

async fn put(destination: &Destination, key: &str, text: &str) -> Fate {
    match destination {
        Destination::Store(store) => match store.add(key, text.as_bytes()).await {
            Ok(Added::Written) => Fate::Uploaded,
            Ok(Added::AlreadyThere) => Fate::AlreadyThere,
            Err(error) => Fate::Kept(format!("{error:#}")),
        },
        Destination::Unusable(why) => Fate::Kept(why.clone()),
        Destination::Uploader(uploader) => match uploader.post(key, text).await {
            UploadReply::Taken => Fate::Uploaded,
            UploadReply::AlreadyThere => Fate::AlreadyThere,
            UploadReply::Refused(why) => Fate::Refused(why),
            UploadReply::Later(why) => Fate::Kept(why),
        },
    }
}

/// The key of a file of records, by what its records say, not by its name.
fn object(text: &str, may_go: &(dyn Fn(&Record) -> Result<()> + Sync)) -> Result<RecordKey> {
    let mut found: Option<RecordKey> = None;
    for (at, line) in text.lines().enumerate() {
        let line = || -> Result<RecordKey> {
            let record: Record = serde_json::from_str(line)?;
            record.check()?;
            may_go(&record)?;
            Ok(record.key())
        };
        let key = line().with_context(|| format!("line {}", at + 1))?;
        ensure!(found.as_ref().is_none_or(|found| *found == key), "line {}: it belongs to another object", at + 1);
        found = Some(key);
    }
    found.context("it holds no record")
}

fn told(fates: &[(String, Fate)], root: &Path) -> Delivery {
    let number = |of: fn(&Fate) -> bool| fates.iter().filter(|(_, fate)| of(fate)).count();
    let kept = number(|fate| matches!(fate, Fate::Kept(_)));
    let refused = number(|fate| matches!(fate, Fate::Refused(_)));
    let mut text = format!(
        "{} uploaded, {} already there, {refused} refused, {kept} kept in the spool",
        number(|fate| *fate == Fate::Uploaded),
        number(|fate| *fate == Fate::AlreadyThere),
    );
    for (name, fate) in fates {
        let _ = match fate {
            Fate::Uploaded => write!(text, "\n  uploaded: {name}"),
            Fate::AlreadyThere => write!(text, "\n  already there: {name}"),
            Fate::Refused(why) => write!(text, "\n  refused: {name}: {why}"),
            Fate::Kept(why) => write!(text, "\n  kept: {name}: {why}"),
        };
    }
    if kept > 0 {
        let _ = write!(text, "\n  `vllm-perf publish {} --retry` uploads what was kept", root.display());
    }
    if kept + refused > 0 { Delivery::Failed(text) } else { Delivery::Done(text) }
}

/// The files of records in a folder, in order; none where there is no folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let cannot = || format!("cannot read the folder `{}`", folder.display());
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(cannot)?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.with_context(cannot)?.path();
        if file_name(&path).starts_with("benchmark_results_") && path.extension().is_some_and(|it| it == "json") {
            paths.push(path);
        }
        ensure!(paths.len() <= FILES_LIMIT, "`{}` holds more than {FILES_LIMIT} files of records", folder.display());
    }
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Not followed where it is a link, not waited for where it is a pipe, and bounded.
fn contents(path: &Path) -> Result<String> {
    let read = || -> Result<String> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file: File = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
        let metadata = file.metadata()?;
        ensure!(metadata.is_file(), "it is not a plain file");
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
    use crate::report::records::example;

    const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

    fn push() -> Event {
        let payload = r#"{"ref": "refs/heads/main", "repository": {"full_name": "vllm-project/vllm"}, "after": "SHA"}"#;
        crate::ci::event::github_event::parse("push", &payload.replace("SHA", SHA), &Environment::default()).unwrap().0
    }

    struct Place {
        folder: tempfile::TempDir,
        destination: Destination,
        branches: Vec<String>,
    }

    impl Place {
        /// An output folder with records of these models, and a store beside it.
        fn with(models: &[&str]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let place = folder.path().join("store").display().to_string();
            for model in models {
                let record = example(model);
                let path = folder.path().join("records").join(record.key().file_name());
                output::write(&path, format!("{}\n", serde_json::to_string(&record).unwrap()).as_bytes()).unwrap();
            }
            let destination = Destination::Store(Store::open(&place, &Environment::default()).unwrap());
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
        let place = Place::with(&["org/a", "org/b"]);
        let Delivery::Done(first) = place.records(&push(), &CiRun::default()).await else { panic!() };
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
        let again = place.records(&push(), &CiRun::default()).await.to_string();
        assert!(again.starts_with("0 uploaded, 2 already there, 0 refused, 0 kept"), "{again}");
        assert_eq!(place.keys().await, [key("a"), key("b")]);
        assert!(!place.folder.path().join("spool").exists());
    }

    #[tokio::test]
    async fn nothing_but_a_push_to_main_uploads_anything() {
        type Change = fn(&mut Event, &mut CiRun);
        let changes: [(Change, &str); 7] = [
            (|event, _| event.name = "merge_group".into(), "only a push, a schedule or a request on main"),
            (|event, _| event.pull_request = Some(1), "only a push, a schedule or a request on main"),
            (|event, _| event.fork = true, "only a push, a schedule or a request on main"),
            (|event, _| event.branch = Some("main2".into()), "only a push, a schedule or a request on main"),
            (|event, _| event.provider = Provider::Local, "this is no CI run"),
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
                        url: None,
                    });
                },
                "another run's artifact",
            ),
        ];
        for (change, said) in changes {
            let place = Place::with(&["org/a"]);
            let (mut event, mut run) = (push(), CiRun::default());
            change(&mut event, &mut run);
            let outcome = place.records(&event, &run).await;
            assert!(matches!(&outcome, Delivery::Left(why) if why.contains(said)), "{outcome}");
            assert_eq!(place.keys().await, [""; 0]);
        }
    }

    #[tokio::test]
    async fn records_of_anything_else_and_spoilt_ones_are_refused_with_the_line() {
        type Change = fn(&str) -> String;
        let changes: [(Change, &str); 7] = [
            (|text| text.replace("vllm-project/vllm", "stranger/vllm"), "another repository, `stranger/vllm`"),
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
        for (change, said) in changes {
            let place = Place::with(&["org/a"]);
            let path = place.folder.path().join("records/benchmark_results_org_a.json");
            let text = change(&std::fs::read_to_string(&path).unwrap());
            output::write(&path, text.as_bytes()).unwrap();
            let outcome = place.records(&push(), &CiRun::default()).await;
            assert!(matches!(&outcome, Delivery::Failed(why) if why.contains(said)), "{said}: {outcome}");
            assert_eq!(place.keys().await, [""; 0]);
        }
    }

    #[tokio::test]
    async fn a_retry_takes_the_spool_and_nothing_else() {
        let place = Place::with(&["org/a", "org/b"]);
        let (event, run) = (Event { provider: Provider::Local, ..push() }, CiRun::default());
        let nothing = retry(&place.upload(&event, &run)).await.unwrap();
        assert_eq!(nothing, Delivery::Left("nothing is left to upload".into()));
        let file = "benchmark_results_org_b.json";
        let text = std::fs::read(place.folder.path().join("records").join(file)).unwrap();
        output::write(&place.folder.path().join("spool").join(file), &text).unwrap();
        let done = retry(&place.upload(&event, &run)).await.unwrap().to_string();
        assert!(done.starts_with("1 uploaded, 0 already there"), "{done}");
        assert_eq!(place.keys().await.len(), 1);
        // Of another commit: a later run of the repository may finish it, one of a pull request may not.
        output::write(&place.folder.path().join("spool").join(file), &text).unwrap();
        let later = Event { head_sha: Some("f".repeat(40)), ..push() };
        let again = retry(&place.upload(&later, &run)).await.unwrap().to_string();
        assert!(again.starts_with("0 uploaded, 1 already there"), "{again}");
        let pull = Event { pull_request: Some(1), ..push() };
        assert!(matches!(retry(&place.upload(&pull, &run)).await.unwrap(), Delivery::Left(_)));
    }

    #[tokio::test]
    async fn a_destination_that_takes_nothing_is_not_tried_for_every_object() {
        let mut place = Place::with(&["a", "b", "c", "d", "e"]);
        place.destination = Destination::Unusable("it is away".into());
        let Delivery::Failed(text) = place.records(&push(), &CiRun::default()).await else { panic!() };
        assert!(text.starts_with("0 uploaded, 0 already there, 0 refused, 5 kept in the spool"), "{text}");
        assert_eq!((text.matches(": it is away").count(), text.matches(": not tried").count()), (3, 2));
        assert_eq!(std::fs::read_dir(place.folder.path().join("spool")).unwrap().count(), 5);
    }

    #[tokio::test]
    async fn a_link_is_not_followed() {
        let place = Place::with(&[]);
        std::fs::create_dir(place.folder.path().join("records")).unwrap();
        let link = place.folder.path().join("records/benchmark_results_x.json");
        std::os::unix::fs::symlink("/etc/passwd", link).unwrap();
        assert!(records(&place.upload(&push(), &CiRun::default())).await.is_err());
    }
}
