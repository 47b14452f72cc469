//! An incremental parser of server-sent events, as completion endpoints stream them. The bytes of a read may end anywhere,
//! also within a character. What the events mean is in `chunk.rs`.

/// Longest event, in bytes: much more than servers send in one event, and much less than the memory of a machine.
const EVENT_LIMIT: usize = 32 << 20;

/// How much of a comment is kept, in bytes: some servers put the text of an error there.
const COMMENT_LIMIT: usize = 1 << 10;

/// Some proxies put it before the first event.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One event of a stream. Data are not checked to be UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamItem<'a> {
    /// The `data` of an event, its lines joined by line feeds.
    Data(&'a [u8]),
    /// An event of the type `error`: its `data`, or its comment if it has none.
    Error(&'a [u8]),
    /// `[DONE]`, the end of the stream.
    Done,
}

/// Splits a stream of bytes into events. Lines end in LF, CRLF or CR. An event ends with an empty line; a line of data that
/// is a whole JSON object or `[DONE]` ends it as well, because some servers write no empty lines.
#[derive(Debug, Default)]
pub struct StreamParser {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that have been parsed.
    read: usize,
    /// Bytes of `buffer` that have been searched for the end of a line.
    searched: usize,
    /// Whether the last line ended in CR: a LF after it belongs to the same line end.
    after_cr: bool,
    /// Whether the first line was read.
    begun: bool,
    event: Event,
}

/// The event that is being read.
#[derive(Debug, Default)]
struct Event {
    /// `data` so far of an event with several lines.
    data: Vec<u8>,
    has_data: bool,
    is_error: bool,
    /// Whether its error was given already.
    is_given: bool,
    comment: Vec<u8>,
}

/// Where the data of an item are.
enum Place {
    Buffer(std::ops::Range<usize>),
    Joined,
    Comment,
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
        if self.buffer.len() + self.event.data.len() + bytes.len() > EVENT_LIMIT {
            return Err(format!("an event is longer than {EVENT_LIMIT} bytes"));
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next event; `None` if more bytes are needed.
    pub fn next_item(&mut self) -> Option<StreamItem<'_>> {
        let (place, is_error) = self.next_place()?;
        let data = match place {
            Place::Buffer(range) => self.buffer.get(range).unwrap_or_default(),
            Place::Joined => &self.event.data,
            Place::Comment => &self.event.comment,
        };
        Some(match data {
            _ if is_error => StreamItem::Error(data),
            data if is_done(data) => StreamItem::Done,
            data => StreamItem::Data(data),
        })
    }

    fn next_place(&mut self) -> Option<(Place, bool)> {
        if !self.event.has_data {
            self.event.data.clear();
        }
        loop {
            let line = self.next_line()?;
            let bytes = self.buffer.get(line.clone()).unwrap_or_default();
            if bytes.is_empty() {
                let event = &mut self.event;
                let (had_data, was_error) = (std::mem::take(&mut event.has_data), std::mem::take(&mut event.is_error));
                let was_given = std::mem::take(&mut event.is_given);
                if had_data {
                    return Some((Place::Joined, was_error));
                }
                if was_error && !was_given {
                    return Some((Place::Comment, true));
                }
                event.comment.clear();
            } else if let Some(data) = value(bytes, b"data") {
                let data = line.end - data.len()..line.end;
                if self.is_whole(data.clone()) {
                    self.event.is_given = self.event.is_error;
                    return Some((Place::Buffer(data), self.event.is_error));
                }
                let event = &mut self.event;
                if event.has_data {
                    event.data.push(b'\n');
                }
                event.data.extend_from_slice(self.buffer.get(data).unwrap_or_default());
                event.has_data = true;
            } else if let Some(kind) = value(bytes, b"event") {
                self.event.is_error = kind.trim_ascii() == b"error";
            } else if let Some(comment) = value(bytes, b"") {
                let comment = comment.get(..COMMENT_LIMIT).unwrap_or(comment);
                self.event.comment.clear();
                self.event.comment.extend_from_slice(comment);
            }
        }
    }

    /// Whether a line of data is a whole event. Most lines have an empty line after them in the same read: those need not be
    /// parsed to find out.
    fn is_whole(&mut self, data: std::ops::Range<usize>) -> bool {
        if self.event.has_data {
            return false;
        }
        let rest = self.buffer.get(self.read..).unwrap_or_default();
        let rest = rest.strip_prefix(b"\n").filter(|_| self.after_cr).unwrap_or(rest);
        if rest.starts_with(b"\n") || rest.starts_with(b"\r") {
            return true;
        }
        let data = self.buffer.get(data).unwrap_or_default();
        let is_object = data.trim_ascii_start().starts_with(b"{")
            && data.trim_ascii_end().ends_with(b"}")
            && serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok();
        is_object || is_done(data)
    }

    /// Moves past the next line. Gives the position of its text.
    fn next_line(&mut self) -> Option<std::ops::Range<usize>> {
        if self.after_cr && self.buffer.get(self.read) == Some(&b'\n') {
            self.read += 1;
            self.searched = self.searched.max(self.read);
            self.after_cr = false;
        }
        let mut begin = self.read;
        let unsearched = self.buffer.get(self.searched..)?;
        let Some(offset) = memchr::memchr2(b'\n', b'\r', unsearched) else {
            if begin < self.buffer.len() {
                self.after_cr = false;
            }
            self.searched = self.buffer.len();
            return None;
        };
        let end = self.searched + offset;
        self.after_cr = unsearched.get(offset) == Some(&b'\r');
        (self.read, self.searched) = (end + 1, end + 1);
        let is_first = !std::mem::replace(&mut self.begun, true);
        if is_first && self.buffer.get(begin..end).is_some_and(|line| line.starts_with(BYTE_ORDER_MARK)) {
            begin += BYTE_ORDER_MARK.len();
        }
        Some(begin..end)
    }
}

fn is_done(data: &[u8]) -> bool {
    data.trim_ascii() == b"[DONE]"
}

/// The value of the line `field: value`; a comment is a line with an empty field.
fn value<'a>(line: &'a [u8], field: &[u8]) -> Option<&'a [u8]> {
    let value = line.strip_prefix(field)?.strip_prefix(b":")?;
    Some(value.strip_prefix(b" ").unwrap_or(value))
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
                    StreamItem::Error(data) => format!("<error {}>", String::from_utf8_lossy(data)),
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
        for (stream, parsed) in [
            (STREAM, PARSED.as_slice()),
            ("data: {\"a\":1}\ndata: {\"a\":2}\ndata: [DONE]\n", &["{\"a\":1}", "{\"a\":2}", "<done>"]),
            ("data: {\"a\":1}\r\rdata: {\"a\":2}\r\rdata:  [DONE] \r\r", &["{\"a\":1}", "{\"a\":2}", "<done>"]),
            ("\u{feff}data: {\"a\":1}\r\n\r\ndata: {\ndata: \"b\":2}\n\n", &["{\"a\":1}", "{\n\"b\":2}"]),
            ("event: error\ndata: {\"a\":1}\n\ndata: {\"a\":2}\n\n", &["<error {\"a\":1}>", "{\"a\":2}"]),
            ("event: error\n: worker lost\n\nevent: end\ndata: x\n\n", &["<error worker lost>", "x"]),
            ("data: a\r\n\ndata: b\n\n", &["a", "b"]),
            ("data: {\"a\":1}\nevent: error\n\n", &["{\"a\":1}", "<error >"]),
            (": before\n\nevent:error\n\nid: 4\nretry: 3\ndata: x\n\n", &["<error >", "x"]),
        ] {
            assert_eq!(texts(&[stream.as_bytes()]), parsed, "{stream:?}");
            assert_eq!(texts(&stream.as_bytes().chunks(1).collect::<Vec<_>>()), parsed, "{stream:?}");
            for cut in 0..stream.len() {
                let (left, right) = stream.as_bytes().split_at(cut);
                assert_eq!(texts(&[left, right]), parsed, "{stream:?} cut at byte {cut}");
            }
        }
    }

    #[test]
    fn an_event_is_given_when_its_line_ends_and_not_when_the_next_one_comes() {
        let mut parser = StreamParser::default();
        parser.push(b"data: {\"a\":1}\n").unwrap();
        assert_eq!(parser.next_item(), Some(StreamItem::Data(b"{\"a\":1}")));
        parser.push(b"\ndata: [DONE]\n").unwrap();
        assert_eq!(parser.next_item(), Some(StreamItem::Done));
        assert_eq!(parser.next_item(), None);
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
        assert_eq!(texts(&[b"data: {\"a\"", b": 1\n"]), Vec::<String>::new());
    }
}
