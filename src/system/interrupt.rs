//! Work that a signal may interrupt.

use anyhow::Result;

use crate::system::process::Processes;

/// Does `work` until it is done or a signal arrives; the error is the number of the signal. In both cases all child
/// processes are terminated.
pub async fn interruptible<T>(processes: &Processes, work: impl Future<Output = Result<T>>) -> Result<Result<T>, u8> {
    let done = tokio::select! {
        done = work => Ok(done),
        signal = interrupt() => Err(signal),
    };
    processes.end_all().await;
    done
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
