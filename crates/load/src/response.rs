//! An incremental parser of an HTTP/1.1 response: it takes bytes as they arrive and gives the parts of the body, without
//! copying them.

/// Longest head of a response, in bytes.
const HEAD_LIMIT: usize = 64 << 10;

/// Most headers of a response: proxies that trace requests add dozens.
const HEADERS: usize = 512;

/// Longest line between two chunks, in bytes: a size with its extensions, or one trailer.
const LINE_LIMIT: usize = 8 << 10;

/// One piece of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The head is complete; this is its status.
    Head(u16),
    /// A part of the body.
    Body(&'a [u8]),
    /// All input is read and the response is not complete.
    NeedMore,
    /// The response is complete.
    End,
}

/// Parses one response.
#[derive(Debug, Default)]
pub struct ResponseParser {
    head: Vec<u8>,
    state: State,
    /// Whether the server closes the connection after this response.
    closes: bool,
    facts: HeadFacts,
}

/// What the head says of the body, and where the server sends the client.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct HeadFacts {
    pub content_type: Option<String>,
    /// How the body is compressed; `None` if it is not.
    pub content_encoding: Option<String>,
    pub location: Option<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Head,
    /// A body of a known length; the bytes that remain.
    Sized(u64),
    /// A body that ends with the connection.
    Unsized,
    /// In the size of a chunk: its value so far; `None` before the first digit.
    Size(Option<u64>),
    /// After the size, up to the end of the line: the size, and the length of the extension so far.
    Extension(u64, usize),
    /// In a chunk: the bytes that remain.
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    /// In the lines after the last chunk, up to an empty one: the length of the line so far.
    Trailer(usize),
    End,
}

impl ResponseParser {
    /// Parses the next piece of `input` and removes the bytes that were read from its front.
    ///
    /// # Errors
    /// The input is not an HTTP/1.1 response.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Piece<'a>, String> {
        loop {
            if self.state == State::End {
                return Ok(Piece::End);
            }
            if input.is_empty() {
                return Ok(Piece::NeedMore);
            }
            match self.state {
                State::Head => {
                    if let Some(status) = self.take_head(input)? {
                        return Ok(Piece::Head(status));
                    }
                }
                State::Sized(remaining) => {
                    let body = take(input, remaining);
                    self.state = match remaining - body.len() as u64 {
                        0 => State::End,
                        remaining => State::Sized(remaining),
                    };
                    return Ok(Piece::Body(body));
                }
                State::Unsized => return Ok(Piece::Body(std::mem::take(input))),
                State::Chunk(remaining) => {
                    let body = take(input, remaining);
                    self.state = match remaining - body.len() as u64 {
                        0 => State::ChunkEnd,
                        remaining => State::Chunk(remaining),
                    };
                    return Ok(Piece::Body(body));
                }
                State::Size(_) | State::Extension(..) | State::ChunkEnd | State::Trailer(_) => {
                    let (first, rest) = input.split_at(1);
                    *input = rest;
                    self.state = after_byte(self.state, first[0])?;
                }
                State::End => {}
            }
        }
    }

    /// The facts of the head.
    pub fn facts(&self) -> &HeadFacts {
        &self.facts
    }

    /// Whether this response ends with the connection.
    pub fn ends_with_connection(&self) -> bool {
        self.state == State::Unsized
    }

    /// Whether the connection can carry another request.
    pub fn keeps_connection(&self) -> bool {
        self.state == State::End && !self.closes
    }

    fn take_head(&mut self, input: &mut &[u8]) -> Result<Option<u16>, String> {
        let before = self.head.len();
        self.head.extend_from_slice(input);
        let mut headers = [const { std::mem::MaybeUninit::uninit() }; HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            &self.head,
            &mut headers,
        );
        let length = match parsed.map_err(|error| format!("not an HTTP response: {error}"))? {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial if self.head.len() > HEAD_LIMIT => {
                return Err(format!("the head of the response is longer than {HEAD_LIMIT} bytes"));
            }
            httparse::Status::Partial => {
                *input = &[];
                return Ok(None);
            }
        };
        let status = response.code.unwrap_or_default();
        let (state, closes) = framing(&response)?;
        let facts = facts(&response);
        *input = input.get(length.saturating_sub(before)..).unwrap_or_default();
        self.head.clear();
        // An informational response such as 100 comes before the final one.
        if (100..200).contains(&status) {
            return Ok(None);
        }
        self.facts = facts;
        (self.state, self.closes) = (if matches!(status, 204 | 304) { State::End } else { state }, closes);
        Ok(Some(status))
    }
}

/// The state after the head, and whether the server closes the connection.
fn framing(response: &httparse::Response) -> Result<(State, bool), String> {
    let mut state = None;
    let mut closes = response.version == Some(0);
    for header in response.headers.iter() {
        let value = String::from_utf8_lossy(header.value);
        let value = value.trim();
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case("chunked") {
                return Err(format!("`transfer-encoding: {value}` is not chunked"));
            }
            state = Some(State::Size(None));
        } else if header.name.eq_ignore_ascii_case("content-length") && state != Some(State::Size(None)) {
            let length = value.parse().map_err(|_| format!("`content-length: {value}` is not a number"))?;
            state = Some(if length == 0 { State::End } else { State::Sized(length) });
        } else if header.name.eq_ignore_ascii_case("connection") {
            let says = |word: &str| value.split(',').any(|option| option.trim().eq_ignore_ascii_case(word));
            closes = if closes { !says("keep-alive") } else { says("close") };
        }
    }
    Ok((state.unwrap_or(State::Unsized), closes))
}

fn facts(response: &httparse::Response) -> HeadFacts {
    let value = |name: &str| {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(header.value).trim().to_owned())
    };
    HeadFacts {
        content_type: value("content-type"),
        content_encoding: value("content-encoding").filter(|encoding| !encoding.eq_ignore_ascii_case("identity")),
        location: value("location"),
    }
}

/// The state after `byte`, which is outside the data of a chunk.
fn after_byte(state: State, byte: u8) -> Result<State, String> {
    let broken = || format!("a broken chunk: unexpected byte {byte:#04x}");
    let sized = |size| if size == 0 { State::Trailer(0) } else { State::Chunk(size) };
    Ok(match (state, byte) {
        (State::Size(Some(size)) | State::Extension(size, _), b'\n') => sized(size),
        (State::Size(size), _) => match (char::from(byte).to_digit(16), size) {
            (Some(digit), _) => {
                let size = size.unwrap_or(0).checked_mul(16).and_then(|size| size.checked_add(u64::from(digit)));
                State::Size(Some(size.ok_or_else(broken)?))
            }
            (None, Some(size)) if matches!(byte, b'\r' | b';' | b' ' | b'\t') => State::Extension(size, 0),
            _ => return Err(broken()),
        },
        (State::Extension(size, length), _) if length < LINE_LIMIT => State::Extension(size, length + 1),
        (State::ChunkEnd, b'\r') => State::ChunkEnd,
        (State::ChunkEnd, b'\n') => State::Size(None),
        (State::Trailer(0), b'\n') => State::End,
        (State::Trailer(_), b'\n') => State::Trailer(0),
        (State::Trailer(length), b'\r') => State::Trailer(length),
        (State::Trailer(length), _) if length < LINE_LIMIT => State::Trailer(length + 1),
        _ => return Err(broken()),
    })
}

/// Removes at most `most` bytes from the front of `input`.
fn take<'a>(input: &mut &'a [u8], most: u64) -> &'a [u8] {
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
    let (taken, rest) = input.split_at(length);
    *input = rest;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status, the body, whether the response is complete, and whether the connection can be reused.
    fn read(pieces: &[&[u8]]) -> Result<(u16, String, bool, bool), String> {
        let (mut response, mut status, mut body, mut ended) = (ResponseParser::default(), 0, Vec::new(), false);
        for mut piece in pieces.iter().copied() {
            loop {
                match response.next(&mut piece)? {
                    Piece::Head(code) => status = code,
                    Piece::Body(bytes) => body.extend_from_slice(bytes),
                    Piece::NeedMore => break,
                    Piece::End => {
                        ended = true;
                        break;
                    }
                }
            }
        }
        Ok((status, String::from_utf8_lossy(&body).into_owned(), ended, response.keeps_connection()))
    }

    /// A response as uvicorn sends it, and one with everything that the standard allows.
    const CHUNKED: &[&str] = &[
        "HTTP/1.1 200 OK\r\ndate: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab\ncd\r\n1\r\ne\r\n0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n\
         05;a=b\r\nab\ncd\r\n1 \r\ne\r\n0\r\nx-trailer: y\r\n\r\n",
    ];

    #[test]
    fn a_body_is_parsed_wherever_the_reads_end() {
        for text in CHUNKED.iter().map(|text| text.as_bytes()) {
            let expected = Ok((200, "ab\ncde".to_owned(), true, true));
            assert_eq!(read(&[text]), expected);
            assert_eq!(read(&text.chunks(1).collect::<Vec<_>>()), expected);
            for cut in 0..text.len() {
                assert_eq!(read(&[&text[..cut], &text[cut..]]), expected, "cut at byte {cut}");
            }
        }
    }

    #[test]
    fn a_body_ends_by_its_length_or_with_the_connection() {
        assert_eq!(
            read(&[b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nwait"]),
            Ok((503, "wait".to_owned(), true, true))
        );
        assert_eq!(read(&[b"HTTP/1.1 204 None\r\n\r\n"]), Ok((204, String::new(), true, true)));
        assert_eq!(read(&[b"HTTP/1.0 200 OK\r\n\r\nall ", b"of it"]), Ok((200, "all of it".to_owned(), false, false)));
        let closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx";
        assert_eq!(read(&[closing]), Ok((200, "x".to_owned(), true, false)));
    }

    #[test]
    fn a_head_may_have_hundreds_of_headers_and_a_list_of_connection_options() {
        let traced: String = (0..400).map(|n| format!("x-trace-{n}: {n}\r\n")).collect();
        let text = format!("HTTP/1.1 200 OK\r\n{traced}connection: keep-alive, Close\r\ncontent-length: 1\r\n\r\nx");
        assert_eq!(read(&[text.as_bytes()]), Ok((200, "x".to_owned(), true, false)));
    }

    #[test]
    fn the_head_says_what_the_body_is_and_where_the_client_is_sent() {
        let mut response = ResponseParser::default();
        let head = b"HTTP/1.1 307 Go\r\nLocation: /v2\r\ncontent-type: text/html\r\nContent-Encoding: gzip\r\n\r\n";
        assert_eq!(response.next(&mut head.as_slice()), Ok(Piece::Head(307)));
        let facts = response.facts();
        assert_eq!(facts.location.as_deref(), Some("/v2"));
        assert_eq!(
            (facts.content_type.as_deref(), facts.content_encoding.as_deref()),
            (Some("text/html"), Some("gzip"))
        );
    }

    #[test]
    fn input_that_is_not_http_is_an_error_and_never_a_panic() {
        for wrong in [
            "hello\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nabc",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
        ] {
            assert!(read(&[wrong.as_bytes()]).is_err(), "{wrong}");
        }
    }
}
