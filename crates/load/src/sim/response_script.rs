//! The bytes of a response, made before its first token is due, so that a token is only written when it is due.

use super::fault::FaultKind;
use super::plain_response;
use super::pooled_response;
use crate::api::Api;

/// The text of a token.
const TOKEN: &str = " token";

/// Length of the text of [`FaultKind::BigEvent`].
const BIG_TEXT: usize = 1 << 20;

/// What [`FaultKind::EmptyEvents`] puts before each event.
const EMPTY_EVENTS: &[u8] = b": keep-alive\n\ndata: {}\n\ndata: {\"choices\":[]}\n\n";

/// How a response ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// Complete; the connection is kept.
    Complete,
    /// The connection is closed.
    Close,
    /// The connection is reset.
    Reset,
    /// It does not end; the connection stays open.
    Never,
}

/// The bytes of a response, framed as HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResponseScript {
    /// The bytes that are written when the request begins to run, with the head if there are any.
    pub at_once: Vec<u8>,
    /// The bytes before the first token.
    pub head: Vec<u8>,
    /// The first token.
    pub first: Vec<u8>,
    /// The second token and those after it, except for the last.
    pub token: Vec<u8>,
    /// The last token, if there are several.
    pub last: Vec<u8>,
    /// The bytes after the tokens.
    pub end: Vec<u8>,
    /// The number of tokens.
    pub tokens: u32,
    /// What follows.
    pub ending: Ending,
}

/// The content of a response.
#[derive(Debug, Clone, Copy)]
pub struct ResponseContent<'a> {
    /// The interface.
    pub api: Api,
    /// The number of the request, counted from 0.
    pub id: u64,
    /// The name of the model.
    pub model: &'a str,
    /// Prompts of the request.
    pub prompts: usize,
    /// Tokens of the prompts.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub tokens: u32,
}

impl ResponseContent<'_> {
    /// A stream: one event for each token, then the usage if requested, then `[DONE]`. A chat begins with an event for the
    /// role. `fault` changes that.
    pub fn streamed(&self, include_usage: bool, fault: Option<FaultKind>) -> ResponseScript {
        let mut parts = self.parts(include_usage);
        let mut ending = Ending::Complete;
        if let Some(fault) = fault {
            ending = self.spoil(&mut parts, fault);
        }
        let Parts { headers, mut at_once, before, mut first, token, last, usage, done, end, tokens } = parts;
        if tokens == 1 {
            first = [&before[..], &last].concat();
        } else {
            first.splice(0..0, before);
        }
        let mut head = format!("HTTP/1.1 200 OK\r\n{headers}transfer-encoding: chunked\r\n\r\n").into_bytes();
        if !at_once.is_empty() {
            head.append(&mut at_once);
            at_once = std::mem::take(&mut head);
        }
        let ended = if end { LAST_CHUNK } else { b"" };
        ResponseScript { at_once, head, first, token, last, end: [&usage, &done, ended].concat(), tokens, ending }
    }

    fn parts(&self, include_usage: bool) -> Parts {
        let role = (self.api == Api::Chat).then(|| chunk(self.event(Some(&self.role()), "null").as_bytes()));
        Parts {
            headers: "content-type: text/event-stream; charset=utf-8\r\n".to_owned(),
            at_once: Vec::new(),
            before: role.unwrap_or_default(),
            first: self.token_event(TOKEN, None),
            token: self.token_event(TOKEN, None),
            last: self.token_event(TOKEN, Some("length")),
            usage: if include_usage { self.usage_event(self.tokens) } else { Vec::new() },
            done: chunk(b"data: [DONE]\n\n"),
            end: true,
            tokens: self.tokens,
        }
    }

    /// Changes `parts` as the fault says; returns how the response ends.
    fn spoil(&self, parts: &mut Parts, fault: FaultKind) -> Ending {
        if let Some(event) = fault.error_event() {
            parts.cut(Ending::Complete);
            parts.usage = chunk(format!("{event}\n\n").as_bytes());
            return Ending::Complete;
        }
        match fault {
            FaultKind::Stall => return parts.cut(Ending::Never),
            FaultKind::Reset => return parts.cut(Ending::Reset),
            FaultKind::Close => return parts.cut(Ending::Close),
            FaultKind::Abort => {
                parts.cut(Ending::Complete);
                parts.usage = self.token_event("", Some("abort"));
            }
            FaultKind::NoToken => {
                (parts.tokens, parts.before) = (0, Vec::new());
            }
            FaultKind::EmptyAnswer => {
                (parts.tokens, parts.last, parts.usage) = (1, self.token_event("", Some("stop")), self.usage_event(0));
            }
            FaultKind::Short => {
                let tokens = self.tokens.div_ceil(2);
                (parts.tokens, parts.last) = (tokens, self.token_event(TOKEN, Some("stop")));
                parts.usage = self.usage_event(tokens);
            }
            FaultKind::NoUsage => parts.usage.clear(),
            FaultKind::NoDone => parts.done.clear(),
            FaultKind::NoEnd => {
                (parts.done, parts.usage, parts.last) = (Vec::new(), Vec::new(), self.token_event(TOKEN, None));
            }
            FaultKind::BareDone => parts.done = chunk(b"data: [DONE]\n"),
            FaultKind::NoBlanks => parts.each(|event| chunk(self.without_blank(event).as_bytes())),
            FaultKind::ByteOrderMark => parts.before.splice(0..0, chunk(b"\xef\xbb\xbf")).for_each(drop),
            FaultKind::RoleFirst => {
                parts.at_once = chunk(self.event(Some(&self.role()), "null").as_bytes());
                parts.before.clear();
            }
            FaultKind::EmptyEvents => parts.each(|event| [chunk(EMPTY_EVENTS).as_slice(), event].concat()),
            FaultKind::Packed => {
                let two = TOKEN.repeat(2);
                (parts.first, parts.token) = (self.token_event(&two, None), self.token_event(&two, None));
                (parts.last, parts.tokens) = (self.token_event(&two, Some("length")), self.tokens.div_ceil(2));
            }
            FaultKind::BadUtf8 => parts.set_tokens(&self.split(&[b" t\xc3", b"\x28oken"])),
            FaultKind::SplitUtf8 => parts.set_tokens(&self.split(&[b" t\xc3", b"\xb6ken \xf0\x9f", b"\x9a\x80"])),
            FaultKind::BigEvent => parts.first = self.token_event(&"a".repeat(BIG_TEXT), None),
            FaultKind::ManyHeaders => {
                parts.headers.extend((0..90).map(|n| format!("x-trace-{n}: {n}\r\n")));
            }
            FaultKind::Encoded => parts.headers.push_str("content-encoding: gzip\r\n"),
            FaultKind::OpenEnd => {
                parts.end = false;
                return Ending::Never;
            }
            FaultKind::CloseAfter => return Ending::Close,
            // The others are not streams.
            _ => {}
        }
        Ending::Complete
    }

    /// The plain response of a fault that is no stream.
    pub fn plain(&self, fault: FaultKind) -> Option<Vec<u8>> {
        match fault {
            FaultKind::Status(status) => Some(plain_response::error(status, "simulated")),
            FaultKind::Redirect => Some(plain_response::redirect("/elsewhere/v1/completions")),
            FaultKind::Whole => Some(self.unstreamed().end),
            FaultKind::JsonError => Some(plain_response::error(200, "simulated")),
            FaultKind::Html => {
                Some(plain_response::response(200, "text/html", b"<html><body>Log in to continue</body></html>"))
            }
            _ => None,
        }
    }

    /// All tokens in one object, written when the last token is due; or what was pooled, when a first token would be.
    pub fn unstreamed(&self) -> ResponseScript {
        let text = TOKEN.repeat(self.tokens as usize);
        let body = match self.api {
            Api::Completions => {
                self.object(false, Some(&self.choice(&text, Some("length"))), &self.usage(self.tokens)).into_bytes()
            }
            Api::Chat => {
                let choice = format!(
                    r#"{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"logprobs":null,"finish_reason":"length"}}"#
                );
                self.object(false, Some(&choice), &self.usage(self.tokens)).into_bytes()
            }
            Api::Embeddings | Api::Pooling => {
                pooled_response::body(self.api, self.id, self.model, self.prompts, self.prompt_tokens)
            }
        };
        let end = plain_response::response(200, "application/json", &body);
        let empty = Vec::new;
        ResponseScript {
            at_once: empty(),
            head: empty(),
            first: empty(),
            token: empty(),
            last: empty(),
            end,
            tokens: self.tokens,
            ending: Ending::Complete,
        }
    }

    /// The event of a token with the text `pieces`, each in its own chunk.
    fn split(&self, pieces: &[&[u8]]) -> Vec<u8> {
        // In JSON a control character is always escaped, so the mark occurs once.
        const MARK: &str = "\u{1}";
        let event = self.event(Some(&self.choice(MARK, None)), "null");
        let (before, after) = event.split_once(MARK).unwrap_or_default();
        let mut chunks: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        if let Some(first) = chunks.first_mut() {
            first.splice(0..0, before.bytes());
        }
        if let Some(last) = chunks.last_mut() {
            last.extend(after.bytes());
        }
        chunks.iter().flat_map(|piece| chunk(piece)).collect()
    }

    /// The event of a token, without the empty line at its end.
    fn without_blank(&self, event: &[u8]) -> String {
        let text = String::from_utf8_lossy(event);
        let lines = text.split("\r\n").filter(|line| line.starts_with("data:"));
        lines.map(|line| format!("{}\n", line.trim_end())).collect()
    }

    fn token_event(&self, text: &str, finish: Option<&str>) -> Vec<u8> {
        chunk(self.event(Some(&self.choice(text, finish)), "null").as_bytes())
    }

    fn usage_event(&self, tokens: u32) -> Vec<u8> {
        chunk(self.event(None, &self.usage(tokens)).as_bytes())
    }

    fn event(&self, choice: Option<&str>, usage: &str) -> String {
        format!("data: {}\n\n", self.object(true, choice, usage))
    }

    fn usage(&self, tokens: u32) -> String {
        let prompt_tokens = self.prompt_tokens;
        let total = prompt_tokens + tokens as usize;
        format!(r#"{{"prompt_tokens":{prompt_tokens},"total_tokens":{total},"completion_tokens":{tokens}}}"#)
    }

    /// The first choice of a chat: the role, without text.
    fn role(&self) -> String {
        match self.api {
            Api::Chat => {
                r#"{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}"#
                    .to_owned()
            }
            _ => self.choice("", None),
        }
    }

    /// The choice of an event with a token.
    fn choice(&self, text: &str, finish: Option<&str>) -> String {
        let content = match self.api {
            Api::Chat => format!(r#""delta":{{"content":"{text}"}}"#),
            _ => format!(r#""text":"{text}""#),
        };
        let finish = finish.map_or_else(|| "null".to_owned(), |reason| format!(r#""{reason}""#));
        format!(r#"{{"index":0,{content},"logprobs":null,"finish_reason":{finish}}}"#)
    }

    /// One object of a response: an event of a stream, or the whole response.
    fn object(&self, streamed: bool, choice: Option<&str>, usage: &str) -> String {
        let object = match (self.api, streamed) {
            (Api::Chat, true) => "chat.completion.chunk",
            (Api::Chat, false) => "chat.completion",
            _ => "text_completion",
        };
        let choices = choice.unwrap_or_default();
        let (id, model) = (self.id, serde_json::Value::from(self.model));
        format!(r#"{{"id":"sim-{id}","object":"{object}","model":{model},"choices":[{choices}],"usage":{usage}}}"#)
    }
}

/// The parts of a stream, framed as chunks of HTTP.
struct Parts {
    headers: String,
    /// When the request begins to run.
    at_once: Vec<u8>,
    /// Before the first token.
    before: Vec<u8>,
    first: Vec<u8>,
    token: Vec<u8>,
    last: Vec<u8>,
    usage: Vec<u8>,
    done: Vec<u8>,
    /// Whether the response ends after `[DONE]`.
    end: bool,
    tokens: u32,
}

impl Parts {
    /// Ends after half of the tokens, but after at least one.
    fn cut(&mut self, ending: Ending) -> Ending {
        self.tokens = self.tokens.div_ceil(2);
        self.last.clone_from(&self.token);
        self.usage.clear();
        if ending != Ending::Complete {
            (self.done, self.end) = (Vec::new(), false);
        }
        ending
    }

    fn each(&mut self, change: impl Fn(&[u8]) -> Vec<u8>) {
        for part in
            [&mut self.before, &mut self.first, &mut self.token, &mut self.last, &mut self.usage, &mut self.done]
        {
            if !part.is_empty() {
                *part = change(part);
            }
        }
    }

    fn set_tokens(&mut self, token: &[u8]) {
        for place in [&mut self.first, &mut self.token, &mut self.last] {
            *place = token.to_vec();
        }
    }
}

impl ResponseScript {
    /// The bytes of the `n`-th token, counted from 0.
    pub fn token(&self, n: u32) -> &[u8] {
        match n {
            0 => &self.first,
            n if n + 1 == self.tokens => &self.last,
            _ => &self.token,
        }
    }
}

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTENT: ResponseContent<'_> =
        ResponseContent { api: Api::Completions, id: 7, model: "m", prompts: 1, prompt_tokens: 2, tokens: 4 };

    fn text(script: &ResponseScript) -> String {
        let tokens = (0..script.tokens).map(|n| script.token(n)).collect::<Vec<_>>().concat();
        String::from_utf8_lossy(&[script.at_once.as_slice(), &script.head, &tokens, &script.end].concat())
            .replace('\r', "")
    }

    #[test]
    fn a_stream_has_a_chunk_for_each_token_then_usage_then_done() {
        insta::assert_snapshot!(text(&ResponseContent { tokens: 2, ..CONTENT }.streamed(true, None)), @r#"
        HTTP/1.1 200 OK
        content-type: text/event-stream; charset=utf-8
        transfer-encoding: chunked

        97
        data: {"id":"sim-7","object":"text_completion","model":"m","choices":[{"index":0,"text":" token","logprobs":null,"finish_reason":null}],"usage":null}


        9b
        data: {"id":"sim-7","object":"text_completion","model":"m","choices":[{"index":0,"text":" token","logprobs":null,"finish_reason":"length"}],"usage":null}


        8d
        data: {"id":"sim-7","object":"text_completion","model":"m","choices":[],"usage":{"prompt_tokens":2,"total_tokens":4,"completion_tokens":2}}


        e
        data: [DONE]


        0
        "#);
    }

    #[test]
    fn a_fault_changes_what_its_name_says() {
        let script = |fault| CONTENT.streamed(true, Some(fault));
        let counts = |text: String| {
            ["\" token\"", "\"length\"", "completion_tokens", "[DONE]"].map(|word| text.matches(word).count())
        };
        assert_eq!(counts(text(&script(FaultKind::NoUsage))), [4, 1, 0, 1]);
        assert_eq!(counts(text(&script(FaultKind::NoDone))), [4, 1, 1, 0]);
        assert_eq!(counts(text(&script(FaultKind::NoEnd))), [4, 0, 0, 0]);
        assert_eq!(counts(text(&script(FaultKind::Short))), [2, 0, 1, 1]);
        assert_eq!(counts(text(&script(FaultKind::EmptyAnswer))), [0, 0, 1, 1]);
        assert_eq!(counts(text(&script(FaultKind::Abort))), [2, 0, 0, 1]);
        assert_eq!(text(&script(FaultKind::Packed)).matches(" token token").count(), 2);
        assert_eq!(text(&script(FaultKind::NoBlanks)).matches("\n\n\n").count(), 0);
        assert!(script(FaultKind::RoleFirst).at_once.ends_with(b"\n\n\r\n"));
        assert_eq!(counts(text(&script(FaultKind::NoToken))), [0, 0, 1, 1]);
        assert_eq!(counts(text(&script(FaultKind::Close))), [2, 0, 0, 0]);
        assert_eq!(counts(text(&script(FaultKind::Error))), [2, 0, 0, 1]);
        assert_eq!((script(FaultKind::Stall).ending, script(FaultKind::Reset).ending), (Ending::Never, Ending::Reset));
        assert!(text(&script(FaultKind::BigEvent)).len() > BIG_TEXT);
    }
}
