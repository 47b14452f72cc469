//! A request as HTTP sends it: head and body. Pure.

/// Longest head, in bytes.
const HEAD_LIMIT: usize = 64 << 10;

/// Longest body, in bytes: long prompts as token ids.
const BODY_LIMIT: usize = 64 << 20;

/// Most headers.
const HEADERS: usize = 64;

/// A whole request.
#[derive(Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `GET`, `POST`, ...
    pub method: &'a str,
    /// The path, without a query.
    pub path: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// Bytes of all of it.
    pub length: usize,
    /// Whether another request may follow on this connection.
    pub keep: bool,
}

/// How far a request has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived<'a> {
    /// All of it.
    Whole(Message<'a>),
    /// Some of it. Whether the client wants to be told to go on.
    Part {
        /// `expect: 100-continue`.
        expects: bool,
    },
}

/// Reads a request from the beginning of `bytes`.
///
/// # Errors
/// The status that says what is wrong with it.
pub fn read(bytes: &[u8]) -> Result<Arrived<'_>, u16> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(bytes).map_err(|_| 400_u16)? {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial if bytes.len() > HEAD_LIMIT => return Err(431),
        httparse::Status::Partial => return Ok(Arrived::Part { expects: false }),
    };
    let (mut size, mut keep, mut expects) = (0_usize, request.version == Some(1), false);
    for header in request.headers.iter() {
        let value = header.value.trim_ascii();
        if header.name.eq_ignore_ascii_case("content-length") {
            size = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok()).ok_or(400_u16)?;
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            // A body without a known length is for clients that do not know what they send.
            return Err(411);
        } else if header.name.eq_ignore_ascii_case("connection") {
            keep = if keep { !value.eq_ignore_ascii_case(b"close") } else { value.eq_ignore_ascii_case(b"keep-alive") };
        } else if header.name.eq_ignore_ascii_case("expect") {
            expects = true;
        }
    }
    if size > BODY_LIMIT {
        return Err(413);
    }
    let Some(body) = bytes.get(head..head + size) else {
        return Ok(Arrived::Part { expects: expects && bytes.len() == head });
    };
    let path = request.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    Ok(Arrived::Whole(Message { method: request.method.unwrap_or_default(), path, body, length: head + size, keep }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_when_its_body_is() {
        let text = b"POST /v1/completions?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}GET";
        let whole =
            Message { method: "POST", path: "/v1/completions", body: b"{}", length: text.len() - 3, keep: true };
        assert_eq!(read(text), Ok(Arrived::Whole(whole)));
        for cut in 0..text.len() - 3 {
            assert_eq!(read(&text[..cut]), Ok(Arrived::Part { expects: false }), "cut at byte {cut}");
        }
        let closing = b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n";
        assert!(matches!(read(closing), Ok(Arrived::Whole(Message { keep: false, body: b"", .. }))));
        let waiting = b"POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(read(waiting), Ok(Arrived::Part { expects: true }));
    }

    #[test]
    fn what_cannot_be_read_has_a_status() {
        assert_eq!(read(b"\x16\x03\x01\x02\x00"), Err(400));
        assert_eq!(read(b"POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n"), Err(400));
        assert_eq!(read(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"), Err(411));
        assert_eq!(read(b"POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n"), Err(413));
        let endless = [b"GET / HTTP/1.1\r\nx: ".as_slice(), &[b'a'; HEAD_LIMIT]].concat();
        assert_eq!(read(&endless), Err(431));
    }
}
