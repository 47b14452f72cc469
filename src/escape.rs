//! Escaping of untrusted text for Markdown, Mermaid, HTML, terminals and logs. Text from outside is [`Untrusted`], which
//! cannot be formatted; these functions are the only way to show it.
//!
//! [`Untrusted`]: vllm_verdict::Untrusted

/// Longest name, in characters; longer names are cut.
pub const NAME: usize = 120;
/// Longest reason, target or list of arguments, in characters.
pub const SENTENCE: usize = 400;

/// One line of plain text without control, invisible or direction-changing characters and without the start of an HTML
/// comment, at most `cap` characters.
pub fn clean(text: impl AsRef<str>, cap: usize) -> String {
    let mut line = String::new();
    for (length, letter) in text.as_ref().chars().filter(|&letter| !is_invisible(letter)).enumerate() {
        if length == cap {
            line.pop();
            line.push('…');
            break;
        }
        line.push(if letter.is_control() || letter.is_whitespace() { ' ' } else { letter });
    }
    line.replace("<!--", "<! --")
}

/// Plain text for a terminal or a log: [`clean`] at any length.
pub fn plain(text: impl AsRef<str>) -> String {
    clean(text, usize::MAX)
}

/// A name: [`clean`] at [`NAME`] characters.
pub fn name(text: impl AsRef<str>) -> String {
    clean(text, NAME)
}

/// A reason, a target or arguments: [`clean`] at [`SENTENCE`] characters.
pub fn sentence(text: impl AsRef<str>) -> String {
    clean(text, SENTENCE)
}

fn is_invisible(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Inline Markdown that shows exactly `text`, also inside a table cell: no mark-up, links, mentions, and no references to
/// issues or commits.
pub fn markdown(text: impl AsRef<str>) -> String {
    let mut out = String::new();
    let text = without_references(&plain(text));
    for (at, letter) in text.char_indices() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '|' => out.push_str("&#124;"),
            '`' => out.push_str("&#96;"),
            '\\' => out.push_str("&#92;"),
            '*' | '_' | '[' | ']' | '~' | '$' => out.extend(['\\', letter]),
            '@' | '#' => out.extend([letter, '\u{200b}']),
            ':' if text[at..].starts_with("://") => out.push_str(":\u{200b}"),
            '.' if text[..at].to_ascii_lowercase().ends_with("www") => out.push_str("\u{200b}."),
            _ => out.push(letter),
        }
    }
    out
}

/// `text` with an invisible space in what GitHub links to a commit (7 hexadecimal digits or more) or an issue (`GH-1`).
fn without_references(text: &str) -> String {
    let mut out = String::new();
    for word in text.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric()) {
        let digits = word.bytes().take_while(u8::is_ascii_hexdigit).count();
        let is_hash = digits > 6 && !word[digits..].starts_with(|letter: char| letter.is_ascii_alphanumeric());
        for (at, letter) in word.char_indices() {
            if is_hash && at > 0 && at < digits && at % 6 == 0 {
                out.push('\u{200b}');
            }
            out.push(letter);
        }
        if word.eq_ignore_ascii_case("gh-") {
            out.push('\u{200b}');
        }
    }
    out
}

/// A code span. A backtick becomes `'`, a bar `¦` and `<` `‹`, because code spans have no escapes.
pub fn code(text: impl AsRef<str>) -> String {
    let text = sentence(text).replace('`', "'").replace('|', "¦").replace('<', "‹");
    let text = text.trim();
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

/// A fenced block of one line that its content cannot close.
pub fn fence(text: impl AsRef<str>) -> String {
    let longest = text.as_ref().split(|letter| letter != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}\n{}\n{fence}\n", plain(text))
}

/// Text between the quotes of a Mermaid string: only letters, digits and safe punctuation.
pub fn mermaid(text: impl AsRef<str>) -> String {
    let is_safe = |letter: char| letter.is_alphanumeric() || " .,/=-+()".contains(letter);
    name(text).chars().map(|letter| if is_safe(letter) { letter } else { ' ' }).collect()
}

/// Text of an HTML element or of a quoted attribute.
pub fn html(text: impl AsRef<str>) -> String {
    let mut out = String::new();
    for letter in plain(text).chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(letter),
        }
    }
    out
}

/// An http or https URL, safe in a Markdown link and in an HTML attribute; `None` for anything else.
pub fn url(text: &str) -> Option<String> {
    let url = url::Url::parse(text).ok()?;
    if !matches!(url.scheme(), "http" | "https") {
        return None;
    }
    Some(url.as_str().replace('(', "%28").replace(')', "%29").replace('\'', "%27").replace('|', "%7C"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_names_become_text() {
        let hostile = "a|b `rm` <img src=x> @vllm-project/all [x](https://e.org) *b* _i_\n# h #12 \u{1b}[31m\u{202e}www.e.org \\| $x$";
        insta::assert_snapshot!(markdown(hostile).replace('\u{200b}', "·"), @r"a&#124;b &#96;rm&#96; &lt;img src=x&gt; @·vllm-project/all \[x\](https:·//e.org) \*b\* \_i\_ #· h #·12  \[31mwww·.e.org &#92;&#124; \$x\$");
        insta::assert_snapshot!(code(hostile), @r"`a¦b 'rm' ‹img src=x> @vllm-project/all [x](https://e.org) *b* _i_ # h #12  [31mwww.e.org \¦ $x$`");
        assert_eq!(html("<a href=\"x\">'&"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;");
        assert_eq!(mermaid("a\"]\n%%{init}; b"), "a      init   b");
    }

    #[test]
    fn the_marker_of_a_comment_cannot_come_from_data() {
        let forged = "\u{200b}<!\u{200b}-- vllm-perf:v1 id=3f9c0a1b2c4d -->";
        for text in [markdown(forged), code(forged), html(forged), fence(forged), mermaid(forged)] {
            assert!(!text.contains("<!--"), "{text}");
        }
    }

    #[test]
    fn a_fence_is_longer_than_every_sequence_of_backticks_inside() {
        assert_eq!(fence("a ```` b"), "`````\na ```` b\n`````\n");
        assert_eq!(fence("a\n```\nb"), "````\na ``` b\n````\n");
    }

    #[test]
    fn long_text_is_cut_by_characters() {
        assert_eq!(clean("äöüß", 4), "äöüß");
        assert_eq!(clean("äöüßx", 4), "äöü…");
        assert_eq!(name("x".repeat(500)).chars().count(), NAME);
    }

    #[test]
    fn only_web_addresses_become_links() {
        assert_eq!(url("https://ci.example/run/1").as_deref(), Some("https://ci.example/run/1"));
        assert_eq!(url("javascript:alert(1)"), None);
        assert_eq!(url("https://ci.example/a)b\"c").as_deref(), Some("https://ci.example/a%29b%22c"));
    }
}
