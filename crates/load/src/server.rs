//! The server under load, and the framing of its requests as HTTP/1.1.

use anyhow::{Context, Result};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use url::Url;

/// A server under load.
#[derive(Debug, Clone)]
pub struct Server {
    url: Url,
    headers: HeaderMap,
    insecure: bool,
    whole_answers: bool,
}

impl Server {
    /// A server at `url`, an http or https URL with the path of the interface. Every request carries `headers`;
    /// `host`, `content-type`, `content-length` and `transfer-encoding` among them are ignored.
    pub fn new(url: Url, headers: HeaderMap) -> Self {
        Self { url, headers, insecure: false, whole_answers: false }
    }

    /// The same server, with any certificate.
    pub fn insecure(self) -> Self {
        Self { insecure: true, ..self }
    }

    /// Whether any certificate is accepted.
    pub fn is_insecure(&self) -> bool {
        self.insecure
    }

    /// The same server, whose answers are a JSON object each and not a stream ([`Api::generates`](crate::Api::generates)).
    pub fn with_whole_answers(self) -> Self {
        Self { whole_answers: true, ..self }
    }

    /// Whether an answer is one JSON object.
    pub fn has_whole_answers(&self) -> bool {
        self.whole_answers
    }

    /// The URL that requests are sent to.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The same server, with `id` as the `x-request-id` of its requests.
    ///
    /// # Errors
    /// `id` has characters that are not allowed in a header.
    pub fn with_request_id(&self, id: &str) -> Result<Self> {
        let value = HeaderValue::from_str(id)
            .with_context(|| format!("the request id `{id}` has characters that are not allowed in a header"))?;
        let mut headers = self.headers.clone();
        headers.insert("x-request-id", value);
        Ok(Self { headers, ..self.clone() })
    }

    /// The whole HTTP/1.1 request with `body`, for [`Request::bytes`](crate::Request::bytes).
    pub fn request(&self, body: &[u8]) -> Bytes {
        let path = &self.url[url::Position::BeforePath..url::Position::AfterQuery];
        let host = &self.url[url::Position::BeforeHost..url::Position::AfterPort];
        let length = body.len();
        let fixed = "accept: */*\r\naccept-encoding: identity";
        let mut request = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\n{fixed}\r\n").into_bytes();
        let mut header = |name: &HeaderName, value: &HeaderValue| {
            request.extend_from_slice(name.as_str().as_bytes());
            request.extend_from_slice(b": ");
            request.extend_from_slice(value.as_bytes());
            request.extend_from_slice(b"\r\n");
        };
        header(&CONTENT_TYPE, &HeaderValue::from_static("application/json"));
        // These headers frame the request, so a caller cannot set them.
        let framing = [CONTENT_LENGTH, TRANSFER_ENCODING, HOST, CONTENT_TYPE];
        self.headers.iter().filter(|(name, _)| !framing.contains(name)).for_each(|(name, value)| header(name, value));
        request.extend_from_slice(format!("content-length: {length}\r\n\r\n").as_bytes());
        request.extend_from_slice(body);
        Bytes::from(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> Server {
        let url = Url::parse("http://127.0.0.1:9/v1?a=b").unwrap();
        let headers = [(CONTENT_LENGTH, 7.into()), (HeaderName::from_static("x-run"), 8.into())].into_iter().collect();
        Server::new(url, headers)
    }

    #[test]
    fn headers_of_the_caller_cannot_change_the_framing() {
        let request = server().request(b"{}");
        insta::assert_snapshot!(String::from_utf8_lossy(&request).replace('\r', ""), @r"
        POST /v1?a=b HTTP/1.1
        host: 127.0.0.1:9
        accept: */*
        accept-encoding: identity
        content-type: application/json
        x-run: 8
        content-length: 2

        {}
        ");
    }
}
