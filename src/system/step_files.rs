//! The files of a GitHub Actions step: the job summary and the outputs.
//! Source: the runner's FileCommandManager.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, anyhow, bail};

use crate::exit::Classify;
use crate::system::delivery::Delivery;

/// Most bytes of a job summary: the runner drops a larger one completely.
const SUMMARY_LIMIT: u64 = 1024 * 1024;

/// Appends to the job summary. A text with which the runner would drop the whole summary is left out.
/// Errors: the file cannot be written.
pub fn append_summary(path: &Path, text: &str) -> anyhow::Result<Delivery> {
    let there = fs::metadata(path).map_or(0, |metadata| metadata.len());
    let size = there + text.len() as u64 + 1;
    if size > SUMMARY_LIMIT {
        return Ok(Delivery::Left(format!(
            "the job summary would have {size} bytes; GitHub discards summaries over {SUMMARY_LIMIT}"
        )));
    }
    append(path, &format!("{text}\n")).context("cannot write the job summary").world()?;
    Ok(Delivery::Done(format!("{} bytes", text.len())))
}

/// Appends step outputs. Errors: the file cannot be written, or a name is invalid.
pub fn append_outputs(path: &Path, outputs: &[(&str, &str)]) -> anyhow::Result<()> {
    let delimiter = format!("ghadelimiter_{}", random_word()?);
    let entries = outputs
        .iter()
        .map(|(name, value)| output_entry(name, value, &delimiter))
        .collect::<anyhow::Result<String>>()
        .context("cannot set the step's outputs")?;
    append(path, &entries).context("cannot set the step's outputs").world()
}

fn append(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || OpenOptions::new().append(true).create(true).open(path)?.write_all(text.as_bytes());
    write().with_context(|| format!("cannot append to {}", path.display()))
}

/// One output of one line, in the form with a delimiter, in which a value may have any text.
fn output_entry(name: &str, value: &str, delimiter: &str) -> anyhow::Result<String> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) {
        bail!("`{name}` is not the name of an output: expected letters, digits, `-` and `_`");
    }
    // A step that prints it, or passes it on in the form of one line, must not pass on another output.
    if value.contains(char::is_control) || value.contains(delimiter) {
        bail!("the value of `{name}` has a line break or another control character");
    }
    Ok(format!("{name}<<{delimiter}\n{value}\n{delimiter}\n"))
}

/// 128 random bits in hexadecimal.
pub fn random_word() -> anyhow::Result<String> {
    let mut bits = [0; 16];
    let source = rustls::crypto::ring::default_provider().secure_random;
    source.fill(&mut bits).map_err(|_| anyhow!("cannot get random bits from the system")).world()?;
    Ok(format!("{:032x}", u128::from_be_bytes(bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_with_equal_signs_stays_one_output() {
        let file = tempfile::NamedTempFile::new().unwrap();
        append_outputs(file.path(), &[("verdict", "regressed"), ("note", "a=b<<c")]).unwrap();
        let text = fs::read_to_string(file.path()).unwrap();
        let delimiter = text.lines().next().unwrap().strip_prefix("verdict<<").unwrap();
        assert!(delimiter.starts_with("ghadelimiter_") && delimiter.len() == 45, "{delimiter}");
        assert_eq!(
            text,
            format!("verdict<<{delimiter}\nregressed\n{delimiter}\nnote<<{delimiter}\na=b<<c\n{delimiter}\n")
        );
    }

    #[test]
    fn neither_a_value_nor_a_name_can_start_another_output() {
        for value in ["x\nD\nverdict<<D", "x\r::set-output name=a::b", "a\u{85}b", "xDx"] {
            let error = output_entry("note", value, "D").unwrap_err().to_string();
            assert_eq!(error, "the value of `note` has a line break or another control character");
        }
        let error = output_entry("a=b", "x", "D").unwrap_err().to_string();
        assert_eq!(error, "`a=b` is not the name of an output: expected letters, digits, `-` and `_`");
    }

    #[test]
    fn a_text_that_makes_the_summary_too_large_is_left_out() {
        let file = tempfile::NamedTempFile::new().unwrap();
        append_summary(file.path(), "### first").unwrap();
        let outcome = append_summary(file.path(), &"x".repeat(1024 * 1024 - 10)).unwrap();
        assert_eq!(
            outcome,
            Delivery::Left(
                "the job summary would have 1048577 bytes; GitHub discards summaries over 1048576".to_owned()
            )
        );
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "### first\n");
    }

    #[test]
    fn two_random_words_differ() {
        assert_ne!(random_word().unwrap(), random_word().unwrap());
    }
}
