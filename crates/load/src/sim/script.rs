//! The bytes of an answer, all of them made before its first deadline: what is left to do for a token is to write it.
//! Pure.

use super::fault::Kind;
use super::order::Shape;

/// What one simulated token reads.
const TOKEN: &str = " token";

/// Characters of a text that is long on purpose.
const BIG: usize = 1 << 20;

/// How an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As it should; the connection is kept.
    Whole,
    /// Its connection is closed.
    Close,
    /// Its connection is reset.
    Reset,
    /// Never.
    Never,
}

/// The bytes of an answer, framed as HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Before the first token.
    pub head: Vec<u8>,
    /// The first token.
    pub first: Vec<u8>,
    /// The second token and those that follow it, up to the last.
    pub token: Vec<u8>,
    /// The last of several tokens.
    pub last: Vec<u8>,
    /// After the tokens.
    pub end: Vec<u8>,
    /// How many tokens come.
    pub tokens: u32,
    /// What comes then.
    pub ending: Ending,
}

/// What is answered.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// The interface.
    pub shape: Shape,
    /// The request, counted from 0.
    pub id: u64,
    /// The model's name.
    pub model: &'a str,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub tokens: u32,
}

impl Answer<'_> {
    /// One chunk a token, then the usage where it is wanted, then `[DONE]`; with what `fault` makes of that.
    pub fn streamed(&self, include_usage: bool, fault: Option<Kind>) -> Script {
        let event = |text: &str, last| chunk(self.event(Some((text, last)), "null").as_bytes());
        let mut end = Vec::new();
        if include_usage && fault != Some(Kind::NoUsage) {
            end.extend(chunk(self.event(None, &self.usage()).as_bytes()));
        }
        if fault != Some(Kind::NoDone) {
            end.extend(chunk(b"data: [DONE]\n\n"));
        }
        end.extend_from_slice(LAST_CHUNK);
        let mut script = Script {
            head: b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
                .to_vec(),
            first: event(TOKEN, self.tokens == 1),
            token: event(TOKEN, false),
            last: event(TOKEN, true),
            end,
            tokens: self.tokens,
            ending: Ending::Whole,
        };
        match fault {
            Some(Kind::Stall) => script.cut(Ending::Never),
            Some(Kind::Reset) => script.cut(Ending::Reset),
            Some(Kind::Close) => script.cut(Ending::Close),
            Some(Kind::Error) => {
                script.cut(Ending::Whole);
                let error = r#"data: {"error":{"message":"simulated","type":"InternalServerError","code":500}}"#;
                script.end =
                    [chunk(format!("{error}\n\n").as_bytes()), chunk(b"data: [DONE]\n\n"), LAST_CHUNK.to_vec()]
                        .concat();
            }
            Some(Kind::NoToken) => script.tokens = 0,
            Some(Kind::BadUtf8) => script.set_tokens(&self.split(&[b" t\xc3", b"\x28oken"])),
            Some(Kind::SplitUtf8) => script.set_tokens(&self.split(&[b" t\xc3", b"\xb6ken \xf0\x9f", b"\x9a\x80"])),
            Some(Kind::BigEvent) => script.first = event(&"a".repeat(BIG), self.tokens == 1),
            Some(Kind::Status(_) | Kind::NoUsage | Kind::NoDone) | None => {}
        }
        script
    }

    /// All tokens in one object, written when the last is due.
    pub fn whole(&self) -> Script {
        let text = TOKEN.repeat(self.tokens as usize);
        let body = self.object(false, Some((&text, true)), &self.usage());
        let end = response(200, "application/json", body.as_bytes());
        let nothing = Vec::new;
        Script {
            head: nothing(),
            first: nothing(),
            token: nothing(),
            last: nothing(),
            end,
            tokens: self.tokens,
            ending: Ending::Whole,
        }
    }

    /// The event of a token whose text is `pieces`, each in a chunk of its own.
    fn split(&self, pieces: &[&[u8]]) -> Vec<u8> {
        // No model's name can hold a control character that is not escaped.
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

    /// One object of an answer: a chunk of a stream, or the whole of it.
    fn object(&self, streamed: bool, choice: Option<(&str, bool)>, usage: &str) -> String {
        let object = match (self.shape, streamed) {
            (Shape::Completion, _) => "text_completion",
            (Shape::Chat, true) => "chat.completion.chunk",
            (Shape::Chat, false) => "chat.completion",
        };
        let choices = choice.map_or_else(String::new, |(text, last)| {
            let finish = if last { r#""length""# } else { "null" };
            let content = match (self.shape, streamed) {
                (Shape::Completion, _) => format!(r#""text":"{text}""#),
                (Shape::Chat, true) => format!(r#""delta":{{"role":"assistant","content":"{text}"}}"#),
                (Shape::Chat, false) => format!(r#""message":{{"role":"assistant","content":"{text}"}}"#),
            };
            format!(r#"{{"index":0,{content},"logprobs":null,"finish_reason":{finish}}}"#)
        });
        let (id, model) = (self.id, serde_json::Value::from(self.model));
        format!(r#"{{"id":"sim-{id}","object":"{object}","model":{model},"choices":[{choices}],"usage":{usage}}}"#)
    }
}

impl Script {
    /// The bytes of the `n`-th token, counted from 0.
    pub fn token(&self, n: u32) -> &[u8] {
        match n {
            0 => &self.first,
            n if n + 1 == self.tokens && self.ending == Ending::Whole => &self.last,
            _ => &self.token,
        }
    }

    /// Ends after half of the tokens, but not before the first.
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

/// A whole answer of HTTP.
pub fn response(status: u16, content_type: &str, body: &[u8]) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        404 => "Not Found",
        _ if status < 500 => "Bad Request",
        _ => "Service Unavailable",
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: Answer<'_> = Answer { shape: Shape::Completion, id: 7, model: "m", prompt_tokens: 2, tokens: 4 };

    fn text(script: &Script) -> String {
        let tokens = (0..script.tokens).map(|n| script.token(n)).collect::<Vec<_>>().concat();
        String::from_utf8_lossy(&[script.head.as_slice(), &tokens, &script.end].concat()).replace('\r', "")
    }

    #[test]
    fn a_stream_is_one_chunk_a_token_then_usage_then_done() {
        insta::assert_snapshot!(text(&Answer { tokens: 2, ..ANSWER }.streamed(true, None)), @r#"
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
    fn a_fault_takes_away_what_its_name_says() {
        let script = |fault| ANSWER.streamed(true, Some(fault));
        let counts = |text: String| {
            ["\" token\"", "\"length\"", "completion_tokens", "[DONE]"].map(|word| text.matches(word).count())
        };
        assert_eq!(counts(text(&script(Kind::NoUsage))), [4, 1, 0, 1]);
        assert_eq!(counts(text(&script(Kind::NoDone))), [4, 1, 1, 0]);
        assert_eq!(counts(text(&script(Kind::NoToken))), [0, 0, 1, 1]);
        assert_eq!(counts(text(&script(Kind::Close))), [2, 0, 0, 0]);
        assert_eq!(counts(text(&script(Kind::Error))), [2, 0, 0, 1]);
        assert_eq!((script(Kind::Stall).ending, script(Kind::Reset).ending), (Ending::Never, Ending::Reset));
        assert!(text(&script(Kind::BigEvent)).len() > BIG);
    }
}
