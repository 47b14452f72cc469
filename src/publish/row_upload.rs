//! Upload of the rows of main to the endpoint of perf-eval's dashboard. A row is a file in `rows/` until its upload is confirmed;
//! then it is in `rows/sent/`, and is never sent again.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use vllm_verdict::v1::Event;

use super::record_upload::no_records;
use crate::ci::event::CiRun;
use crate::report::perf_row::PerfRow;
use crate::system::delivery::Delivery;
use crate::system::json_post::PostReply;
use crate::system::output::{self, OutputFolder};
use crate::system::regular_file;
use crate::system::row_endpoint::RowEndpoint;

/// Largest file of a row, in bytes.
const FILE_LIMIT: u64 = 1 << 20;
/// Most rows of a folder.
const MOST_ROWS: usize = 10_000;
/// Number of consecutive failures after which the remaining rows are kept for the next attempt.
const FAILURES_LIMIT: usize = 3;
/// The folder of rows that were confirmed.
const SENT: &str = "sent";
/// The folder of rows that the endpoint does not accept.
const REFUSED: &str = "refused";
/// The folder of rows whose answer was lost: the endpoint may have them. Only a person sends them again.
const UNANSWERED: &str = "unanswered";

/// The destination of rows.
pub enum RowDestination {
    Endpoint(RowEndpoint),
    /// A configured endpoint that cannot be used, with the reason. The rows stay where they are.
    Unusable(String),
}

/// Sends the rows of an output folder.
///
/// # Errors
/// A file that cannot be read or moved. Rows that were not confirmed stay in the folder.
pub async fn rows(
    folder: &Path,
    (event, run): (&Event, &CiRun),
    branches: &[String],
    destination: &RowDestination,
) -> Result<Delivery> {
    if let Some(why) = no_records(event, run, branches) {
        return Ok(Delivery::Left(why));
    }
    let folder = OutputFolder::at(folder).rows();
    let found = files(&folder)?;
    let is_sent = files(&folder.join(SENT))?.into_iter().chain(files(&folder.join(UNANSWERED))?).next().is_some();
    if found.is_empty() {
        let why = if is_sent { "all rows were sent before" } else { "the run wrote no rows" };
        return Ok(Delivery::Left(why.to_owned()));
    }
    send(&folder, found, destination).await
}

/// Sends the rows that an earlier attempt kept, also those whose answer was lost: the endpoint knows a row by its
/// `Idempotency-Key`.
///
/// # Errors
/// As of [`rows`].
pub async fn retry(folder: &Path, destination: &RowDestination) -> Result<Delivery> {
    let folder = OutputFolder::at(folder).rows();
    let mut found = files(&folder)?;
    found.extend(files(&folder.join(UNANSWERED))?);
    if found.is_empty() {
        return Ok(Delivery::Left("no row is left to send".to_owned()));
    }
    send(&folder, found, destination).await
}

async fn send(folder: &Path, files: Vec<PathBuf>, destination: &RowDestination) -> Result<Delivery> {
    let (mut outcomes, mut failures) = (Vec::new(), 0);
    for path in files {
        let name = path.file_name().context("a file without a name")?.to_string_lossy().into_owned();
        let text =
            regular_file::text(&path, FILE_LIMIT).with_context(|| format!("cannot read `{}`", path.display()))?;
        let reply = match (is_before(folder, &name, &text), checked(&text)) {
            (true, _) => PostReply::AlreadyThere,
            (false, Err(error)) => PostReply::Refused(format!("{error:#}")),
            // An attempt on an unreachable endpoint takes minutes.
            (false, Ok(())) if failures >= FAILURES_LIMIT => {
                PostReply::Later("not tried after the previous failures".to_owned())
            }
            (false, Ok(())) => match destination {
                RowDestination::Endpoint(endpoint) => endpoint.post(text.trim_end()).await,
                RowDestination::Unusable(why) => PostReply::Later(why.clone()),
            },
        };
        let is_failure = matches!(reply, PostReply::Later(_) | PostReply::Unanswered(_));
        failures = if is_failure { failures + 1 } else { 0 };
        let to = match &reply {
            PostReply::Taken | PostReply::AlreadyThere => Some(SENT),
            PostReply::Refused(_) => Some(REFUSED),
            PostReply::Unanswered(_) => Some(UNANSWERED),
            PostReply::Later(_) => None,
        };
        if let Some(to) = to {
            place(&path, &folder.join(to).join(&name), &text)?;
        }
        outcomes.push((name, reply));
    }
    Ok(summarized(&outcomes, folder))
}

/// Whether the same row was confirmed: a run that is resumed writes its rows again.
fn is_before(folder: &Path, name: &str, text: &str) -> bool {
    regular_file::text(&folder.join(SENT).join(name), FILE_LIMIT).is_ok_and(|sent| sent == text)
}

fn checked(text: &str) -> Result<()> {
    serde_json::from_str::<PerfRow>(text).context("it is not a row")?.check()
}

/// Moves a row. It is in its new place before it leaves the old one.
fn place(from: &Path, to: &Path, text: &str) -> Result<()> {
    if from != to {
        output::write(to, text.as_bytes())?;
        output::delete(from)?;
    }
    Ok(())
}

/// The rows directly in a folder, in order; none without the folder.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    output::json_files(folder, MOST_ROWS, |name| !name.starts_with('.'))
}

fn summarized(outcomes: &[(String, PostReply)], folder: &Path) -> Delivery {
    let number = |of: fn(&PostReply) -> bool| outcomes.iter().filter(|(_, reply)| of(reply)).count();
    let refused = number(|reply| matches!(reply, PostReply::Refused(_)));
    let kept = number(|reply| matches!(reply, PostReply::Later(_) | PostReply::Unanswered(_)));
    let mut text = format!(
        "{} sent, {} already there, {refused} refused, {kept} kept",
        number(|reply| *reply == PostReply::Taken),
        number(|reply| *reply == PostReply::AlreadyThere),
    );
    for (name, reply) in outcomes {
        let _ = match reply {
            PostReply::Taken | PostReply::AlreadyThere => Ok(()),
            PostReply::Refused(why) => write!(text, "\n  refused: {name}: {why}"),
            PostReply::Later(why) => write!(text, "\n  kept: {name}: {why}"),
            PostReply::Unanswered(why) => write!(text, "\n  kept, and perhaps taken: {name}: {why}"),
        };
    }
    if kept > 0 {
        let out = folder.parent().unwrap_or(folder).display();
        let _ = write!(text, "\n  `vllm-perf publish {out} --retry` sends them");
    }
    if kept + refused > 0 { Delivery::Failed(text) } else { Delivery::Done(text) }
}
