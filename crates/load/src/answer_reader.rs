//! Reads the bytes of one answer: HTTP, events and chunks, up to what they mean for the request.

use std::time::Instant;

use crate::answer::Answer;
use crate::chunk::{self, Chunk, ChunkParser};
use crate::failure::Failure;
use crate::response::{HeadFacts, Piece, ResponseParser};
use crate::stream::{StreamItem, StreamParser};
use crate::whole_body::WholeBody;

/// How much of the body of an error is kept, in characters.
const ERROR_CHARACTERS: usize = 300;

/// How much of a body that is no stream is read, in bytes.
const ERROR_BYTES: usize = 4 * ERROR_CHARACTERS;

/// Reasons to finish that are failures of the server.
const FAILED_REASONS: [&str; 2] = ["error", "abort"];

/// An answer so far, and the state of its parsers.
// 13 fields: a parser for each layer of an answer, and what they have found.
pub struct AnswerReader {
    pub answer: Answer,
    epoch: Instant,
    keep_text: bool,
    bound: AnswerBound,
    response: ResponseParser,
    stream: StreamParser,
    chunks: ChunkParser,
    /// In place of a stream.
    whole: Option<WholeBody>,
    status: u16,
    /// The beginning of a body that has no event so far.
    body: Vec<u8>,
    has_event: bool,
    done: bool,
    /// Whether the server said that the answer is whole: by the reason to finish, or by token counts.
    finished: bool,
}

impl AnswerReader {
    /// `answer` has the times of the request; `output_tokens` were asked for.
    pub fn new(answer: Answer, epoch: Instant, output_tokens: usize, keep_text: bool) -> Self {
        Self {
            answer,
            epoch,
            keep_text,
            bound: AnswerBound::of(output_tokens),
            response: ResponseParser::default(),
            stream: StreamParser::default(),
            chunks: ChunkParser::default(),
            whole: None,
            status: 0,
            body: Vec::new(),
            has_event: false,
            done: false,
            finished: false,
        }
    }

    /// Of an answer that is one JSON object. It has one time, that of its end.
    pub fn of_whole(answer: Answer, epoch: Instant) -> Self {
        let bound = AnswerBound::of_whole();
        Self { bound, whole: Some(WholeBody::default()), ..Self::new(answer, epoch, 0, false) }
    }

    /// Takes the bytes of one read, which arrived at `arrived`; returns whether the response is complete.
    ///
    /// # Errors
    /// The answer is malformed or too long, or the server reports an error in it.
    pub fn take(&mut self, mut input: &[u8], arrived: Instant) -> Result<bool, Failure> {
        self.bound.take(input.len())?;
        loop {
            match self.response.next(&mut input).map_err(Failure::Malformed)? {
                Piece::Head(status) => {
                    self.status = status;
                    self.check_encoding()?;
                }
                Piece::Body(bytes) => {
                    if !self.has_event && self.body.len() < ERROR_BYTES {
                        self.body.extend_from_slice(bytes.get(..ERROR_BYTES).unwrap_or(bytes));
                    }
                    if let Some(whole) = self.whole.as_mut().filter(|_| (200..300).contains(&self.status)) {
                        whole.push(bytes);
                    } else if self.is_success() {
                        self.stream.push(bytes).map_err(Failure::Malformed)?;
                        self.take_events(arrived)?;
                    }
                }
                Piece::NeedMore => return Ok(false),
                Piece::End => return Ok(true),
            }
        }
    }

    /// Whether the answer is whole, whatever the response still has.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Whether any byte of an answer came.
    pub fn has_begun(&self) -> bool {
        self.bound.has_begun()
    }

    /// Whether the response ends with its connection.
    pub fn ends_with_connection(&self) -> bool {
        self.response.ends_with_connection()
    }

    /// Whether the connection can carry another request.
    pub fn keeps_connection(&self) -> bool {
        self.response.keeps_connection()
    }

    /// The end of the response: whether the answer is complete.
    ///
    /// # Errors
    /// Why it is not.
    pub fn conclude(&mut self, ended: Instant) -> Result<(), Failure> {
        if !self.is_success() {
            return Err(self.status_failure());
        }
        if let Some(whole) = &self.whole {
            if !whole.has_data() {
                return Err(self.no_data(whole));
            }
            self.answer.input_tokens = whole.prompt_tokens().unwrap_or(self.answer.input_tokens);
            self.answer.tokens.push(ended.saturating_duration_since(self.epoch).as_secs_f64());
            return Ok(());
        }
        if !self.done && self.stream.push(b"\n").is_ok() {
            // The last line may have no end. One that was cut off is not an event.
            if let Err(failure @ Failure::Server(_)) = self.take_events(ended) {
                return Err(failure);
            }
        }
        match (self.answer.tokens.is_empty(), self.done || self.finished) {
            (false, true) => Ok(()),
            (false, false) => Err(Failure::Truncated),
            (true, _) if !self.has_event => Err(self.no_stream()),
            (true, _) => Err(Failure::NoToken),
        }
    }

    fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// A compressed body cannot be read as it comes: its times are not those of the tokens.
    fn check_encoding(&self) -> Result<(), Failure> {
        if let Some(encoding) = &self.response.facts().content_encoding
            && self.is_success()
        {
            let cause = format!(
                "its body is compressed (content-encoding: {encoding}), although the request asks for none: switch it off in \
                 the server or proxy"
            );
            return Err(if self.whole.is_some() { Failure::NoData(cause) } else { Failure::NotAStream(cause) });
        }
        Ok(())
    }

    fn take_events(&mut self, arrived: Instant) -> Result<(), Failure> {
        while let Some(item) = self.stream.next_item() {
            if self.done {
                continue;
            }
            self.has_event = true;
            match item {
                StreamItem::Done => self.done = true,
                StreamItem::Error(data) => return Err(Failure::Server(shortened(&event_words(data)))),
                StreamItem::Data(data) => {
                    let chunk = self.chunks.read(data).map_err(Failure::Malformed)?;
                    let arrived = arrived.saturating_duration_since(self.epoch).as_secs_f64();
                    self.finished |= take_chunk(&chunk, arrived, &mut self.answer, self.keep_text, &self.bound)?;
                }
            }
        }
        Ok(())
    }

    fn status_failure(&self) -> Failure {
        let facts = self.response.facts();
        let text = String::from_utf8_lossy(&self.body);
        let words = chunk::words(&text).unwrap_or_else(|| text.trim().to_owned());
        let location = facts.location.as_ref().filter(|_| (300..400).contains(&self.status));
        let text = match location {
            Some(location) => format!("it redirects to {location}: give that address, redirects are not followed"),
            None => words,
        };
        Failure::Status(self.status, shortened(&text))
    }

    /// What came in place of an object with data.
    fn no_data(&self, whole: &WholeBody) -> Failure {
        let text = String::from_utf8_lossy(&self.body);
        let text = text.trim();
        let kind = self.response.facts().content_type.as_deref().unwrap_or("of no named type");
        Failure::NoData(match serde_json::from_str::<Chunk<'_>>(text) {
            _ if text.is_empty() => format!("its body is empty ({kind})"),
            _ if whole.is_cut_off() => format!("its JSON is cut off ({kind}): {}", shortened(text)),
            Ok(chunk) if chunk.error().is_some() => {
                return Failure::Server(shortened(&chunk.error().unwrap_or_default()));
            }
            _ => format!("it answered ({kind}): {}", shortened(text)),
        })
    }

    /// What came in place of a stream.
    fn no_stream(&self) -> Failure {
        let HeadFacts { content_type, .. } = self.response.facts();
        let text = String::from_utf8_lossy(&self.body);
        let text = text.trim();
        let kind = content_type.as_deref().unwrap_or("of no named type");
        Failure::NotAStream(match serde_json::from_str::<Chunk<'_>>(text) {
            _ if text.is_empty() => format!("its body is empty ({kind})"),
            Ok(chunk) => match chunk.error() {
                Some(words) => format!("it answered ({kind}): {}", shortened(&words)),
                None => format!("its whole answer came at once, not as events ({kind}): {}", shortened(text)),
            },
            Err(_) => format!("it answered ({kind}): {}", shortened(text)),
        })
    }
}

/// Takes one chunk; returns whether the server says that the answer is whole.
fn take_chunk(
    chunk: &Chunk<'_>,
    arrived: f64,
    answer: &mut Answer,
    keep_text: bool,
    bound: &AnswerBound,
) -> Result<bool, Failure> {
    if let Some(words) = chunk.error() {
        return Err(Failure::Server(shortened(&words)));
    }
    let reason = chunk.finish_reason();
    if chunk.has_choice() {
        answer.tokens.push(arrived);
        bound.check_pieces(answer.tokens.len())?;
        if chunk.has_token() {
            answer.token_events += 1;
            answer.first_token.get_or_insert(arrived);
        }
        if keep_text {
            answer.text.push_str(&chunk.text());
        }
    }
    if let Some(usage) = chunk.usage {
        answer.input_tokens = usage.prompt_tokens().unwrap_or(answer.input_tokens);
        answer.output_tokens = usage.completion_tokens().or(answer.output_tokens);
    }
    match reason {
        Some(reason) if FAILED_REASONS.contains(&&*reason) => {
            Err(Failure::Server(format!("the reason to finish is `{reason}`")))
        }
        reason => Ok(reason.is_some() || chunk.usage.is_some() && !chunk.has_choice()),
    }
}

/// The words of an event of the type `error`.
fn event_words(data: &[u8]) -> String {
    let text = String::from_utf8_lossy(data);
    let words = chunk::words(&text).unwrap_or_else(|| text.trim().to_owned());
    if words.is_empty() { "an event of the type `error`, without a text".to_owned() } else { words }
}

fn shortened(text: &str) -> String {
    text.chars().take(ERROR_CHARACTERS).collect()
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

/// Bytes of an answer that is one object: a vector for each token of a long prompt. They are not kept.
const WHOLE_BYTES: usize = 256 << 20;

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

    fn of_whole() -> Self {
        Self { bytes_left: WHOLE_BYTES, bytes: WHOLE_BYTES, pieces: 0, output_tokens: 0 }
    }

    /// Counts the bytes of a read.
    fn take(&mut self, length: usize) -> Result<(), Failure> {
        let left = self.bytes_left.checked_sub(length);
        self.bytes_left = left.ok_or_else(|| self.exceeded(self.bytes, "bytes"))?;
        Ok(())
    }

    fn has_begun(&self) -> bool {
        self.bytes_left < self.bytes
    }

    /// Checks the number of pieces with a token so far.
    fn check_pieces(&self, pieces: usize) -> Result<(), Failure> {
        if pieces > self.pieces { Err(self.exceeded(self.pieces, "pieces")) } else { Ok(()) }
    }

    fn exceeded(&self, most: usize, what: &str) -> Failure {
        Failure::TooLong(match self.pieces {
            0 => format!("{most} {what}"),
            _ => format!("{most} {what}, and {} tokens were asked for", self.output_tokens),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The outcome of a response whose body is `body` and ends with its connection.
    fn outcome(head: &str, body: &str) -> (Answer, String) {
        let now = Instant::now();
        let mut reader = AnswerReader::new(Answer::default(), now, 8, true);
        let text = format!("HTTP/1.1 {head}\r\n\r\n{body}");
        let outcome = reader.take(text.as_bytes(), now).and_then(|_| reader.conclude(now));
        (reader.answer, outcome.err().map(|failure| failure.to_string()).unwrap_or_default())
    }

    fn of_stream(body: &str) -> (Answer, String) {
        outcome("200 OK\r\ncontent-type: text/event-stream", body)
    }

    const TWO: &str = "data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[{\"text\":\"b\"}]}\n\n";

    #[test]
    fn an_error_after_some_tokens_is_a_failure_with_the_words_of_the_server() {
        for (event, words) in [
            ("data: {\"error\":{\"message\":\"engine died\",\"code\":500}}\n\n", "engine died"),
            ("data: {\"error\":\"out of blocks\"}\n\n", "out of blocks"),
            ("data: {\"error\":{\"type\":\"overloaded\",\"message\":null}}\n\n", "overloaded"),
            ("data: {\"object\":\"error\",\"message\":\"engine stopped\"}\n\n", "engine stopped"),
            ("event: error\ndata: {\"message\":\"worker lost\",\"code\":500}\n\n", "worker lost"),
            ("event: error\ndata: worker gone\n\n", "worker gone"),
            ("event: error\n: worker away\n\n", "worker away"),
            ("event: error\n\n", "without a text"),
            ("data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"abort\"}]}\n\n", "`abort`"),
            ("data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"error\"}]}\n\n", "`error`"),
            ("data: {\"detail\":\"Internal Server Error\"}\n\n", "Internal Server Error"),
        ] {
            for end in ["data: [DONE]\n\n", ""] {
                let (answer, failure) = of_stream(&format!("{TWO}{event}{end}"));
                assert!(failure.starts_with("the server reported an error") && failure.contains(words), "{failure}");
                assert!(answer.tokens.len() >= 2);
            }
        }
    }

    #[test]
    fn an_answer_is_complete_when_the_server_says_so_in_any_way() {
        let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}";
        let last = "data: {\"choices\":[{\"text\":\"c\",\"finish_reason\":\"length\"}]}";
        for end in [
            "data: [DONE]\n\n",
            "data: [DONE]\n",
            "data: [DONE]",
            "data:[DONE] \r\n",
            &format!("{usage}\n\n"),
            &format!("{last}\n\n"),
            &format!("{last}\n{usage}\n"),
            &format!("{usage}\n\ndata: [DONE]\n\ndata: {{\"error\":\"after the end\"}}\n\n"),
        ] {
            assert_eq!(of_stream(&format!("{TWO}{end}")).1, "", "{end}");
        }
        assert_eq!(of_stream(TWO).1, "the answer ended before [DONE]");
        assert_eq!(of_stream(&format!("{TWO}data: {{\"choi")).1, "the answer ended before [DONE]");
        assert_eq!(of_stream("data: [DONE]\n\n").1, "the answer had no token");
    }

    #[test]
    fn an_answer_that_is_no_stream_says_what_came() {
        let json = "200 OK\r\ncontent-type: application/json";
        let of = |head: &str, body: &str| outcome(head, body).1;
        insta::assert_snapshot!(of("200 OK\r\ncontent-type: text/html", "<html>Log in to continue</html>"), @"the answer is not a stream: it answered (text/html): <html>Log in to continue</html>");
        insta::assert_snapshot!(of(json, r#"{"object":"error","message":"too many tokens","code":400}"#), @"the answer is not a stream: it answered (application/json): too many tokens");
        insta::assert_snapshot!(of(json, r#"{"choices":[{"text":"a"}]}"#), @r#"the answer is not a stream: its whole answer came at once, not as events (application/json): {"choices":[{"text":"a"}]}"#);
        insta::assert_snapshot!(of("200 OK", ""), @"the answer is not a stream: its body is empty (of no named type)");
        insta::assert_snapshot!(of("200 OK\r\ncontent-encoding: gzip", "\u{1f}"), @"the answer is not a stream: its body is compressed (content-encoding: gzip), although the request asks for none: switch it off in the server or proxy");
        insta::assert_snapshot!(of("307 Go\r\nlocation: /v2/completions", ""), @"the server answered 307: it redirects to /v2/completions: give that address, redirects are not followed");
        insta::assert_snapshot!(of("404 No", r#"{"error":{"message":"The model `x` does not exist."}}"#), @"the server answered 404: The model `x` does not exist.");
        insta::assert_snapshot!(of("503 Busy", "no healthy upstream"), @"the server answered 503: no healthy upstream");
    }

    /// The outcome of a response that is one object.
    fn of_whole(head: &str, body: &str) -> (Answer, String) {
        let now = Instant::now();
        let mut reader = AnswerReader::of_whole(Answer::default(), now);
        let text = format!("HTTP/1.1 {head}\r\n\r\n{body}");
        let outcome = reader.take(text.as_bytes(), now).and_then(|_| reader.conclude(now));
        (reader.answer, outcome.err().map(|failure| failure.to_string()).unwrap_or_default())
    }

    #[test]
    fn a_whole_answer_has_one_time_and_the_servers_token_count_or_says_what_came() {
        let json = "200 OK\r\ncontent-type: application/json";
        let body = r#"{"object":"list","data":[{"embedding":[0.5]}],"usage":{"prompt_tokens":7,"total_tokens":7}}"#;
        let (answer, failure) = of_whole(json, body);
        assert_eq!((failure.as_str(), answer.input_tokens, answer.tokens.len()), ("", 7, 1));
        assert_eq!((answer.ttft(), answer.output_tokens, answer.token_events), (answer.latency(), None, 0));
        let of = |head: &str, body: &str| of_whole(head, body).1;
        insta::assert_snapshot!(of(json, r#"{"error":{"message":"too long"}}"#), @"the server reported an error: too long");
        insta::assert_snapshot!(of(json, r#"{"data":[0.5,"#), @r#"the answer has no data: its JSON is cut off (application/json): {"data":[0.5,"#);
        insta::assert_snapshot!(of("200 OK\r\ncontent-type: text/html", "<html>Log in</html>"), @"the answer has no data: it answered (text/html): <html>Log in</html>");
        insta::assert_snapshot!(of("200 OK", ""), @"the answer has no data: its body is empty (of no named type)");
        insta::assert_snapshot!(of("400 No", r#"{"error":{"message":"This model does not support embeddings"}}"#), @"the server answered 400: This model does not support embeddings");
        let compressed = of("200 OK\r\ncontent-encoding: gzip", "\u{1f}");
        assert!(compressed.starts_with("the answer has no data: its body is compressed"), "{compressed}");
    }

    #[test]
    fn the_first_token_is_not_the_role_and_tokens_are_not_events() {
        let body = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n\
            data: {\"choices\":[{\"delta\":{\"content\":\"ten tokens\"}}]}\n\n\
            data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n\
            data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":10}}\n\ndata: [DONE]\n\n";
        let (answer, failure) = of_stream(body);
        assert_eq!(failure, "");
        assert_eq!((answer.tokens.len(), answer.token_events, answer.output_tokens), (3, 2, Some(10)));
        assert!(answer.first_token.is_some());
        let none = "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"stop\"}]}\n\n\
            data: {\"choices\":[],\"usage\":{\"completion_tokens\":0}}\n\ndata: [DONE]\n\n";
        let (answer, failure) = of_stream(none);
        assert_eq!((failure.as_str(), answer.output_tokens), ("", Some(0)));
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
