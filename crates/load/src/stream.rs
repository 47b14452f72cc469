//! Server-sent events, as completion endpoints stream them: bytes in as they arrive, events out. Pure and incremental;
//! a chunk may end anywhere, inside a character included.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Longest event, in bytes: far beyond what a server says at once, far below what a machine can hold.
const EVENT_LIMIT: usize = 32 << 20;

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
    /// How much of `buffer` is known to hold no line end beyond `read`.
    searched: usize,
    /// `data` of the event under way, where that has several lines.
    data: Vec<u8>,
    has_data: bool,
}

/// Where the data of an event lies.
enum Found {
    InBuffer(std::ops::Range<usize>),
    Gathered,
}

impl Events {
    /// Adds what arrived.
    ///
    /// # Errors
    /// The event under way is longer than any that is meant.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.buffer.drain(..self.read);
        self.searched -= self.read;
        self.read = 0;
        if self.buffer.len() + self.data.len() + bytes.len() > EVENT_LIMIT {
            return Err(format!("an event is longer than {EVENT_LIMIT} bytes"));
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole event, or `None` until more bytes arrive.
    pub fn next_event(&mut self) -> Option<Event<'_>> {
        let data = match self.find()? {
            Found::InBuffer(range) => self.buffer.get(range).unwrap_or_default(),
            Found::Gathered => &self.data,
        };
        Some(if data == b"[DONE]" { Event::Done } else { Event::Data(data) })
    }

    fn find(&mut self) -> Option<Found> {
        if !self.has_data {
            self.data.clear();
        }
        loop {
            let begin = self.read;
            let end = self.line_end()?;
            let line = self.line(begin, end);
            let Some(value) = line.strip_prefix(b"data:") else {
                if line.is_empty() && std::mem::take(&mut self.has_data) {
                    return Some(Found::Gathered);
                }
                continue;
            };
            let value = value.strip_prefix(b" ").unwrap_or(value);
            let to = begin + line.len();
            let value = to - value.len()..to;
            // The end of an event mostly stands right behind its only line: then nothing is copied.
            let rest = self.buffer.get(self.read..).unwrap_or_default();
            let blank = if rest.starts_with(b"\n") { 1 } else { 2 * usize::from(rest.starts_with(b"\r\n")) };
            if blank > 0 && !self.has_data {
                self.read += blank;
                self.searched = self.read;
                return Some(Found::InBuffer(value));
            }
            if self.has_data {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(self.buffer.get(value).unwrap_or_default());
            self.has_data = true;
        }
    }

    /// Moves past the next line and gives where its line feed stands.
    fn line_end(&mut self) -> Option<usize> {
        match memchr::memchr(b'\n', self.buffer.get(self.searched..)?) {
            Some(offset) => {
                let end = self.searched + offset;
                (self.read, self.searched) = (end + 1, end + 1);
                Some(end)
            }
            None => {
                self.searched = self.buffer.len();
                None
            }
        }
    }

    fn line(&self, begin: usize, end: usize) -> &[u8] {
        let line = self.buffer.get(begin..end).unwrap_or_default();
        line.strip_suffix(b"\r").unwrap_or(line)
    }
}

/// What one event of a completion stream says, for both interfaces. Reading it allocates nothing.
#[derive(Debug, Deserialize)]
pub struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: First<'a>,
    /// Token counts; vLLM sends them last, in an event without choices.
    pub usage: Option<Usage>,
    /// What went wrong after the stream had begun.
    pub error: Option<ErrorBody>,
}

/// Reads the chunks of one answer. From token to token a server changes the text and nothing else: what stands around it is
/// read once and then only compared, which takes a tenth of the time.
#[derive(Debug, Default)]
pub struct Chunks {
    /// A chunk that was read in full and says nothing but a token; empty before the first.
    known: Vec<u8>,
    /// Where the text of that one lies, with its quotes.
    text: std::ops::Range<usize>,
}

impl Chunks {
    /// Reads the data of an event: what [`Chunk::parse`] gives.
    ///
    /// # Errors
    /// Those of [`Chunk::parse`].
    pub fn read<'a>(&mut self, data: &'a [u8]) -> Result<Chunk<'a>, String> {
        if let Some(chunk) = self.alike(data) {
            return Ok(chunk);
        }
        let chunk = Chunk::parse(data)?;
        let plain = chunk.usage.is_none() && chunk.error.is_none();
        if let Some(text) = chunk.raw_text().filter(|text| plain && is_string(text)) {
            // The text borrows from `data`: how far into it is the distance of the two.
            let from = (text.as_ptr() as usize).wrapping_sub(data.as_ptr() as usize);
            self.known.clear();
            self.known.extend_from_slice(data);
            self.text = from..from.saturating_add(text.len());
        }
        Ok(chunk)
    }

    /// The chunk, where it differs from the known one in its text alone.
    fn alike<'a>(&self, data: &'a [u8]) -> Option<Chunk<'a>> {
        if self.known.is_empty() {
            return None;
        }
        let (before, after) = (self.known.get(..self.text.start)?, self.known.get(self.text.end..)?);
        let text = data.strip_prefix(before)?.strip_suffix(after)?;
        let text = std::str::from_utf8(text).ok().filter(|text| is_string(text))?;
        let text: &RawValue = serde_json::from_str(text).ok()?;
        let choice = Choice { text: Some(text), delta: None };
        Some(Chunk { choices: First(Some(choice)), usage: None, error: None })
    }
}

fn is_string(json: &str) -> bool {
    json.len() >= 2 && json.starts_with('"') && json.ends_with('"')
}

/// The first of the choices.
#[derive(Debug, Default)]
struct First<'a>(Option<Choice<'a>>);

#[derive(Debug, Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
}

#[derive(Debug, Deserialize)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for First<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choices;
        impl<'de> Visitor<'de> for Choices {
            type Value = First<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of choices")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(First(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut choices: A) -> Result<Self::Value, A::Error> {
                let first = choices.next_element()?;
                while choices.next_element::<IgnoredAny>()?.is_some() {}
                Ok(First(first))
            }
        }
        deserializer.deserialize_any(Choices)
    }
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

impl<'a> Chunk<'a> {
    /// Reads the data of an event.
    ///
    /// # Errors
    /// It is not UTF-8, or not the JSON of a completion chunk.
    pub fn parse(data: &'a [u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(data).map_err(|error| error.to_string())?;
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// Whether it carries a token; the text of that may be empty.
    pub fn has_token(&self) -> bool {
        self.choices.0.is_some()
    }

    /// The text of the first choice; empty where it has none.
    pub fn text(&self) -> Cow<'a, str> {
        self.raw_text().and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default()
    }

    /// That text as it stands in the JSON.
    fn raw_text(&self) -> Option<&'a str> {
        let choice = self.choices.0.as_ref()?;
        choice.text.or(choice.delta.as_ref().and_then(|delta| delta.content)).map(RawValue::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(chunks: &[&[u8]]) -> Vec<String> {
        let mut events = Events::default();
        let mut found = Vec::new();
        for chunk in chunks {
            events.push(chunk).unwrap();
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
    fn a_line_as_long_as_a_book_is_one_event_and_one_without_end_is_an_error() {
        let long = format!("data: {}\n\n", "a".repeat(1 << 20));
        let found = texts(&long.as_bytes().chunks(1000).collect::<Vec<_>>());
        assert_eq!((found.len(), found[0].len()), (1, 1 << 20));
        let mut events = Events::default();
        let endless = vec![b'a'; 1 << 20];
        let pushed = (0..64).map(|_| events.push(&endless).map(|()| events.next_event().is_none()));
        assert!(pushed.collect::<Result<Vec<_>, _>>().is_err());
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
        let token = |data| Chunk::parse(data).map(|chunk| (chunk.has_token(), chunk.text().into_owned()));
        assert_eq!(token(completion), Ok((true, " a".to_owned())));
        assert_eq!(token(chat), Ok((true, String::new())));
        assert_eq!(token(br#"{"choices":[{"text":"\u00e9\n"},{"text":"b"}]}"#), Ok((true, "\u{e9}\n".to_owned())));
        assert_eq!(token(br#"{"choices":[{"text":null}]}"#), Ok((true, String::new())));
        assert_eq!(token(br#"{"choices":null}"#), Ok((false, String::new())));
        let last = Chunk::parse(usage).unwrap();
        assert!(!last.has_token());
        assert_eq!(last.usage, Some(Usage { prompt_tokens: Some(64), completion_tokens: Some(32) }));
    }

    #[test]
    fn a_chunk_that_is_like_the_one_before_is_read_as_if_it_were_the_first() {
        let completion = |text: &str| format!(r#"{{"id":"a","choices":[{{"index":0,"text":{text}}}],"usage":null}}"#);
        let chat = |text: &str| format!(r#"{{"choices":[{{"delta":{{"content":{text}}}}}]}}"#);
        assert!(Chunks::default().read(b"\"a text alone\"").is_err());
        for shape in [&completion as &dyn Fn(&str) -> String, &chat] {
            let mut chunks = Chunks::default();
            // The last ones would end the text early, or are no text at all.
            for text in [
                r#"" a""#,
                r#""""#,
                r#""\n\u00e9 \"q\"""#,
                "\"\u{e9}\"",
                r#""a","text":"b""#,
                "\"a\nb\"",
                "5",
                "null",
                "\"",
                r#""a\""#,
            ] {
                let data = shape(text);
                let told = |chunk: Chunk<'_>| (chunk.has_token(), chunk.text().into_owned(), chunk.usage);
                let first = Chunk::parse(data.as_bytes()).map(told);
                assert_eq!(chunks.read(data.as_bytes()).map(told), first, "{data}");
            }
            assert!(!chunks.known.is_empty());
            let broken =
                shape("\"?\"").into_bytes().iter().map(|b| if *b == b'?' { 0xff } else { *b }).collect::<Vec<_>>();
            assert!(chunks.read(&broken).is_err());
        }
    }

    #[test]
    fn an_error_event_is_told_from_a_token_and_bad_utf8_is_an_error() {
        let chunk = Chunk::parse(br#"{"error":{"message":"engine died","type":"InternalServerError"}}"#).unwrap();
        assert_eq!(chunk.error.unwrap().message, "engine died");
        assert!(Chunk::parse(b"{\"choices\":[{\"text\":\"\xff\"}]}").is_err());
    }
}
