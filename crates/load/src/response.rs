//! The HTTP side of an answer: its head, and where its body ends. Pure and incremental: bytes in as they arrive, pieces
//! of the body out, without copies.

/// Longest head of an answer, in bytes.
const HEAD_LIMIT: usize = 64 << 10;

/// Most headers of an answer.
const HEADERS: usize = 64;

/// Most bytes of what stands between two chunks: a size and its extensions, or one trailer.
const LINE_LIMIT: usize = 8 << 10;

/// One step through an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// The head is complete; its status.
    Head(u16),
    /// Some of the body.
    Body(&'a [u8]),
    /// Nothing more until more arrives.
    More,
    /// The answer is complete.
    End,
}

/// Follows one answer.
#[derive(Debug, Default)]
pub struct Response {
    head: Vec<u8>,
    part: Part,
    /// Whether the server closes the connection after this answer.
    closes: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Part {
    #[default]
    Head,
    /// Body of a known length; what is left of it.
    Sized(u64),
    /// Body that ends with the connection.
    Unsized,
    /// The size of a chunk so far; `None` before its first digit.
    Size(Option<u64>),
    /// What may stand behind the size up to the line's end, and how long that is.
    Extension(u64, usize),
    /// What is left of a chunk.
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    /// Lines after the last chunk, up to an empty one; bytes of the line under way.
    Trailer(usize),
    End,
}

impl Response {
    /// Takes the next step through `input` and shortens it by what was read.
    ///
    /// # Errors
    /// It is not an answer of HTTP/1.1.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Piece<'a>, String> {
        loop {
            if self.part == Part::End {
                return Ok(Piece::End);
            }
            if input.is_empty() {
                return Ok(Piece::More);
            }
            match self.part {
                Part::Head => {
                    if let Some(status) = self.take_head(input)? {
                        return Ok(Piece::Head(status));
                    }
                }
                Part::Sized(left) => {
                    let body = take(input, left);
                    self.part = match left - body.len() as u64 {
                        0 => Part::End,
                        left => Part::Sized(left),
                    };
                    return Ok(Piece::Body(body));
                }
                Part::Unsized => return Ok(Piece::Body(std::mem::take(input))),
                Part::Chunk(left) => {
                    let body = take(input, left);
                    self.part = match left - body.len() as u64 {
                        0 => Part::ChunkEnd,
                        left => Part::Chunk(left),
                    };
                    return Ok(Piece::Body(body));
                }
                Part::Size(_) | Part::Extension(..) | Part::ChunkEnd | Part::Trailer(_) => {
                    let (first, rest) = input.split_at(1);
                    *input = rest;
                    self.part = between(self.part, first[0])?;
                }
                Part::End => {}
            }
        }
    }

    /// Whether the end of the connection is the end of this answer.
    pub fn ends_with_connection(&self) -> bool {
        self.part == Part::Unsized
    }

    /// Whether the connection can carry another request.
    pub fn keeps_connection(&self) -> bool {
        self.part == Part::End && !self.closes
    }

    fn take_head(&mut self, input: &mut &[u8]) -> Result<Option<u16>, String> {
        let before = self.head.len();
        self.head.extend_from_slice(input);
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let length = match response.parse(&self.head).map_err(|error| format!("no HTTP answer: {error}"))? {
            httparse::Status::Complete(length) => length,
            httparse::Status::Partial if self.head.len() > HEAD_LIMIT => {
                return Err(format!("the head of the answer is longer than {HEAD_LIMIT} bytes"));
            }
            httparse::Status::Partial => {
                *input = &[];
                return Ok(None);
            }
        };
        let status = response.code.unwrap_or_default();
        let (part, closes) = framing(&response)?;
        *input = input.get(length.saturating_sub(before)..).unwrap_or_default();
        self.head.clear();
        // 100 and its like announce the answer proper.
        if (100..200).contains(&status) {
            return Ok(None);
        }
        (self.part, self.closes) = (if matches!(status, 204 | 304) { Part::End } else { part }, closes);
        Ok(Some(status))
    }
}

/// How the body is framed, and whether the connection ends after it.
fn framing(response: &httparse::Response) -> Result<(Part, bool), String> {
    let mut part = None;
    let mut closes = response.version == Some(0);
    for header in response.headers.iter() {
        let value = String::from_utf8_lossy(header.value);
        let value = value.trim();
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.eq_ignore_ascii_case("chunked") {
                return Err(format!("`transfer-encoding: {value}` is not chunked"));
            }
            part = Some(Part::Size(None));
        } else if header.name.eq_ignore_ascii_case("content-length") && part != Some(Part::Size(None)) {
            let length = value.parse().map_err(|_| format!("`content-length: {value}` is no number"))?;
            part = Some(if length == 0 { Part::End } else { Part::Sized(length) });
        } else if header.name.eq_ignore_ascii_case("connection") {
            closes =
                if closes { !value.eq_ignore_ascii_case("keep-alive") } else { value.eq_ignore_ascii_case("close") };
        }
    }
    Ok((part.unwrap_or(Part::Unsized), closes))
}

/// The part that follows `byte`, which stands between chunks.
fn between(part: Part, byte: u8) -> Result<Part, String> {
    let broken = || format!("a broken chunk: byte {byte:#04x} where none may be");
    let sized = |size| if size == 0 { Part::Trailer(0) } else { Part::Chunk(size) };
    Ok(match (part, byte) {
        (Part::Size(Some(size)) | Part::Extension(size, _), b'\n') => sized(size),
        (Part::Size(size), _) => match (char::from(byte).to_digit(16), size) {
            (Some(digit), _) => {
                let size = size.unwrap_or(0).checked_mul(16).and_then(|size| size.checked_add(u64::from(digit)));
                Part::Size(Some(size.ok_or_else(broken)?))
            }
            (None, Some(size)) if matches!(byte, b'\r' | b';' | b' ' | b'\t') => Part::Extension(size, 0),
            _ => return Err(broken()),
        },
        (Part::Extension(size, length), _) if length < LINE_LIMIT => Part::Extension(size, length + 1),
        (Part::ChunkEnd, b'\r') => Part::ChunkEnd,
        (Part::ChunkEnd, b'\n') => Part::Size(None),
        (Part::Trailer(0), b'\n') => Part::End,
        (Part::Trailer(_), b'\n') => Part::Trailer(0),
        (Part::Trailer(length), b'\r') => Part::Trailer(length),
        (Part::Trailer(length), _) if length < LINE_LIMIT => Part::Trailer(length + 1),
        _ => return Err(broken()),
    })
}

/// Takes at most `most` bytes off the front of `input`.
fn take<'a>(input: &mut &'a [u8], most: u64) -> &'a [u8] {
    let length = usize::try_from(most).unwrap_or(usize::MAX).min(input.len());
    let (taken, rest) = input.split_at(length);
    *input = rest;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The status, the body, whether the answer ended, and whether the connection can go on.
    fn read(pieces: &[&[u8]]) -> Result<(u16, String, bool, bool), String> {
        let (mut answer, mut status, mut body, mut ended) = (Response::default(), 0, Vec::new(), false);
        for mut piece in pieces.iter().copied() {
            loop {
                match answer.next(&mut piece)? {
                    Piece::Head(code) => status = code,
                    Piece::Body(bytes) => body.extend_from_slice(bytes),
                    Piece::More => break,
                    Piece::End => {
                        ended = true;
                        break;
                    }
                }
            }
        }
        Ok((status, String::from_utf8_lossy(&body).into_owned(), ended, answer.keeps_connection()))
    }

    /// An answer as uvicorn sends it, and one with everything that the standard allows.
    const CHUNKED: &[&str] = &[
        "HTTP/1.1 200 OK\r\ndate: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab\ncd\r\n1\r\ne\r\n0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n\
         05;a=b\r\nab\ncd\r\n1 \r\ne\r\n0\r\nx-trailer: y\r\n\r\n",
    ];

    #[test]
    fn a_body_is_found_wherever_the_pieces_end() {
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
    fn what_is_not_http_is_an_error_and_never_a_panic() {
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
