//! The chat template of a model: Jinja with the settings and functions of the `transformers` library.

use std::io;

use anyhow::{Context, Result, ensure};
use indexmap::IndexMap;
use minijinja::value::Kwargs;
use minijinja::{Environment, ErrorKind, Value};
use regex::Regex;
use serde::{Deserialize, Serialize};
use serde_json::Map;

/// Longest source of a template, in bytes: those of models have a few thousand.
const SOURCE_LIMIT: usize = 1 << 20;

/// Longest text that a template gives, in bytes.
const TEXT_LIMIT: usize = 64 << 20;

/// Instructions of one rendering: templates of models take a few thousand, and a loop without end ends within a second.
const INSTRUCTIONS: u64 = 1 << 20;

/// Calls of macros within one another. Each takes a part of the stack, which is 2 MiB on a thread of its own.
const CALL_DEPTH: usize = 100;

/// A template, and the special tokens that it can use.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    tokens: IndexMap<&'static str, String>,
}

/// The template of `tokenizer_config.json`: one, or several by name.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum NamedTemplates {
    /// One template.
    One(String),
    /// Several templates.
    Many(Vec<NamedTemplate>),
}

/// A template and its name.
#[derive(Debug, Deserialize)]
pub struct NamedTemplate {
    name: String,
    template: String,
}

impl NamedTemplates {
    /// The template that is used without a name.
    pub fn into_default(self) -> Option<String> {
        match self {
            Self::One(template) => Some(template),
            Self::Many(templates) => {
                templates.into_iter().find(|named| named.name == "default").map(|named| named.template)
            }
        }
    }
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

#[derive(Serialize)]
struct Variables<'a> {
    messages: [Message<'a>; 1],
    tools: (),
    documents: (),
    add_generation_prompt: bool,
    #[serde(flatten)]
    tokens: &'a IndexMap<&'static str, String>,
    #[serde(flatten)]
    variables: &'a Map<String, serde_json::Value>,
}

impl ChatTemplate {
    /// A template and the special tokens by role.
    pub fn new(source: String, tokens: IndexMap<&'static str, String>) -> Self {
        Self { source, tokens }
    }

    /// The text of one message of a user, up to the beginning of the answer. `variables` replace the variables that every
    /// template has.
    ///
    /// # Errors
    /// The template is malformed, it raises an error, or it needs more time or space than any template of a model.
    pub fn render(&self, message: &str, variables: &Map<String, serde_json::Value>) -> Result<String> {
        ensure!(self.source.len() <= SOURCE_LIMIT, "the template has more than {SOURCE_LIMIT} bytes");
        let source = without_generation(&self.source)?;
        let mut jinja = Environment::new();
        // The template may be that of a pull request.
        jinja.set_fuel(Some(INSTRUCTIONS));
        jinja.set_recursion_limit(CALL_DEPTH);
        jinja.set_trim_blocks(true);
        jinja.set_lstrip_blocks(true);
        jinja.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        jinja.add_function("raise_exception", |why: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, why))
        });
        jinja.add_function("strftime_now", |format: String| now(&format));
        jinja.add_filter("tojson", |value: Value, options: Kwargs| -> Result<String, minijinja::Error> {
            to_json(&value, options.get("indent")?)
        });
        let context = Variables {
            messages: [Message { role: "user", content: message }],
            tools: (),
            documents: (),
            add_generation_prompt: true,
            tokens: &self.tokens,
            variables,
        };
        // Through a value, so that a variable replaces one of the same name.
        let context = serde_json::to_value(context).context("cannot serialize the variables of the template")?;
        let mut text = BoundedText::default();
        let template = jinja.template_from_str(&source)?;
        let rendered = template.render_captured_to(context, &mut text).map(drop);
        ensure!(!text.exceeded, "the text of the template has more than {TEXT_LIMIT} bytes");
        rendered.map_err(anyhow::Error::from)?;
        String::from_utf8(text.bytes).context("the text of the template is not UTF-8")
    }
}

/// Takes at most [`TEXT_LIMIT`] bytes.
#[derive(Default)]
struct BoundedText {
    bytes: Vec<u8>,
    exceeded: bool,
}

impl io::Write for BoundedText {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.exceeded |= self.bytes.len() + bytes.len() > TEXT_LIMIT;
        if self.exceeded {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The template without the `generation` tags of `transformers`, which mark answers for training and have no output.
fn without_generation(source: &str) -> Result<String> {
    let tags = Regex::new(r"\{%(-?)\s*(end)?generation\s*(-?)%\}").context("cannot parse the tags of the template")?;
    Ok(tags
        .replace_all(source, |found: &regex::Captures<'_>| {
            let tag = if found.get(2).is_some() { "endif" } else { "if true" };
            format!("{{%{} {tag} {}%}}", &found[1], &found[3])
        })
        .into_owned())
}

#[expect(clippy::disallowed_methods, reason = "some templates contain the date")]
fn now(format: &str) -> String {
    jiff::Timestamp::now().strftime(format).to_string()
}

/// JSON in the format of Python: a space after each comma and colon.
fn to_json(value: &Value, indent: Option<usize>) -> Result<String, minijinja::Error> {
    let cannot = |error: serde_json::Error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string());
    let mut bytes = Vec::new();
    match indent {
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, PythonFormatter)),
        Some(width) => {
            let spaces = vec![b' '; width];
            let formatter = serde_json::ser::PrettyFormatter::with_indent(&spaces);
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))
        }
    }
    .map_err(cannot)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct PythonFormatter;

impl serde_json::ser::Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String> {
        let tokens = IndexMap::from([("bos_token", "<s>".to_owned())]);
        let variables = serde_json::from_str(r#"{"mood": {"brief": true, "calm": [1, 2]}}"#).unwrap();
        ChatTemplate::new(source.to_owned(), tokens).render(" What is up? ", &variables)
    }

    // The expected texts are those of apply_chat_template of transformers 5.19.
    #[test]
    fn templates_render_as_in_transformers() {
        let llama = "{{- bos_token }}{% for message in messages %}\n    {{- '<|' + message['role'] + '|>' + \
            message['content'] | trim }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|assistant|>' }}\n{%- endif %}\n";
        assert_eq!(render(llama).unwrap(), "<s><|user|>What is up?<|assistant|>");
        let methods = "{% set text = messages[0].content.strip() %}\n{% if text.startswith('What') and not tools %}\n  \
            {{ text.split(' ')[-1] }}{{ text.upper() }}\n{% endif %}\n";
        assert_eq!(render(methods).unwrap(), "  up?WHAT IS UP?\n");
        let loops = "{% for m in messages %}{% if loop.index0 > 0 %}{% break %}{% endif %}{% generation %}{{ m.role }}\
            {%- endgeneration -%}  {% endfor %}";
        assert_eq!(render(loops).unwrap(), "user");
        assert_eq!(render("{{ mood | tojson }}").unwrap(), r#"{"brief": true, "calm": [1, 2]}"#);
        assert_eq!(render("{{ strftime_now('%Y') | length }}{{ nothing }}{{ documents is none }}").unwrap(), "4True");
    }

    #[test]
    fn the_error_of_a_template_has_its_message_or_its_line() {
        let refused = format!("{:#}", render("{{ raise_exception('roles must alternate') }}").unwrap_err());
        assert!(refused.contains("roles must alternate"), "{refused}");
        let malformed = format!("{:#}", render("a\n{% if %}").unwrap_err());
        assert!(malformed.contains(":2)"), "{malformed}");
    }

    #[test]
    fn a_template_without_end_is_ended() {
        let begun = std::time::Instant::now();
        let nested = format!("{}x{}", "{% for a in range(90000) %}".repeat(9), "{% endfor %}".repeat(9));
        let long = format!("{{% for a in range(90000) %}}{}{{% endfor %}}", "x".repeat(10_000));
        let deep = format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000));
        for source in [
            nested.as_str(),
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
            "{% macro m() %}{% for i in range(9) %}{{ m() }}{% endfor %}{% endmacro %}{{ m() }}",
            "{% for a in range(90000) recursive %}{{ loop(range(90000)) }}{% endfor %}",
            "{{ 'x' * 99999999999 }}",
            &long,
            &deep,
            &"x".repeat(SOURCE_LIMIT + 1),
        ] {
            assert!(render(source).is_err(), "{}", &source[..source.len().min(80)]);
        }
        assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
    }
}
