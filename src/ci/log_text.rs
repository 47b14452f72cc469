//! Text for a log in which nobody's text is a command: neither a workflow command of GitHub or Azure, nor a group of
//! Buildkite, nor a control sequence of a terminal. Characters are shown, not removed: what is left of a removed sequence
//! could be another one.

use std::fmt::Write;

/// Beginnings of lines that open a group in Buildkite.
const GROUPS: [&str; 4] = ["--- ", "+++ ", "~~~ ", "^^^ "];

/// The text with control characters as text (`\x1b`) and with no command. A second call changes nothing. Lines end in `\n`.
pub fn harmless(text: &str) -> String {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut shown = String::with_capacity(text.len());
    for (index, line) in text.split('\n').enumerate() {
        if index > 0 {
            shown.push('\n');
        }
        harmless_line(line, &mut shown);
    }
    shown
}

/// One line: [`harmless`], with line ends as blanks.
pub fn harmless_title(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    harmless_line(&text.replace(['\r', '\n'], " "), &mut shown);
    shown
}

fn harmless_line(line: &str, shown: &mut String) {
    let mut plain = String::with_capacity(line.len());
    for letter in line.chars() {
        match letter {
            '\t' => plain.push(letter),
            // Writing to a `String` cannot fail.
            letter if letter.is_control() => {
                let _ = write!(plain, "\\x{:02x}", u32::from(letter));
            }
            letter if is_invisible(letter) => {
                let _ = write!(plain, "\\u{{{:x}}}", u32::from(letter));
            }
            letter => plain.push(letter),
        }
    }
    // Within a line, too: the runner finds these anywhere.
    let plain = plain.replace("##[", "## [").replace("##vso[", "## vso[");
    if GROUPS.iter().any(|group| plain.starts_with(group)) {
        shown.push_str("  ");
    }
    // The runner skips blanks before a command.
    let words = plain.trim_start();
    let (blanks, words) = plain.split_at(plain.len() - words.len());
    shown.push_str(blanks);
    match words.strip_prefix("::") {
        Some(rest) => {
            shown.push_str(": :");
            shown.push_str(rest);
        }
        None => shown.push_str(words),
    }
}

/// A JSON text that means the same and is [`harmless`]: what could be a command is inside its strings, and escaped there.
pub fn harmless_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for letter in json.chars() {
        match letter {
            '\n' | '\t' => shown.push(letter),
            letter if letter.is_control() || (is_invisible(letter) && letter <= '\u{ffff}') => {
                let _ = write!(shown, "\\u{:04x}", u32::from(letter));
            }
            letter => shown.push(letter),
        }
    }
    shown.replace("##[", "##\\u005b").replace("##vso[", "##vso\\u005b")
}

/// Characters that change the direction of text, or end a line in some programs.
fn is_invisible(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commands as GitHub's runner finds them, and control characters.
    fn is_obeyed(text: &str) -> bool {
        text.chars().any(|letter| letter.is_control() && !"\n\t".contains(letter))
            || text.split('\n').any(|line| {
                line.trim().starts_with("::")
                    || ["##[", "##vso["].iter().any(|command| line.contains(command))
                    || GROUPS.iter().any(|group| line.starts_with(group))
            })
    }

    const ATTACKS: [&str; 20] = [
        "::add-mask::x",
        "  \t::set-output name=a::b",
        "\u{a0}\u{3000}::error::x",
        "text ##[add-mask]x",
        "###[error]x",
        "##vso[task.setvariable variable=a]b",
        "a\r::error::x",
        "a\r\n::error::x",
        "a\u{85}::error::x",
        "a\u{2028}::error::x",
        "a\u{b}::error::x",
        "\u{feff}::error::x",
        "::stop-commands::token\n::token::\n::error::x",
        ":::error::x",
        "--- group\n+++ group\n~~~ group\n^^^ +++",
        "a\r--- group",
        "\x1b]1339;url=https://evil.example;content=x\x07",
        "\x1b\x1b]x\x07]1339;url=https://evil.example\x07",
        "\x1b\x1b_x\x1b\\_bk;t=1\x07",
        "\u{9d}1339;url=x\u{9c}\u{9f}bk;t=1\u{9c}\x00\x08\x7f",
    ];

    #[test]
    fn no_text_is_a_command_and_nothing_builds_one() {
        for attack in ATTACKS {
            let shown = harmless(attack);
            assert!(is_obeyed(attack) || attack.contains(['\u{feff}', '\u{2028}']), "not an attack: {attack:?}");
            assert!(!is_obeyed(&shown), "{attack:?}: {shown:?}");
            assert_eq!(harmless(&shown), shown, "{attack:?}");
            let title = harmless_title(attack);
            assert!(!is_obeyed(&title) && !title.contains('\n'), "{attack:?}: {title:?}");
        }
        // Any two attacks within one another.
        for (outer, inner) in ATTACKS.iter().flat_map(|outer| ATTACKS.iter().map(move |inner| (outer, inner))) {
            for cut in (0..=outer.len()).filter(|cut| outer.is_char_boundary(*cut)) {
                let attack = format!("{}{inner}{}", &outer[..cut], &outer[cut..]);
                let shown = harmless(&attack);
                assert!(!is_obeyed(&shown) && harmless(&shown) == shown, "{attack:?}: {shown:?}");
            }
        }
    }

    #[test]
    fn what_is_no_command_stays_as_it_is() {
        for text in
            ["wrote a::b\n  rows: 3\n\tüñ 日本 ✓\n", "---------------Time---------------\n-- x", "# [a](b) ## c", ""]
        {
            assert_eq!(harmless(text), text);
        }
        assert_eq!(harmless("\x1b[31mred\x1b[0m ::x::"), "\\x1b[31mred\\x1b[0m ::x::");
    }

    #[test]
    fn json_keeps_its_meaning() {
        for attack in ATTACKS {
            let value = serde_json::json!({ attack: [attack] });
            for json in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                let shown = harmless_json(&json);
                assert!(!is_obeyed(&shown), "{shown:?}");
                assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
            }
        }
    }
}
