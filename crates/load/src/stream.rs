//! An incremental parser of server-sent events, as completion endpoints stream them. The bytes of a read may end anywhere,
//! also within a character.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// Longest event, in bytes: much more than servers send in one event, and much less than the memory of a machine.
const EVENT_LIMIT: usize = 32 << 20;

/// One event of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamItem<'a> {
    /// The `data` of an event, its lines joined by line feeds. It is not checked to be UTF-8.
    Data(&'a [u8]),
    /// `[DONE]`, the end of the stream.
    Done,
}

/// Splits a stream of bytes into events. Lines end in LF or CRLF; comments and fields other than `data` are skipped.
#[derive(Debug, Default)]
pub struct StreamParser {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that have been parsed.
    read: usize,
    /// Bytes of `buffer` that have been searched for the end of a line.
    searched: usize,
    /// `data` so far of an event with several lines.
    data: Vec<u8>,
    has_data: bool,
}

/// Where the data of an event is.
enum DataLocation {
    InBuffer(std::ops::Range<usize>),
    Joined,
}

impl StreamParser {
    /// Adds the bytes of a read.
    ///
    /// # Errors
    /// The current event is too long.
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

    /// The next complete event; `None` if more bytes are needed.
    pub fn next_item(&mut self) -> Option<StreamItem<'_>> {
        let data = match self.next_data()? {
            DataLocation::InBuffer(range) => self.buffer.get(range).unwrap_or_default(),
            DataLocation::Joined => &self.data,
        };
        Some(if data == b"[DONE]" { StreamItem::Done } else { StreamItem::Data(data) })
    }

    fn next_data(&mut self) -> Option<DataLocation> {
        if !self.has_data {
            self.data.clear();
        }
        loop {
            let begin = self.read;
            let end = self.line_end()?;
            let line = self.line(begin, end);
            let Some(value) = line.strip_prefix(b"data:") else {
                if line.is_empty() && std::mem::take(&mut self.has_data) {
                    return Some(DataLocation::Joined);
                }
                continue;
            };
            let value = value.strip_prefix(b" ").unwrap_or(value);
            let to = begin + line.len();
            let value = to - value.len()..to;
            // Most events have one line and an empty line after it. Then nothing is copied.
            let rest = self.buffer.get(self.read..).unwrap_or_default();
            let blank = if rest.starts_with(b"\n") { 1 } else { 2 * usize::from(rest.starts_with(b"\r\n")) };
            if blank > 0 && !self.has_data {
                self.read += blank;
                self.searched = self.read;
                return Some(DataLocation::InBuffer(value));
            }
            if self.has_data {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(self.buffer.get(value).unwrap_or_default());
            self.has_data = true;
        }
    }

    /// Moves past the next line. Gives the position of its line feed.
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

/// The data of one event of a completion stream, for both interfaces. Parsing it does not allocate.
#[derive(Debug, Deserialize)]
pub struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: FirstChoice<'a>,
    /// Token counts; vLLM sends them last, in an event without choices.
    pub usage: Option<Usage>,
    /// An error after the stream began.
    pub error: Option<ErrorBody>,
}

/// Parses the chunks of one answer. Between two tokens of an answer usually only the text differs: the rest is parsed once
/// and then compared, which takes a tenth of the time.
#[derive(Debug, Default)]
pub struct ChunkParser {
    /// A parsed chunk that has nothing but a token; empty before the first.
    known: Vec<u8>,
    /// The position of its text, with the quotes.
    text: std::ops::Range<usize>,
}

impl ChunkParser {
    /// Parses the data of an event, with the same result as [`Chunk::parse`].
    ///
    /// # Errors
    /// Those of [`Chunk::parse`].
    pub fn read<'a>(&mut self, data: &'a [u8]) -> Result<Chunk<'a>, String> {
        if let Some(chunk) = self.parse_like_known(data) {
            return Ok(chunk);
        }
        let chunk = Chunk::parse(data)?;
        let plain = chunk.usage.is_none() && chunk.error.is_none();
        if let Some(text) = chunk.raw_text().filter(|text| plain && is_string(text)) {
            // The text borrows from `data`, so the distance of the two pointers is its position.
            let from = (text.as_ptr() as usize).wrapping_sub(data.as_ptr() as usize);
            self.known.clear();
            self.known.extend_from_slice(data);
            self.text = from..from.saturating_add(text.len());
        }
        Ok(chunk)
    }

    /// The chunk, if it differs from the known one in its text only.
    fn parse_like_known<'a>(&self, data: &'a [u8]) -> Option<Chunk<'a>> {
        if self.known.is_empty() {
            return None;
        }
        let (before, after) = (self.known.get(..self.text.start)?, self.known.get(self.text.end..)?);
        let text = data.strip_prefix(before)?.strip_suffix(after)?;
        let text = std::str::from_utf8(text).ok().filter(|text| is_string(text))?;
        let text: &RawValue = serde_json::from_str(text).ok()?;
        let choice = Choice { text: Some(text), delta: None };
        Some(Chunk { choices: FirstChoice(Some(choice)), usage: None, error: None })
    }
}

fn is_string(json: &str) -> bool {
    json.len() >= 2 && json.starts_with('"') && json.ends_with('"')
}

/// The first choice of a chunk.
#[derive(Debug, Default)]
struct FirstChoice<'a>(Option<Choice<'a>>);

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

impl<'de: 'a, 'a> Deserialize<'de> for FirstChoice<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Choices;
        impl<'de> Visitor<'de> for Choices {
            type Value = FirstChoice<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of choices")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(FirstChoice(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut choices: A) -> Result<Self::Value, A::Error> {
                let first = choices.next_element()?;
                while choices.next_element::<IgnoredAny>()?.is_some() {}
                Ok(FirstChoice(first))
            }
        }
        deserializer.deserialize_any(Choices)
    }
}

/// Token counts of a request, by the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: Option<u64>,
    /// Tokens of the answer.
    pub completion_tokens: Option<u64>,
}

/// An error that the server reported.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct ErrorBody {
    /// Its text.
    pub message: String,
}

impl<'a> Chunk<'a> {
    /// Parses the data of an event.
    ///
    /// # Errors
    /// It is not UTF-8, or not the JSON of a completion chunk.
    pub fn parse(data: &'a [u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(data).map_err(|error| error.to_string())?;
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// Whether it has a token; the text of the token may be empty.
    pub fn has_token(&self) -> bool {
        self.choices.0.is_some()
    }

    /// The text of the first choice; empty if it has none.
    pub fn text(&self) -> Cow<'a, str> {
        self.raw_text().and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default()
    }

    /// That text as JSON.
    fn raw_text(&self) -> Option<&'a str> {
        let choice = self.choices.0.as_ref()?;
        choice.text.or(choice.delta.as_ref().and_then(|delta| delta.content)).map(RawValue::get)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(chunks: &[&[u8]]) -> Vec<String> {
        let mut parser = StreamParser::default();
        let mut texts = Vec::new();
        for chunk in chunks {
            parser.push(chunk).unwrap();
            while let Some(item) = parser.next_item() {
                texts.push(match item {
                    StreamItem::Data(data) => String::from_utf8_lossy(data).into_owned(),
                    StreamItem::Done => "<done>".to_owned(),
                });
            }
        }
        texts
    }

    const STREAM: &str =
        ": ping\n\nevent: token\r\ndata: {\"text\": \"h\u{e9}\"}\r\n\r\ndata:a\ndata: b\n\ndata: \n\ndata: [DONE]\n\n";
    const PARSED: [&str; 4] = ["{\"text\": \"h\u{e9}\"}", "a\nb", "", "<done>"];

    #[test]
    fn events_are_parsed_wherever_the_reads_end() {
        assert_eq!(texts(&[STREAM.as_bytes()]), PARSED);
        assert_eq!(texts(&STREAM.as_bytes().chunks(1).collect::<Vec<_>>()), PARSED);
        for cut in 0..STREAM.len() {
            let (left, right) = STREAM.as_bytes().split_at(cut);
            assert_eq!(texts(&[left, right]), PARSED, "cut at byte {cut}");
        }
    }

    #[test]
    fn a_long_line_is_one_event_and_a_line_without_end_is_an_error() {
        let long = format!("data: {}\n\n", "a".repeat(1 << 20));
        let found = texts(&long.as_bytes().chunks(1000).collect::<Vec<_>>());
        assert_eq!((found.len(), found[0].len()), (1, 1 << 20));
        let mut parser = StreamParser::default();
        let endless = vec![b'a'; 1 << 20];
        let pushed = (0..64).map(|_| parser.push(&endless).map(|()| parser.next_item().is_none()));
        assert!(pushed.collect::<Result<Vec<_>, _>>().is_err());
    }

    #[test]
    fn an_incomplete_event_is_not_returned() {
        assert_eq!(texts(&[b"data: {\"a\"", b": 1}\n"]), Vec::<String>::new());
    }

    #[test]
    fn chunks_of_vllm_of_both_interfaces_have_tokens_and_then_usage() {
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
    fn a_chunk_that_resembles_the_last_one_is_parsed_like_any_other() {
        let completion = |text: &str| format!(r#"{{"id":"a","choices":[{{"index":0,"text":{text}}}],"usage":null}}"#);
        let chat = |text: &str| format!(r#"{{"choices":[{{"delta":{{"content":{text}}}}}]}}"#);
        assert!(ChunkParser::default().read(b"\"a text alone\"").is_err());
        for data_with in [&completion as &dyn Fn(&str) -> String, &chat] {
            let mut chunks = ChunkParser::default();
            // The last ones end the text early, or are not a text.
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
                let data = data_with(text);
                let content = |chunk: Chunk<'_>| (chunk.has_token(), chunk.text().into_owned(), chunk.usage);
                let first = Chunk::parse(data.as_bytes()).map(content);
                assert_eq!(chunks.read(data.as_bytes()).map(content), first, "{data}");
            }
            assert!(!chunks.known.is_empty());
            let broken =
                data_with("\"?\"").into_bytes().iter().map(|b| if *b == b'?' { 0xff } else { *b }).collect::<Vec<_>>();
            assert!(chunks.read(&broken).is_err());
        }
    }

    #[test]
    fn an_error_event_is_not_a_token_and_invalid_utf8_is_an_error() {
        let chunk = Chunk::parse(br#"{"error":{"message":"engine died","type":"InternalServerError"}}"#).unwrap();
        assert_eq!(chunk.error.unwrap().message, "engine died");
        assert!(Chunk::parse(b"{\"choices\":[{\"text\":\"\xff\"}]}").is_err());
    }
}
