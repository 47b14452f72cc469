//! Sends one request and follows its answer. The clock is read right before the request is written and right after each
//! read of the answer; parsing comes after.

use std::error::Error;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Sleep;

use crate::answer::Answer;
use crate::connection::{Connection, Connections};
use crate::failure::Failure;
use crate::response::{Piece, Response};
use crate::stream::{Chunk, Chunks, Event, Events};

/// One request, and how its answer is followed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The whole HTTP request.
    pub request: &'a [u8],
    /// How long the answer may be silent.
    pub silence: Duration,
    /// Whether the text of the answer is kept.
    pub keep_text: bool,
    /// Start of the run: the zero of all times.
    pub epoch: Instant,
    /// When the request was due.
    pub due: Instant,
}

/// Sends a request over one of `connections` and follows its answer to the end.
pub(crate) async fn send(asked: Asked<'_>, connections: &Connections) -> Answer {
    let sent = Instant::now();
    let since = |time: Instant| time.saturating_duration_since(asked.epoch).as_secs_f64();
    let due = since(asked.due.min(sent));
    let answer = Answer { due, sent: since(sent), ..Answer::default() };
    let mut seen = Watched { answer, epoch: asked.epoch, heard: sent };
    seen.answer.failure = follow(asked, connections, &mut seen).await.err();
    seen.answer
}

async fn follow(asked: Asked<'_>, connections: &Connections, seen: &mut Watched) -> Result<(), Failure> {
    let connection = connections.take().await.map_err(|error| Failure::Connection(format!("{error:#}")))?;
    let silence = Box::pin(tokio::time::sleep(asked.silence));
    let mut reader = Reader { connection, limit: asked.silence, silence };
    let written = tokio::time::timeout(asked.silence, reader.connection.wire.write_all(asked.request)).await;
    written.map_err(|_| Failure::Stalled(asked.silence.as_secs()))?.map_err(lost)?;
    let (mut response, mut events, mut chunks) = (Response::default(), Events::default(), Chunks::default());
    let (mut status, mut page, mut done) = (0, Vec::new(), false);
    loop {
        let length = reader.read(seen).await?;
        let arrived = seen.heard;
        if length == 0 {
            if response.ends_with_connection() {
                break;
            }
            return Err(Failure::Lost("the server closed it before the answer was complete".to_owned()));
        }
        let mut input = reader.connection.buffer.get(..length).unwrap_or_default();
        let ended = loop {
            match response.next(&mut input).map_err(Failure::Malformed)? {
                Piece::Head(code) => status = code,
                Piece::Body(bytes) if (200..300).contains(&status) => {
                    events.push(bytes).map_err(Failure::Malformed)?;
                    while let Some(event) = events.next_event() {
                        match event {
                            Event::Done => done = true,
                            Event::Data(data) => seen.take(chunks.read(data), arrived, asked.keep_text)?,
                        }
                    }
                }
                Piece::Body(bytes) if page.len() < ERROR_BYTES => page.extend_from_slice(bytes),
                Piece::Body(_) => {}
                Piece::More => break false,
                Piece::End => break true,
            }
        };
        if ended {
            break;
        }
    }
    if response.keeps_connection() {
        connections.keep(reader.connection);
    }
    match (status, seen.answer.tokens.is_empty(), done) {
        (200..300, false, true) => Ok(()),
        (200..300, false, false) => Err(Failure::Truncated),
        (200..300, true, _) => Err(Failure::NoToken),
        _ => {
            let text = String::from_utf8_lossy(&page).chars().take(ERROR_CHARACTERS).collect();
            Err(Failure::Status(status, text))
        }
    }
}

/// How much of an error page is kept.
const ERROR_CHARACTERS: usize = 300;

/// How much of an error page is read.
const ERROR_BYTES: usize = 4 * ERROR_CHARACTERS;

#[expect(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
fn lost(error: std::io::Error) -> Failure {
    let causes = std::iter::successors(Some(&error as &dyn Error), |error| (*error).source());
    Failure::Lost(causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
}

/// A request under way.
struct Watched {
    answer: Answer,
    epoch: Instant,
    /// When something arrived last.
    heard: Instant,
}

impl Watched {
    fn take(&mut self, chunk: Result<Chunk<'_>, String>, arrived: Instant, keep_text: bool) -> Result<(), Failure> {
        let chunk = chunk.map_err(Failure::Malformed)?;
        if let Some(error) = chunk.error {
            return Err(Failure::Server(error.message));
        }
        let answer = &mut self.answer;
        if chunk.has_token() {
            answer.tokens.push(arrived.duration_since(self.epoch).as_secs_f64());
            if keep_text {
                answer.text.push_str(&chunk.text());
            }
        }
        if let Some(usage) = chunk.usage {
            answer.input_tokens = usage.prompt_tokens.unwrap_or(answer.input_tokens);
            answer.output_tokens = usage.completion_tokens.unwrap_or(answer.output_tokens);
        }
        Ok(())
    }
}

/// A connection that an answer comes over.
struct Reader {
    connection: Connection,
    limit: Duration,
    silence: Pin<Box<Sleep>>,
}

impl Reader {
    /// Reads what arrives next, and notes when. How many bytes; 0 at the end of the connection.
    async fn read(&mut self, seen: &mut Watched) -> Result<usize, Failure> {
        let Connection { wire, buffer } = &mut self.connection;
        let reading = wire.read(buffer);
        tokio::pin!(reading);
        loop {
            tokio::select! {
                biased;
                read = &mut reading => {
                    seen.heard = Instant::now();
                    return read.map_err(lost);
                }
                // The alarm is set again only when it rings, not for every token.
                () = &mut self.silence => {
                    let until = seen.heard + self.limit;
                    if until <= Instant::now() {
                        return Err(Failure::Stalled(self.limit.as_secs()));
                    }
                    self.silence.as_mut().reset(until.into());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_is_not_there_is_a_failure_of_the_connection() {
        let connections = Connections::to(&"http://127.0.0.1:9/v1".parse().unwrap()).await.unwrap();
        let now = Instant::now();
        let silence = Duration::from_secs(1);
        let asked = Asked { request: b"", silence, keep_text: false, epoch: now, due: now };
        assert_eq!(send(asked, &connections).await.failure.unwrap().kind(), "no connection");
    }
}
