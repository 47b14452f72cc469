//! Signals: work that a person or CI may interrupt.
use crate::system::process::Processes;
use anyhow::Result;

/// Does `work` unless CI or a person wants an end, which is the error, by the number of the signal. Whatever happens,
/// nothing of ours stays behind.
pub async fn interruptible<T>(processes: &Processes, work: impl Future<Output = Result<T>>) -> Result<Result<T>, u8> {
    let done = tokio::select! {
        done = work => Ok(done),
        signal = interrupt() => Err(signal),
    };
    processes.end_all().await;
    done
}

/// Resolves when CI or a person wants an end, to the number of the signal.
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
