//! Server-sent events, as completion endpoints stream them: bytes in as they arrive, events out. Pure and incremental;
//! a chunk may end anywhere, inside a character included.

use serde::Deserialize;

/// One event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// The `data` of an event, its lines joined by line feeds. Not yet known to be UTF-8.
    Data(&'a [u8]),
    /// `[DONE]`: nothing follows.
    Done,
}

/// Finds events in a stream of bytes. Lines end in LF or CRLF; comments and fields other than `data` are skipped.
#[derive(Debug, Default)]
pub struct Events {
    buffer: Vec<u8>,
    /// How much of `buffer` has been read.
    read: usize,
    /// `data` of the event under way.
    data: Vec<u8>,
    has_data: bool,
    given: bool,
}

impl Events {
    /// Adds what arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole event, or `None` until more bytes arrive.
    pub fn next_event(&mut self) -> Option<Event<'_>> {
        if self.given {
            self.data.clear();
            (self.has_data, self.given) = (false, false);
        }
        loop {
            let rest = self.buffer.get(self.read..).unwrap_or_default();
            let end = rest.iter().position(|byte| *byte == b'\n')?;
            let line = rest.get(..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            self.read += end + 1;
            if let Some(value) = line.strip_prefix(b"data:") {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
                self.has_data = true;
            } else if line.is_empty() && self.has_data {
                self.given = true;
                let done = self.data == b"[DONE]";
                return Some(if done { Event::Done } else { Event::Data(&self.data) });
            }
        }
    }
}

/// What one event of a completion stream says, for both interfaces.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    /// Token counts; vLLM sends them last, in an event without choices.
    pub usage: Option<Usage>,
    /// What went wrong after the stream had begun.
    pub error: Option<ErrorBody>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Choice {
    text: Option<String>,
    delta: Option<Delta>,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
struct Delta {
    content: Option<String>,
}

/// Token counts of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Usage {
    /// Tokens in.
    pub prompt_tokens: Option<u64>,
    /// Tokens out.
    pub completion_tokens: Option<u64>,
}

/// What went wrong, in the server's words.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct ErrorBody {
    /// The server's words.
    pub message: String,
}

impl Chunk {
    /// Reads the data of an event.
    ///
    /// # Errors
    /// It is not the JSON of a completion chunk.
    pub fn parse(data: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(data)
    }

    /// The text of the first choice, which may be empty; `None` in an event without choices.
    pub fn token(&self) -> Option<&str> {
        let choice = self.choices.first()?;
        let text = choice.text.as_deref();
        Some(text.or_else(|| choice.delta.as_ref().and_then(|delta| delta.content.as_deref())).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(chunks: &[&[u8]]) -> Vec<String> {
        let mut events = Events::default();
        let mut found = Vec::new();
        for chunk in chunks {
            events.push(chunk);
            while let Some(event) = events.next_event() {
                found.push(match event {
                    Event::Data(data) => String::from_utf8_lossy(data).into_owned(),
                    Event::Done => "<done>".to_owned(),
                });
            }
        }
        found
    }

    const STREAM: &str =
        ": ping\n\nevent: token\r\ndata: {\"text\": \"h\u{e9}\"}\r\n\r\ndata:a\ndata: b\n\ndata: \n\ndata: [DONE]\n\n";
    const FOUND: [&str; 4] = ["{\"text\": \"h\u{e9}\"}", "a\nb", "", "<done>"];

    #[test]
    fn events_are_found_wherever_the_chunks_end() {
        assert_eq!(texts(&[STREAM.as_bytes()]), FOUND);
        assert_eq!(texts(&STREAM.as_bytes().chunks(1).collect::<Vec<_>>()), FOUND);
        for cut in 0..STREAM.len() {
            let (left, right) = STREAM.as_bytes().split_at(cut);
            assert_eq!(texts(&[left, right]), FOUND, "cut at byte {cut}");
        }
    }

    #[test]
    fn an_event_that_is_not_finished_is_not_given() {
        assert_eq!(texts(&[b"data: {\"a\"", b": 1}\n"]), Vec::<String>::new());
    }

    #[test]
    fn vllms_chunks_of_both_interfaces_carry_tokens_then_usage() {
        let completion = br#"{"id":"cmpl-1","choices":[{"index":0,"text":" a","finish_reason":null}],"usage":null}"#;
        let chat = br#"{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#;
        let usage = br#"{"choices":[],"usage":{"prompt_tokens":64,"total_tokens":96,"completion_tokens":32}}"#;
        assert_eq!(Chunk::parse(completion).unwrap().token(), Some(" a"));
        assert_eq!(Chunk::parse(chat).unwrap().token(), Some(""));
        let last = Chunk::parse(usage).unwrap();
        assert_eq!(last.token(), None);
        assert_eq!(last.usage, Some(Usage { prompt_tokens: Some(64), completion_tokens: Some(32) }));
    }

    #[test]
    fn an_error_event_is_told_from_a_token_and_bad_utf8_is_an_error() {
        let chunk = Chunk::parse(br#"{"error":{"message":"engine died","type":"InternalServerError"}}"#).unwrap();
        assert_eq!(chunk.error.unwrap().message, "engine died");
        assert!(Chunk::parse(b"{\"choices\":[{\"text\":\"\xff\"}]}").is_err());
    }
}
