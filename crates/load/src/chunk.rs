//! The data of one event of a completion stream, for both interfaces: a token, token counts, or an error in any of the forms
//! that servers use.

use std::borrow::Cow;
use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

/// The data of one event. Parsing it does not allocate.
#[derive(Debug, Default, Deserialize)]
pub struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: FirstChoice<'a>,
    /// Token counts; vLLM sends them last, in an event without choices.
    pub usage: Option<Usage>,
    /// An error after the stream began: an object or a text.
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    /// `error` for an error whose fields are those of the event.
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    detail: Option<&'a RawValue>,
}

/// Parses the chunks of one answer. Between two tokens of an answer usually only the text differs: the rest is parsed once
/// and then compared, which takes a tenth of the time.
#[derive(Debug, Default)]
pub struct ChunkParser {
    /// A parsed chunk that has nothing but a token; empty before the first.
    known: Vec<u8>,
    /// The position of its text, with the quotes.
    text: std::ops::Range<usize>,
    /// The last chunk that had a key twice, with the last value of each.
    rewritten: String,
}

impl ChunkParser {
    /// Parses the data of an event, with the same result as [`Chunk::parse`]. Of a key that is there twice the last value
    /// counts.
    ///
    /// # Errors
    /// Those of [`Chunk::parse`].
    pub fn read<'a>(&'a mut self, data: &'a [u8]) -> Result<Chunk<'a>, String> {
        if let Some(chunk) = self.parse_like_known(data) {
            return Ok(chunk);
        }
        let chunk = match Chunk::parse(data) {
            Err(why) if why.starts_with("duplicate field") => {
                let value: Value = serde_json::from_slice(data).map_err(|error| error.to_string())?;
                self.rewritten = value.to_string();
                return Chunk::parse(self.rewritten.as_bytes());
            }
            parsed => parsed?,
        };
        if let Some(text) = chunk.raw_text().filter(|text| chunk.is_plain() && is_string(text)) {
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
        let choice = Choice { text: Some(text), ..Choice::default() };
        Some(Chunk { choices: FirstChoice(Some(choice)), ..Chunk::default() })
    }
}

fn is_string(json: &str) -> bool {
    json.len() >= 2 && json.starts_with('"') && json.ends_with('"')
}

/// The first choice of a chunk.
#[derive(Debug, Default)]
struct FirstChoice<'a>(Option<Choice<'a>>);

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice<'a> {
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    delta: Option<Delta<'a>>,
    #[serde(borrow)]
    finish_reason: Option<&'a RawValue>,
}

/// What a chunk of a chat adds. Servers have two names for the text of reasoning.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Delta<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    function_call: Option<&'a RawValue>,
    #[serde(borrow)]
    role: Option<&'a RawValue>,
}

impl<'a> Delta<'a> {
    /// What it adds besides the text of an answer.
    fn others(&self) -> [Option<&'a RawValue>; 5] {
        [self.reasoning, self.reasoning_content, self.refusal, self.tool_calls, self.function_call]
    }
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

/// Token counts of a request, by the server. Some servers write them as numbers with a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Usage {
    prompt_tokens: Option<f64>,
    completion_tokens: Option<f64>,
}

impl Usage {
    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> Option<u64> {
        self.prompt_tokens.map(|count| count as u64)
    }

    /// Tokens of the answer.
    pub fn completion_tokens(&self) -> Option<u64> {
        self.completion_tokens.map(|count| count as u64)
    }
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

    /// Whether it has a choice. `vllm bench serve` counts each as a token, also one without text.
    pub fn has_choice(&self) -> bool {
        self.choices.0.is_some()
    }

    /// Whether it has a part of the answer: text, reasoning, or a call of a tool.
    pub fn has_text(&self) -> bool {
        let Some(choice) = &self.choices.0 else { return false };
        let of_delta = choice.delta.iter().flat_map(|delta| delta.others().into_iter().chain([delta.content]));
        let is_there = |raw: &RawValue| !matches!(raw.get(), "null" | "\"\"" | "[]" | "{}");
        of_delta.chain([choice.text]).flatten().any(is_there)
    }

    /// Whether it has a token. The text of a token may be empty, as that of a part of a character; an event with nothing but the
    /// role of a chat has none.
    pub fn has_token(&self) -> bool {
        let role = self.choices.0.as_ref().and_then(|choice| choice.delta.as_ref()?.role);
        self.has_choice() && (role.is_none() || self.has_text())
    }

    /// The text of the first choice; empty if it has none.
    pub fn text(&self) -> Cow<'a, str> {
        self.raw_text().and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default()
    }

    /// Why the first choice ended: `length`, `stop`, `abort`, ...
    pub fn finish_reason(&self) -> Option<Cow<'a, str>> {
        self.choices.0.as_ref()?.finish_reason.and_then(|raw| serde_json::from_str(raw.get()).ok())
    }

    /// The server's words, if this is an error: `{"error": ...}` with an object or a text, or an object of the type `error`,
    /// or a message where an answer should be.
    pub fn error(&self) -> Option<String> {
        if let Some(raw) = self.error {
            return words(raw.get());
        }
        let is_error = self.object.is_some_and(|raw| raw.get() == "\"error\"");
        let said = self.message.or(self.detail);
        let is_only_said = said.is_some() && self.choices.0.is_none() && self.usage.is_none();
        let said = said.and_then(|raw| words(raw.get()));
        if is_error { Some(said.unwrap_or_default()) } else { said.filter(|_| is_only_said) }
    }

    /// That text as JSON.
    fn raw_text(&self) -> Option<&'a str> {
        let choice = self.choices.0.as_ref()?;
        choice.text.or(choice.delta.as_ref().and_then(|delta| delta.content)).map(RawValue::get)
    }

    /// Whether it has nothing but the text of a token.
    fn is_plain(&self) -> bool {
        let choice = self.choices.0.as_ref();
        let delta = choice.and_then(|choice| choice.delta.as_ref());
        let has_more = delta.is_some_and(|delta| delta.role.is_some() || delta.others().iter().any(Option::is_some));
        let is_last = choice.is_some_and(|choice| choice.finish_reason.is_some());
        self.usage.is_none() && self.error().is_none() && !has_more && !is_last
    }
}

/// The words of an error: its message, else its other fields. `None` for null, false and an empty text.
pub fn words(json: &str) -> Option<String> {
    let value: Value = serde_json::from_str(json).ok()?;
    let text = |name: &str| value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    match &value {
        Value::Null | Value::Bool(false) => None,
        Value::String(text) => (!text.is_empty()).then(|| text.clone()),
        Value::Object(_) => Some(match text("message").or_else(|| text("detail")) {
            Some(message) => message.to_owned(),
            None => match value.get("error").filter(|error| !error.is_null()) {
                Some(inner) => words(&inner.to_string()).unwrap_or_else(|| value.to_string()),
                None => value.to_string(),
            },
        }),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(data: &[u8]) -> Result<(bool, bool, String), String> {
        Chunk::parse(data).map(|chunk| (chunk.has_choice(), chunk.has_text(), chunk.text().into_owned()))
    }

    #[test]
    fn chunks_of_vllm_of_both_interfaces_have_tokens_and_then_usage() {
        let completion = br#"{"id":"cmpl-1","choices":[{"index":0,"text":" a","finish_reason":null}],"usage":null}"#;
        let role = br#"{"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#;
        let usage = br#"{"choices":[],"usage":{"prompt_tokens":64,"total_tokens":96,"completion_tokens":32.0}}"#;
        assert_eq!(facts(completion), Ok((true, true, " a".to_owned())));
        assert_eq!(facts(role), Ok((true, false, String::new())));
        let two = br#"{"choices":[{"text":"\u00e9\n"},{"text":"b"}]}"#;
        assert_eq!(facts(two), Ok((true, true, "\u{e9}\n".to_owned())));
        assert_eq!(facts(br#"{"choices":[{"text":null}]}"#), Ok((true, false, String::new())));
        assert_eq!(facts(br#"{"choices":null}"#), Ok((false, false, String::new())));
        let last = Chunk::parse(usage).unwrap().usage.unwrap();
        assert_eq!((last.prompt_tokens(), last.completion_tokens()), (Some(64), Some(32)));
    }

    #[test]
    fn reasoning_and_calls_of_tools_are_parts_of_an_answer() {
        for (delta, has_text) in [
            (r#"{"reasoning_content":"a"}"#, true),
            (r#"{"reasoning":"b","content":null}"#, true),
            (r#"{"tool_calls":[{"index":0,"function":{"name":"f","arguments":"{"}}]}"#, true),
            (r#"{"content":"\ud83d"}"#, true),
            (r#"{"content":null,"tool_calls":[]}"#, false),
            ("{}", false),
        ] {
            let data = format!(r#"{{"choices":[{{"delta":{delta}}}]}}"#);
            assert_eq!(facts(data.as_bytes()).unwrap().1, has_text, "{delta}");
            assert!(Chunk::parse(data.as_bytes()).unwrap().has_token(), "{delta}");
        }
        let role = br#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#;
        assert!(!Chunk::parse(role).unwrap().has_token());
        let both = br#"{"choices":[{"delta":{"role":"assistant","content":"a"}}]}"#;
        assert!(Chunk::parse(both).unwrap().has_token());
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
                r#""a","text_offset":"b""#,
                "\"a\nb\"",
                "5",
                "null",
                "\"",
                r#""a\""#,
            ] {
                let data = data_with(text);
                let content =
                    |chunk: Chunk<'_>| (chunk.has_choice(), chunk.has_text(), chunk.text().into_owned(), chunk.usage);
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
    fn of_a_key_that_is_there_twice_the_last_value_counts() {
        let mut chunks = ChunkParser::default();
        let chunk = chunks.read(br#"{"choices":[{"text":" a","text":" b"}],"usage":null,"usage":null}"#).unwrap();
        assert_eq!(chunk.text(), " b");
    }

    #[test]
    fn an_error_is_found_in_every_form_that_servers_use() {
        for (data, expected) in [
            (r#"{"error":{"message":"engine died","type":"InternalServerError","code":500}}"#, Some("engine died")),
            (r#"{"error":"no instances found"}"#, Some("no instances found")),
            (r#"{"error":{"type":"overloaded","message":null}}"#, Some(r#"{"type":"overloaded","message":null}"#)),
            (r#"{"object":"error","message":"engine stopped","code":500}"#, Some("engine stopped")),
            (r#"{"object":"error","message":null}"#, Some("")),
            (r#"{"detail":"Not Found"}"#, Some("Not Found")),
            (r#"{"error":null,"choices":[{"text":"a"}]}"#, None),
            (r#"{"error":false,"choices":[{"text":"a"}]}"#, None),
            (r#"{"choices":[{"text":"a"}],"message":"of no meaning"}"#, None),
            (r#"{"choices":[{"message":{"content":"x"}}]}"#, None),
            ("{}", None),
        ] {
            assert_eq!(Chunk::parse(data.as_bytes()).unwrap().error().as_deref(), expected, "{data}");
        }
        assert!(Chunk::parse(b"{\"choices\":[{\"text\":\"\xff\"}]}").is_err());
        let aborted = Chunk::parse(br#"{"choices":[{"text":"","finish_reason":"abort"}]}"#).unwrap();
        assert_eq!(aborted.finish_reason().as_deref(), Some("abort"));
    }
}
