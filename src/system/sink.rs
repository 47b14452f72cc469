//! Everything that this process prints goes through here: no text becomes a command of a CI log or of a terminal, and no
//! secret of the environment is shown.

use std::io::Write;
use std::sync::Arc;

use crate::ci::log_text::{harmless, harmless_json};
use crate::environment::{Environment, Secret};

/// What is printed in place of a secret.
const HIDDEN: &str = "***";

/// Standard output and standard error.
#[derive(Debug, Clone, Default)]
pub struct Sink {
    /// The longest first: one may be a part of another.
    secrets: Arc<[Secret]>,
}

impl Sink {
    /// A sink that hides the secrets of `environment`.
    pub fn new(environment: &Environment) -> Self {
        Self { secrets: environment.secrets().into() }
    }

    /// The text as it is printed: without secrets, and with nothing that is a command.
    pub fn shown(&self, text: &str) -> String {
        // Secrets first: a secret with a control character is not itself afterwards.
        harmless(&self.without_secrets(text))
    }

    /// Prints a text to standard output, and a line end where it has none. A closed pipe is not an error.
    pub fn out(&self, text: &str) {
        write_line(std::io::stdout().lock(), &self.shown(text));
    }

    /// Prints JSON to standard output, with the same meaning.
    pub fn out_json(&self, json: &str) {
        write_line(std::io::stdout().lock(), &harmless_json(&self.without_secrets(json)));
    }

    /// Prints a text to standard error, and a line end where it has none.
    pub fn err(&self, text: &str) {
        write_line(std::io::stderr().lock(), &self.shown(text));
    }

    /// Prints workflow commands of this program to standard output: the texts in them are escaped already.
    pub fn out_commands(&self, commands: &str) {
        write_line(std::io::stdout().lock(), &self.without_secrets(commands));
    }

    /// Prints a command of this program to standard error, such as the beginning of a group.
    pub fn err_command(&self, command: &str) {
        write_line(std::io::stderr().lock(), &self.without_secrets(command));
    }

    fn without_secrets(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret.expose(), HIDDEN))
    }
}

fn write_line(mut stream: impl Write, text: &str) {
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let _ = stream.write_all(format!("{text}{end}").as_bytes());
    let _ = stream.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_wherever_they_are_and_nothing_is_a_command() {
        let environment: Environment = [
            ("GITHUB_TOKEN", "ghs_canary123"),
            ("LONGER_TOKEN", "ghs_canary123-and-more"),
            ("MY_PROXY", "http://me:pa55word@proxy:8080"),
            ("DEPLOY_KEY", "-----BEGIN KEY-----\nc2VjcmV0LWxpbmU=\n-----END KEY-----"),
            ("PATH", "/usr/bin"),
        ]
        .into_iter()
        .collect();
        let sink = Sink::new(&environment);
        let text = "a ghs_canary123-and-more b ghs_canary123 pa55word\nc2VjcmV0LWxpbmU= /usr/bin\n::add-mask::x\x1b]x";
        assert_eq!(sink.shown(text), "a *** b *** ***\n*** /usr/bin\n: :add-mask::x\\x1b]x");
        assert_eq!(sink.shown("::ghs_canary123::x\nghs_canary123::y"), ": :***::x\n***::y");
        assert!(!format!("{sink:?}").contains("canary"));
    }
}
