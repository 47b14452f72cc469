//! Work that a signal may interrupt. Every command is such work as a whole, and ends soon after the signal whatever it waits
//! for.

use std::time::Duration;

use crate::exit::Exit;
use crate::system::sink::Sink;

/// How long child processes and the note on a pull request may take to end after a signal.
pub const ENDING: Duration = Duration::from_secs(4);

/// How long this process may take to end after a signal.
const LAST: Duration = Duration::from_millis(4700);

/// Does `work` until it is done or a signal arrives; the error is the number of the signal.
pub async fn until_signal<T>(work: impl Future<Output = T>) -> Result<T, u8> {
    tokio::select! {
        done = work => Ok(done),
        signal = interrupt() => Err(signal),
    }
}

/// Ends this process where a signal arrived and the work goes on all the same: it may wait for a disk or a network file
/// system, which nothing can interrupt. Guards end their commands when this process is gone.
pub async fn end_after_signal(sink: Sink) {
    let signal = interrupt().await;
    tokio::time::sleep(LAST).await;
    sink.err("interrupted; something did not end in time and is left to its guard");
    std::process::exit(i32::from(Exit::Signal(signal).code()));
}

/// Waits for a signal that asks for an end; returns its number.
pub async fn interrupt() -> u8 {
    use tokio::signal::unix::{SignalKind, signal};
    let wait = async |kind: SignalKind| match signal(kind) {
        Ok(mut stream) => {
            stream.recv().await;
        }
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => 2,
        () = wait(SignalKind::terminate()) => 15,
        () = wait(SignalKind::hangup()) => 1,
    }
}
