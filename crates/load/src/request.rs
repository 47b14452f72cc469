//! Sends one request and reads its answer. The clock is read right before the request is written and right after each read
//! of the answer, before the bytes are parsed.

use std::error::Error;
use std::pin::Pin;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Sleep;

use crate::answer::Answer;
use crate::connection::{Connection, Connections};
use crate::failure::Failure;
use crate::response::{Piece, ResponseParser};
use crate::stream::{Chunk, ChunkParser, StreamItem, StreamParser};

/// One request, and how its answer is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    /// The whole HTTP request.
    pub request: &'a [u8],
    /// Tokens that it asks for.
    pub output_tokens: usize,
    /// How long the server may send nothing.
    pub stall_timeout: Duration,
    /// Whether the text of the answer is kept.
    pub keep_text: bool,
    /// Start of the run, from which all times are counted.
    pub epoch: Instant,
    /// When the request was due.
    pub due: Instant,
}

/// Sends a request over one of `connections` and reads its answer to the end.
pub(crate) async fn send(outgoing: Outgoing<'_>, connections: &Connections) -> Answer {
    let sent = Instant::now();
    let since = |time: Instant| time.saturating_duration_since(outgoing.epoch).as_secs_f64();
    let due = since(outgoing.due.min(sent));
    let answer = Answer { due, sent: since(sent), ..Answer::default() };
    let mut partial = PartialAnswer { answer, epoch: outgoing.epoch, last_read: sent };
    partial.answer.failure = read_answer(outgoing, connections, &mut partial).await.err();
    partial.answer
}

async fn read_answer(
    outgoing: Outgoing<'_>,
    connections: &Connections,
    partial: &mut PartialAnswer,
) -> Result<(), Failure> {
    let connection = connections.take().await.map_err(|error| Failure::Connection(format!("{error:#}")))?;
    let stalled = Box::pin(tokio::time::sleep(outgoing.stall_timeout));
    let mut reader = Reader { connection, stall_timeout: outgoing.stall_timeout, stalled };
    let written =
        tokio::time::timeout(outgoing.stall_timeout, reader.connection.wire.write_all(outgoing.request)).await;
    written.map_err(|_| Failure::Stalled(outgoing.stall_timeout.as_secs()))?.map_err(lost)?;
    let (mut response, mut stream, mut chunks) =
        (ResponseParser::default(), StreamParser::default(), ChunkParser::default());
    let (mut status, mut error_body, mut done) = (0, Vec::new(), false);
    let mut bound = AnswerBound::of(outgoing.output_tokens);
    loop {
        let length = reader.read(partial).await?;
        bound.take(length)?;
        let arrived = partial.last_read;
        if length == 0 {
            if response.ends_with_connection() {
                break;
            }
            return Err(Failure::Lost("the server closed it before the answer was complete".to_owned()));
        }
        let mut input = reader.connection.buffer.get(..length).unwrap_or_default();
        let complete = loop {
            match response.next(&mut input).map_err(Failure::Malformed)? {
                Piece::Head(code) => status = code,
                Piece::Body(bytes) if (200..300).contains(&status) => {
                    stream.push(bytes).map_err(Failure::Malformed)?;
                    while let Some(item) = stream.next_item() {
                        match item {
                            StreamItem::Done => done = true,
                            StreamItem::Data(data) => {
                                partial.take(chunks.read(data), arrived, outgoing.keep_text, &bound)?;
                            }
                        }
                    }
                }
                Piece::Body(bytes) if error_body.len() < ERROR_BYTES => error_body.extend_from_slice(bytes),
                Piece::Body(_) => {}
                Piece::NeedMore => break false,
                Piece::End => break true,
            }
        };
        if complete {
            break;
        }
    }
    if response.keeps_connection() {
        connections.keep(reader.connection);
    }
    match (status, partial.answer.tokens.is_empty(), done) {
        (200..300, false, true) => Ok(()),
        (200..300, false, false) => Err(Failure::Truncated),
        (200..300, true, _) => Err(Failure::NoToken),
        _ => Err(status_failure(status, &error_body)),
    }
}

fn status_failure(status: u16, body: &[u8]) -> Failure {
    Failure::Status(status, String::from_utf8_lossy(body).chars().take(ERROR_CHARACTERS).collect())
}

/// How much of one answer is read. Everything that a server sends counts: heads, comments, chunk sizes and trailers too.
struct AnswerBound {
    bytes_left: usize,
    bytes: usize,
    pieces: usize,
    output_tokens: usize,
}

/// Bytes of an answer in addition to those for its tokens: more than a server sends without tokens.
const SPARE_BYTES: usize = 8 << 20;

/// Bytes for each token that was asked for: much more than a token with all its log probabilities has.
const BYTES_A_TOKEN: usize = 16 << 10;

/// Pieces of an answer in addition to two for each token that was asked for.
const SPARE_PIECES: usize = 64;

impl AnswerBound {
    fn of(output_tokens: usize) -> Self {
        let bytes = output_tokens.saturating_mul(BYTES_A_TOKEN).saturating_add(SPARE_BYTES);
        let pieces = output_tokens.saturating_mul(2).saturating_add(SPARE_PIECES);
        Self { bytes_left: bytes, bytes, pieces, output_tokens }
    }

    /// Counts the bytes of a read.
    fn take(&mut self, length: usize) -> Result<(), Failure> {
        let left = self.bytes_left.checked_sub(length);
        self.bytes_left = left.ok_or_else(|| self.exceeded(self.bytes, "bytes"))?;
        Ok(())
    }

    /// Checks the number of pieces with a token so far.
    fn check_pieces(&self, pieces: usize) -> Result<(), Failure> {
        if pieces > self.pieces { Err(self.exceeded(self.pieces, "pieces")) } else { Ok(()) }
    }

    fn exceeded(&self, most: usize, what: &str) -> Failure {
        Failure::TooLong(format!("{most} {what}, and {} tokens were asked for", self.output_tokens))
    }
}

/// How much of the body of an error is kept.
const ERROR_CHARACTERS: usize = 300;

/// How much of the body of an error is read.
const ERROR_BYTES: usize = 4 * ERROR_CHARACTERS;

#[expect(clippy::needless_pass_by_value, reason = "it is passed to map_err")]
fn lost(error: std::io::Error) -> Failure {
    let causes = std::iter::successors(Some(&error as &dyn Error), |error| (*error).source());
    Failure::Lost(causes.map(ToString::to_string).collect::<Vec<_>>().join(": "))
}

/// The answer so far of a request in flight.
struct PartialAnswer {
    answer: Answer,
    epoch: Instant,
    /// When bytes arrived last.
    last_read: Instant,
}

impl PartialAnswer {
    fn take(
        &mut self,
        chunk: Result<Chunk<'_>, String>,
        arrived: Instant,
        keep_text: bool,
        bound: &AnswerBound,
    ) -> Result<(), Failure> {
        let chunk = chunk.map_err(Failure::Malformed)?;
        if let Some(error) = chunk.error {
            return Err(Failure::Server(error.message.chars().take(ERROR_CHARACTERS).collect()));
        }
        let answer = &mut self.answer;
        if chunk.has_token() {
            answer.tokens.push(arrived.duration_since(self.epoch).as_secs_f64());
            bound.check_pieces(answer.tokens.len())?;
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

/// Reads from a connection with a timeout.
struct Reader {
    connection: Connection,
    stall_timeout: Duration,
    stalled: Pin<Box<Sleep>>,
}

impl Reader {
    /// Reads the next bytes into the buffer and sets their time of arrival. Gives their number: 0 at the end of the
    /// connection.
    async fn read(&mut self, partial: &mut PartialAnswer) -> Result<usize, Failure> {
        let Connection { wire, buffer } = &mut self.connection;
        let reading = wire.read(buffer);
        tokio::pin!(reading);
        loop {
            tokio::select! {
                biased;
                read = &mut reading => {
                    partial.last_read = Instant::now();
                    return read.map_err(lost);
                }
                // The timer is reset only when it fires, not with every token.
                () = &mut self.stalled => {
                    let deadline = partial.last_read + self.stall_timeout;
                    if deadline <= Instant::now() {
                        return Err(Failure::Stalled(self.stall_timeout.as_secs()));
                    }
                    self.stalled.as_mut().reset(deadline.into());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_is_not_running_is_a_failure_of_the_connection() {
        let connections = Connections::resolve(&"http://127.0.0.1:9/v1".parse().unwrap()).await.unwrap();
        let now = Instant::now();
        let stall_timeout = Duration::from_secs(1);
        let outgoing =
            Outgoing { request: b"", output_tokens: 1, stall_timeout, keep_text: false, epoch: now, due: now };
        assert_eq!(send(outgoing, &connections).await.failure.unwrap().kind(), "no connection");
    }

    /// The failure of a request for four tokens, and the bytes that a server could send: `head`, then `piece` for ever.
    async fn endless(head: &'static [u8], piece: &'static [u8]) -> (Failure, usize) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap()).parse().unwrap();
        let server = tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.unwrap();
            let (mut sent, block) = (0, piece.repeat(1 + (64 << 10) / piece.len()));
            peer.write_all(head).await.unwrap();
            while peer.write_all(&block).await.is_ok() {
                sent += block.len();
            }
            sent
        });
        let connections = Connections::resolve(&url).await.unwrap();
        let (now, stall_timeout) = (Instant::now(), Duration::from_secs(20));
        let outgoing =
            Outgoing { request: b"x", output_tokens: 4, stall_timeout, keep_text: true, epoch: now, due: now };
        let failure = tokio::time::timeout(Duration::from_secs(50), send(outgoing, &connections)).await;
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

    #[test]
    fn an_answer_may_be_longer_than_asked_for_but_not_by_far() {
        let mut bound = AnswerBound::of(4);
        assert!(bound.check_pieces(9).is_ok() && bound.take(1 << 20).is_ok());
        assert_eq!(
            bound.check_pieces(73).unwrap_err().to_string(),
            "the answer had more than 72 pieces, and 4 tokens were asked for: it was not read to its end"
        );
        assert!(bound.take(8 << 20).is_err());
        assert!(AnswerBound::of(usize::MAX).take(usize::MAX - 1).is_ok());
    }
}
