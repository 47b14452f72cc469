//! Which words of a suite's command lines name files: of any flag, also those that a later vLLM has.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Flags whose values are not files although they may look like one.
const NOT_FILES: [&str; 10] = [
    "--chat-template-kwargs",
    "--endpoint",
    "--extra-body",
    "--header",
    "--label",
    "--metadata",
    "--request-id-prefix",
    "--request-rate",
    "--root-path",
    "--served-model-name",
];

/// What a URL begins with that names no file of this machine.
const REMOTE: [&str; 7] = ["http", "https", "s3", "gs", "az", "hf", "tcp"];

/// What can stand before and after a path in a value.
const SEPARATORS: [char; 12] = ['=', ',', ';', ' ', '\n', '\t', '"', '\'', '[', ']', '{', '}'];

/// The paths in a value of `flag`: what begins like a path, and what is one from the current folder. A value may have
/// several parts (`name=PATH`, `PATH,PATH`), be JSON, or be a URL of a file.
pub fn paths(flag: &str, value: &str) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    if !NOT_FILES.contains(&flag.replace('_', "-").as_str()) {
        collect(value, &mut paths);
    }
    paths
}

fn collect(value: &str, paths: &mut Vec<PathBuf>) {
    match serde_json::from_str(value) {
        Ok(json @ (Value::Object(_) | Value::Array(_) | Value::String(_))) => leaves(&json, paths),
        // Python's readers take JSON that this one refuses, and an escape in it could hide a path.
        _ if value.contains(['{', '[']) && value.contains('\\') => paths.push(Path::new("/").join(value)),
        _ => {
            // As a whole, too: a name may have any of these characters.
            let parts = value.split(SEPARATORS).chain(value.split("::")).chain([value]);
            let parts = parts.chain(value.split([':', '=']).filter(|_| !value.contains("://")));
            parts.filter_map(path).for_each(|path| {
                if !paths.contains(&path) {
                    paths.push(path);
                }
            });
        }
    }
}

fn leaves(json: &Value, paths: &mut Vec<PathBuf>) {
    match json {
        Value::String(text) => collect(text, paths),
        Value::Array(all) => all.iter().for_each(|json| leaves(json, paths)),
        Value::Object(all) => all.iter().for_each(|(key, json)| {
            collect(key, paths);
            leaves(json, paths);
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn path(text: &str) -> Option<PathBuf> {
    let text = text.trim();
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (scheme.rsplit([':', '+']).next().unwrap_or(scheme).to_ascii_lowercase(), rest),
        None => match text.get(..5) {
            Some(beginning) if beginning.eq_ignore_ascii_case("file:") => ("file".to_owned(), &text[5..]),
            _ => (String::new(), text),
        },
    };
    if REMOTE.contains(&scheme.as_str()) || rest.is_empty() {
        return None;
    }
    // A URL of a file on another host, or with `%`, is read in more than one way: it lies nowhere that is allowed.
    if !scheme.is_empty() && (!rest.starts_with('/') || rest.contains('%')) {
        return Some(Path::new("/").join(rest));
    }
    let path = Path::new(rest);
    let begins = rest.starts_with(['/', '~']) || rest.starts_with("./");
    let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
    (begins || climbs || !scheme.is_empty() || path.symlink_metadata().is_ok()).then(|| match rest.strip_prefix('~') {
        // Python's `expanduser`: the home folder of a user, which no suite lies in.
        Some(rest) => Path::new("/~").join(rest.trim_start_matches('/')),
        None => path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(flag: &str, value: &str) -> Vec<String> {
        paths(flag, value).iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn a_path_is_found_in_every_form_that_a_flag_takes() {
        let environ = "/proc/self/environ";
        for value in [
            "/proc/self/environ",
            "file:///proc/self/environ",
            "FILE:///proc/self/environ",
            "file:/proc/self/environ",
            "local:///proc/self/environ",
            "simplecache::file:///proc/self/environ",
            "lora=/proc/self/environ",
            "a=/x,b=/proc/self/environ",
            r#"{"name": "a", "path": "/proc/self/environ"}"#,
            r#"{"name": "a", "path": "\u002fproc/self/environ"}"#,
            r#"[{"a": {"b": ["/proc/self/environ"]}}]"#,
            "{name: a, path: /proc/self/environ}",
            r#"{"a": "file:///proc/self/environ"}"#,
            "name:/proc/self/environ",
        ] {
            for flag in ["", "--dataset-path", "--lora_modules", "--a-flag-of-tomorrow", "--conf"] {
                assert!(
                    found(flag, value).iter().any(|path| path == environ),
                    "{flag} {value}: {:?}",
                    found(flag, value)
                );
            }
        }
        for value in ["~/.netrc", "~root/.netrc", "../x", "a/../../x", "./x", "Cargo.toml"] {
            assert!(!found("--model", value).is_empty(), "{value}");
        }
    }

    #[test]
    fn names_numbers_and_remote_places_are_no_paths() {
        for value in [
            "meta-llama/Llama-3.1-8B",
            "8",
            "inf",
            "0.9",
            "auto",
            "hf://datasets/a/b",
            "https://h/x",
            "s3://b/k",
            r#"{"mode": 3}"#,
        ] {
            assert_eq!(found("--model", value), [""; 0], "{value}");
        }
        assert_eq!(found("--endpoint", "/v1/completions"), [""; 0]);
    }
}
