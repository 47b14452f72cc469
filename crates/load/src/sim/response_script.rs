//! The bytes of a response, made before its first token is due, so that a token is only written when it is due.

use super::fault::FaultKind;
use super::plain_response;
use crate::api::Api;

/// The text of a token.
const TOKEN: &str = " token";

/// Length of the text of [`FaultKind::BigEvent`].
const BIG_TEXT: usize = 1 << 20;

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
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub tokens: u32,
}

impl ResponseContent<'_> {
    /// A stream: one chunk for each token, then the usage if requested, then `[DONE]`. `fault` changes that.
    pub fn streamed(&self, include_usage: bool, fault: Option<FaultKind>) -> ResponseScript {
        let event = |text: &str, last| chunk(self.event(Some((text, last)), "null").as_bytes());
        let mut end = Vec::new();
        if include_usage && fault != Some(FaultKind::NoUsage) {
            end.extend(chunk(self.event(None, &self.usage()).as_bytes()));
        }
        if fault != Some(FaultKind::NoDone) {
            end.extend(chunk(b"data: [DONE]\n\n"));
        }
        end.extend_from_slice(LAST_CHUNK);
        let mut script = ResponseScript {
            head: b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
                .to_vec(),
            first: event(TOKEN, self.tokens == 1),
            token: event(TOKEN, false),
            last: event(TOKEN, true),
            end,
            tokens: self.tokens,
            ending: Ending::Complete,
        };
        match fault {
            Some(FaultKind::Stall) => script.cut(Ending::Never),
            Some(FaultKind::Reset) => script.cut(Ending::Reset),
            Some(FaultKind::Close) => script.cut(Ending::Close),
            Some(FaultKind::Error) => {
                script.cut(Ending::Complete);
                let error = r#"data: {"error":{"message":"simulated","type":"InternalServerError","code":500}}"#;
                script.end =
                    [chunk(format!("{error}\n\n").as_bytes()), chunk(b"data: [DONE]\n\n"), LAST_CHUNK.to_vec()]
                        .concat();
            }
            Some(FaultKind::NoToken) => script.tokens = 0,
            Some(FaultKind::BadUtf8) => script.set_tokens(&self.split(&[b" t\xc3", b"\x28oken"])),
            Some(FaultKind::SplitUtf8) => {
                script.set_tokens(&self.split(&[b" t\xc3", b"\xb6ken \xf0\x9f", b"\x9a\x80"]))
            }
            Some(FaultKind::BigEvent) => script.first = event(&"a".repeat(BIG_TEXT), self.tokens == 1),
            Some(FaultKind::Status(_) | FaultKind::NoUsage | FaultKind::NoDone) | None => {}
        }
        script
    }

    /// All tokens in one object, written when the last token is due.
    pub fn unstreamed(&self) -> ResponseScript {
        let text = TOKEN.repeat(self.tokens as usize);
        let body = self.object(false, Some((&text, true)), &self.usage());
        let end = plain_response::response(200, "application/json", body.as_bytes());
        let empty = Vec::new;
        ResponseScript {
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
        let event = self.event(Some((MARK, false)), "null");
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

    fn event(&self, choice: Option<(&str, bool)>, usage: &str) -> String {
        format!("data: {}\n\n", self.object(true, choice, usage))
    }

    fn usage(&self) -> String {
        let Self { prompt_tokens, tokens, .. } = self;
        let total = prompt_tokens + *tokens as usize;
        format!(r#"{{"prompt_tokens":{prompt_tokens},"total_tokens":{total},"completion_tokens":{tokens}}}"#)
    }

    /// One object of a response: an event of a stream, or the whole response.
    fn object(&self, streamed: bool, choice: Option<(&str, bool)>, usage: &str) -> String {
        let object = match (self.api, streamed) {
            (Api::Completions, _) => "text_completion",
            (Api::Chat, true) => "chat.completion.chunk",
            (Api::Chat, false) => "chat.completion",
        };
        let choices = choice.map_or_else(String::new, |(text, last)| {
            let finish = if last { r#""length""# } else { "null" };
            let content = match (self.api, streamed) {
                (Api::Completions, _) => format!(r#""text":"{text}""#),
                (Api::Chat, true) => format!(r#""delta":{{"role":"assistant","content":"{text}"}}"#),
                (Api::Chat, false) => format!(r#""message":{{"role":"assistant","content":"{text}"}}"#),
            };
            format!(r#"{{"index":0,{content},"logprobs":null,"finish_reason":{finish}}}"#)
        });
        let (id, model) = (self.id, serde_json::Value::from(self.model));
        format!(r#"{{"id":"sim-{id}","object":"{object}","model":{model},"choices":[{choices}],"usage":{usage}}}"#)
    }
}

impl ResponseScript {
    /// The bytes of the `n`-th token, counted from 0.
    pub fn token(&self, n: u32) -> &[u8] {
        match n {
            0 => &self.first,
            n if n + 1 == self.tokens && self.ending == Ending::Complete => &self.last,
            _ => &self.token,
        }
    }

    /// Ends after half of the tokens, but after at least one.
    fn cut(&mut self, ending: Ending) {
        (self.tokens, self.ending) = (self.tokens.div_ceil(2), ending);
        self.last.clone_from(&self.token);
        self.end.clear();
    }

    fn set_tokens(&mut self, token: &[u8]) {
        for place in [&mut self.first, &mut self.token, &mut self.last] {
            *place = token.to_vec();
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
        ResponseContent { api: Api::Completions, id: 7, model: "m", prompt_tokens: 2, tokens: 4 };

    fn text(script: &ResponseScript) -> String {
        let tokens = (0..script.tokens).map(|n| script.token(n)).collect::<Vec<_>>().concat();
        String::from_utf8_lossy(&[script.head.as_slice(), &tokens, &script.end].concat()).replace('\r', "")
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
        assert_eq!(counts(text(&script(FaultKind::NoToken))), [0, 0, 1, 1]);
        assert_eq!(counts(text(&script(FaultKind::Close))), [2, 0, 0, 0]);
        assert_eq!(counts(text(&script(FaultKind::Error))), [2, 0, 0, 1]);
        assert_eq!((script(FaultKind::Stall).ending, script(FaultKind::Reset).ending), (Ending::Never, Ending::Reset));
        assert!(text(&script(FaultKind::BigEvent)).len() > BIG_TEXT);
    }
}
