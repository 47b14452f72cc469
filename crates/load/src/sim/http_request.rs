//! A parser of HTTP/1.1 requests: head and body.

/// Longest head, in bytes.
const HEAD_LIMIT: usize = 64 << 10;

/// Longest body, in bytes. Long prompts as token ids need much of it.
const BODY_LIMIT: usize = 64 << 20;

/// Most headers.
const HEADERS: usize = 64;

/// A complete request.
#[derive(Debug, PartialEq, Eq)]
pub struct HttpRequest<'a> {
    /// `GET`, `POST`, ...
    pub method: &'a str,
    /// The path, without a query.
    pub path: &'a str,
    /// The body.
    pub body: &'a [u8],
    /// Length of head and body, in bytes.
    pub length: usize,
    /// Whether the connection stays open for another request.
    pub keep: bool,
}

/// The result of parsing what has arrived.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// The request is complete.
    Complete(HttpRequest<'a>),
    /// More bytes are needed.
    Partial {
        /// Whether the client waits for a 100 (`expect: 100-continue`).
        expects: bool,
    },
}

/// Parses a request at the beginning of `bytes`.
///
/// # Errors
/// The status of the response to a request that cannot be served.
pub fn parse(bytes: &[u8]) -> Result<Parsed<'_>, u16> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(bytes).map_err(|_| 400_u16)? {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial if bytes.len() > HEAD_LIMIT => return Err(431),
        httparse::Status::Partial => return Ok(Parsed::Partial { expects: false }),
    };
    let (mut size, mut keep, mut expects) = (0_usize, request.version == Some(1), false);
    for header in request.headers.iter() {
        let value = header.value.trim_ascii();
        if header.name.eq_ignore_ascii_case("content-length") {
            size = std::str::from_utf8(value).ok().and_then(|value| value.parse().ok()).ok_or(400_u16)?;
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            // A chunked body is not supported: load clients know the length of what they send.
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
        return Ok(Parsed::Partial { expects: expects && bytes.len() == head });
    };
    let path = request.path.unwrap_or_default();
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    Ok(Parsed::Complete(HttpRequest {
        method: request.method.unwrap_or_default(),
        path,
        body,
        length: head + size,
        keep,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_complete_with_its_body() {
        let text = b"POST /v1/completions?a=b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}GET";
        let whole =
            HttpRequest { method: "POST", path: "/v1/completions", body: b"{}", length: text.len() - 3, keep: true };
        assert_eq!(parse(text), Ok(Parsed::Complete(whole)));
        for cut in 0..text.len() - 3 {
            assert_eq!(parse(&text[..cut]), Ok(Parsed::Partial { expects: false }), "cut at byte {cut}");
        }
        let closing = b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n";
        assert!(matches!(parse(closing), Ok(Parsed::Complete(HttpRequest { keep: false, body: b"", .. }))));
        let waiting = b"POST / HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(parse(waiting), Ok(Parsed::Partial { expects: true }));
    }

    #[test]
    fn a_request_that_cannot_be_served_has_a_status() {
        assert_eq!(parse(b"\x16\x03\x01\x02\x00"), Err(400));
        assert_eq!(parse(b"POST / HTTP/1.1\r\ncontent-length: many\r\n\r\n"), Err(400));
        assert_eq!(parse(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"), Err(411));
        assert_eq!(parse(b"POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n"), Err(413));
        let endless = [b"GET / HTTP/1.1\r\nx: ".as_slice(), &[b'a'; HEAD_LIMIT]].concat();
        assert_eq!(parse(&endless), Err(431));
    }
}
