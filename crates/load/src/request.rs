//! Sends one request and reads its answer. The clock is read right before the request is written; the time of an answer is
//! that of its arrival (`wire.rs`).

use std::error::Error;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::answer::Answer;
use crate::answer_reader::AnswerReader;
use crate::connection::{Connection, Connections};
use crate::failure::Failure;
use crate::turns::Turns;
use crate::wire::Read;

/// How long the end of a response may come after its `[DONE]`. The answer is whole by then; only the connection can no
/// longer be used.
const AFTER_DONE: Duration = Duration::from_millis(100);

/// A request that took longer to write may have been sent at any time within. A shorter write is that of the system, which
/// hands the bytes on first: the server may then run on the same processor.
const LONG_WRITE: Duration = Duration::from_millis(2);

/// One request, and how its answer is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    /// The whole HTTP request.
    pub request: &'a [u8],
    /// Tokens that it asks for.
    pub output_tokens: usize,
    /// How long the server may send nothing.
    pub stall_timeout: Duration,
    /// Whether the answer is one JSON object, and not a stream.
    pub is_whole: bool,
    /// Whether the text of the answer is kept.
    pub keep_text: bool,
    /// Start of the run, from which all times are counted.
    pub epoch: Instant,
    /// When the request was due.
    pub due: Instant,
}

/// Sends a request over one of `connections` and reads its answer to the end. A request on a connection that the server
/// closed before the first byte of an answer is sent once more, on a new one.
pub(crate) async fn send(outgoing: Outgoing<'_>, connections: &Connections, turns: &Turns) -> Answer {
    let sent = Instant::now();
    let (mut reader, was_idle, mut outcome) = attempt(outgoing, sent, connections.take().await, turns).await;
    if matches!(outcome, Err(Failure::Lost(_))) && was_idle && !reader.has_begun() {
        (reader, _, outcome) = attempt(outgoing, Instant::now(), connections.open().await, turns).await;
        reader.answer.client.was_resent = true;
    }
    match outcome {
        Ok(Some(connection)) => connections.keep(connection),
        Ok(None) => {}
        Err(failure) => reader.answer.failure = Some(failure),
    }
    reader.answer
}

/// Sends a request over `connection`. Gives what was read, whether the connection was open before, and the connection if it
/// can carry another request.
async fn attempt(
    outgoing: Outgoing<'_>,
    sent: Instant,
    connection: anyhow::Result<Connection>,
    turns: &Turns,
) -> (AnswerReader, bool, Result<Option<Connection>, Failure>) {
    let Outgoing { epoch, output_tokens, keep_text, is_whole, .. } = outgoing;
    let since = |time: Instant| time.saturating_duration_since(epoch).as_secs_f64();
    let due = since(outgoing.due.min(sent));
    let answer = Answer { due, sent: since(sent), requested_tokens: output_tokens, ..Answer::default() };
    let mut reader = match is_whole {
        true => AnswerReader::of_whole(answer, epoch),
        false => AnswerReader::new(answer, epoch, output_tokens, keep_text),
    };
    let connection = match connection {
        Ok(connection) => connection,
        Err(error) => return (reader, false, Err(Failure::Connection(format!("{error:#}")))),
    };
    let was_idle = connection.was_idle;
    let outcome = exchange(outgoing, connection, &mut reader, turns).await;
    (reader, was_idle, outcome)
}

async fn exchange(
    outgoing: Outgoing<'_>,
    mut connection: Connection,
    reader: &mut AnswerReader,
    turns: &Turns,
) -> Result<Option<Connection>, Failure> {
    let limit = outgoing.stall_timeout;
    let begun = Instant::now();
    let written = tokio::time::timeout(limit, connection.wire.write_all(outgoing.request)).await;
    written.map_err(|_| Failure::Stalled(limit.as_secs()))?.map_err(lost)?;
    let now = Instant::now();
    let writing = now.duration_since(begun);
    if writing > LONG_WRITE {
        reader.answer.client.writing = writing.as_secs_f64();
    }
    let mut stall = Stall { limit, last: now, timer: Box::pin(tokio::time::sleep(limit)) };
    loop {
        let read = match stall.read(&mut connection, reader.is_done()).await {
            Ok(read) => read,
            // Nothing after the end of an answer can make it less whole.
            Err(_) if reader.is_done() => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let turn = turns.read(&read);
        if read.length == 0 {
            if reader.ends_with_connection() || reader.is_done() {
                return reader.conclude(read.arrived).map(|()| None);
            }
            return Err(Failure::Lost("the server closed it before the answer was complete".to_owned()));
        }
        let (before, events) = (reader.answer.tokens.len(), reader.answer.token_events);
        let input = connection.buffer.get(..read.length).unwrap_or_default();
        let was_done = reader.is_done();
        let complete = match reader.take(input, read.arrived) {
            Err(_) if was_done => return Ok(None),
            taken => taken?,
        };
        let events = reader.answer.token_events - events;
        turns.estimate(turn, &mut reader.answer, before, events, outgoing.epoch);
        if complete {
            reader.conclude(read.arrived)?;
            return Ok(reader.keeps_connection().then_some(connection));
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is passed to map_err")]
fn lost(error: std::io::Error) -> Failure {
    let causes = std::iter::successors(Some(&error as &dyn Error), |error| (*error).source());
    Failure::Lost(causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
}

/// Reads from a connection, for as long as the server does not stall.
struct Stall {
    limit: Duration,
    /// When bytes arrived last.
    last: Instant,
    timer: Pin<Box<Sleep>>,
}

impl Stall {
    async fn read(&mut self, connection: &mut Connection, is_done: bool) -> Result<Read, Failure> {
        let Connection { wire, buffer, .. } = connection;
        let reading = wire.read(buffer);
        tokio::pin!(reading);
        if is_done {
            let read = tokio::time::timeout(AFTER_DONE, reading).await;
            return read.map_err(|_| Failure::Stalled(0))?.map_err(lost);
        }
        loop {
            tokio::select! {
                biased;
                read = &mut reading => {
                    self.last = Instant::now();
                    return read.map_err(lost);
                }
                // The timer is reset only when it fires, not with every token.
                () = &mut self.timer => {
                    let deadline = self.last + self.limit;
                    if deadline <= Instant::now() {
                        return Err(Failure::Stalled(self.limit.as_secs()));
                    }
                    self.timer.as_mut().reset(deadline.into());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::server::Server;

    fn server(url: &str) -> Server {
        Server::new(url.parse().unwrap(), http::HeaderMap::new())
    }

    #[tokio::test]
    async fn a_server_that_is_not_running_is_a_failure_of_the_connection() {
        let connections = Connections::resolve(&server("http://127.0.0.1:9/v1")).await.unwrap();
        let now = Instant::now();
        let stall_timeout = Duration::from_secs(1);
        let outgoing = Outgoing {
            request: b"",
            output_tokens: 1,
            stall_timeout,
            is_whole: false,
            keep_text: false,
            epoch: now,
            due: now,
        };
        assert_eq!(send(outgoing, &connections, &Turns::start()).await.failure.unwrap().kind(), "no connection");
    }

    /// The failure of a request for four tokens, and the bytes that a server could send: `head`, then `piece` for ever.
    async fn endless(head: &'static [u8], piece: &'static [u8]) -> (Failure, usize) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = server(&format!("http://{}/v1", listener.local_addr().unwrap()));
        let server = tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            let (mut sent, block) = (0, piece.repeat(1 + (64 << 10) / piece.len()));
            peer.write_all(head).await.unwrap();
            while peer.write_all(&block).await.is_ok() {
                sent += block.len();
            }
            sent
        });
        let connections = Connections::resolve(&target).await.unwrap();
        let (now, stall_timeout, turns) = (Instant::now(), Duration::from_secs(20), Turns::start());
        let outgoing = Outgoing {
            request: b"x",
            output_tokens: 4,
            stall_timeout,
            is_whole: false,
            keep_text: true,
            epoch: now,
            due: now,
        };
        let failure = tokio::time::timeout(Duration::from_secs(50), send(outgoing, &connections, &turns)).await;
        drop(connections);
        (failure.unwrap().failure.unwrap(), server.await.unwrap())
    }

    #[tokio::test]
    async fn an_answer_without_end_is_left_early_whatever_it_consists_of() {
        let stream = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".as_slice();
        let attacks: [(&[u8], &[u8]); 7] = [
            (stream, b"data: {\"choices\":[{\"text\":\"a\"}]}\n\n"),
            (stream, b": a comment\n"),
            (stream, b"data: {\"choices\":[]}\n\n"),
            (b"HTTP/1.1 500 No\r\nconnection: close\r\n\r\n", b"an error of any length "),
            (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
            (b"HTTP/1.1 200 OK\r\n", b"x-more: and more\r\n"),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x-trailer: and more\r\n"),
        ];
        for (head, piece) in attacks {
            let (failure, sent) = endless(head, piece).await;
            let shown = String::from_utf8_lossy(piece);
            assert!(matches!(failure, Failure::TooLong(_) | Failure::Malformed(_)), "{shown}: {failure}");
            assert!(sent < 32 << 20, "{sent} bytes of {shown}");
        }
    }
}
