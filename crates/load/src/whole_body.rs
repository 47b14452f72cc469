//! Reads a JSON object that comes as one whole answer, such as the embeddings of a text: its token counts, and whether it has
//! data. The data, which can be many megabytes, is not kept.

use serde::Deserialize;

/// Longest name of a field that is read, and longest text of the token counts, in bytes.
const LONGEST: usize = 4 << 10;

/// The field with what was asked for.
const DATA: &[u8] = b"data";

/// The field with the token counts.
const USAGE: &[u8] = b"usage";

/// An object so far.
#[derive(Debug, Default)]
pub struct WholeBody {
    /// How many objects and lists are open.
    depth: usize,
    string: Option<Text>,
    is_escaped: bool,
    /// The name of the current field of the object itself, in the place of a name and after it.
    field: Vec<u8>,
    in_value: bool,
    /// The value of the token counts.
    usage: Vec<u8>,
    has_data: bool,
    state: State,
}

/// What a string is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Name,
    Value,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Before,
    Inside,
    After,
    /// It is not one object.
    Other,
}

/// Token counts of a request, by the server.
#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<f64>,
}

impl WholeBody {
    /// Takes the next bytes, wherever they begin and end.
    pub fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match self.state {
                State::Inside => self.inside(*byte),
                State::Before | State::After if byte.is_ascii_whitespace() => {}
                State::Before if *byte == b'{' => (self.state, self.depth) = (State::Inside, 1),
                _ => self.state = State::Other,
            }
        }
    }

    /// Whether it is a whole object with data.
    pub fn has_data(&self) -> bool {
        self.state == State::After && self.has_data
    }

    /// Whether it begins as an object and does not end.
    pub fn is_cut_off(&self) -> bool {
        self.state == State::Inside
    }

    /// Tokens of the prompt, by the server.
    pub fn prompt_tokens(&self) -> Option<u64> {
        let Usage { prompt_tokens } = serde_json::from_slice(&self.usage).ok()?;
        prompt_tokens.filter(|tokens| tokens.is_finite() && *tokens >= 0.0).map(|tokens| tokens as u64)
    }

    fn inside(&mut self, byte: u8) {
        if let Some(text) = self.string {
            let ends = byte == b'"' && !self.is_escaped;
            self.is_escaped = byte == b'\\' && !self.is_escaped;
            match text {
                Text::Name if !ends => keep(&mut self.field, byte),
                Text::Name => {}
                Text::Value => self.keep_usage(byte),
            }
            if ends {
                self.string = None;
            }
            return;
        }
        match byte {
            b'"' if self.depth == 1 && !self.in_value => {
                self.field.clear();
                self.string = Some(Text::Name);
            }
            b'"' => {
                self.keep_usage(byte);
                self.string = Some(Text::Value);
            }
            b':' if self.depth == 1 => {
                self.in_value = true;
                self.has_data |= self.field == DATA;
            }
            b',' if self.depth == 1 => self.in_value = false,
            b'}' | b']' => {
                self.depth -= 1;
                if self.depth == 0 {
                    self.state = State::After;
                } else {
                    self.keep_usage(byte);
                }
            }
            _ => {
                self.depth += usize::from(matches!(byte, b'{' | b'['));
                self.keep_usage(byte);
            }
        }
    }

    fn keep_usage(&mut self, byte: u8) {
        if self.in_value && self.field == USAGE {
            keep(&mut self.usage, byte);
        }
    }
}

fn keep(text: &mut Vec<u8>, byte: u8) {
    if text.len() < LONGEST {
        text.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> (bool, bool, Option<u64>) {
        let mut body = WholeBody::default();
        pieces.iter().for_each(|piece| body.push(piece));
        (body.has_data(), body.is_cut_off(), body.prompt_tokens())
    }

    #[test]
    fn data_and_token_counts_are_found_wherever_the_reads_end() {
        let text =
            br#" {"id":"a \"usage\":{}","data":[{"usage":{"prompt_tokens":9},"embedding":[0.5,-1e-3]}],"model":"}",
            "usage":{"prompt_tokens":7,"total_tokens":7,"details":{"cached":[1,2]}},"x":null} "#;
        assert_eq!(read(&[text]), (true, false, Some(7)));
        assert_eq!(read(&text.chunks(1).collect::<Vec<_>>()), (true, false, Some(7)));
        for cut in 0..text.len() {
            assert_eq!(read(&[&text[..cut], &text[cut..]]), (true, false, Some(7)), "cut at byte {cut}");
        }
    }

    #[test]
    fn what_is_not_a_whole_object_with_data_is_known() {
        for (text, expected) in [
            (r#"{"data":[]}"#, (true, false, None)),
            (r#"{"data":[1,2"#, (false, true, None)),
            (r#"{"error":{"message":"data"}}"#, (false, false, None)),
            (r#"{"data":[],"usage":null}"#, (true, false, None)),
            (r#"{"data":[],"usage":{"prompt_tokens":-1}}"#, (true, false, None)),
            (r#"[{"data":1}]"#, (false, false, None)),
            (r#"{"data":1} x"#, (false, false, None)),
            (r#"{"a":{"data":1}}"#, (false, false, None)),
            ("<html>", (false, false, None)),
            ("", (false, false, None)),
            ("}", (false, false, None)),
        ] {
            assert_eq!(read(&[text.as_bytes()]), expected, "{text}");
        }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut body = WholeBody::default();
        body.push(br#"{""#);
        body.push(&[b'n'; 1 << 20]);
        body.push(br#"":1,"usage":{""#);
        body.push(&[b'u'; 1 << 20]);
        assert!(body.field.len() <= LONGEST && body.usage.len() <= LONGEST);
    }
}
