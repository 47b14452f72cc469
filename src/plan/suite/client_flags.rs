//! What the client of a suite may not be told: requests go to the server under test only, and a suite sets no header that
//! names another server or a login. The same for the native client and for `vllm bench serve`.

use anyhow::{bail, ensure};
use url::Url;

/// Headers that a suite may not set: those with a login, those that name a server, and those that frame a request.
const REFUSED_HEADERS: [&str; 11] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "cookie2",
    "forwarded",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Beginnings of such headers.
const REFUSED_BEGINNINGS: [&str; 2] = ["proxy-", "x-forwarded-"];

/// A flag of a command line with one of its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlagValue<'a> {
    /// As it is spelled; empty for values before the first flag.
    pub flag: &'a str,
    pub value: &'a str,
}

/// The values of a command line, each with the flag before it.
pub fn values(words: &[String]) -> Vec<FlagValue<'_>> {
    let mut flag = "";
    let mut values = Vec::new();
    for word in words {
        if !word.starts_with('-') || word.parse::<f64>().is_ok() {
            values.push(FlagValue { flag, value: word });
            continue;
        }
        match word.split_once('=') {
            Some((name, value)) => {
                flag = name;
                values.push(FlagValue { flag, value });
            }
            None => {
                flag = word;
                // `-O3`, `-cc{...}`: a short flag with its value.
                let value =
                    word.trim_start_matches('-').trim_start_matches(|letter: char| letter.is_ascii_alphabetic());
                if !word.starts_with("--") && !value.is_empty() {
                    values.push(FlagValue { flag, value });
                }
            }
        }
    }
    values
}

/// Whether `flag` can be read as `--name`: Python's argparse takes every unambiguous beginning of a flag, and vLLM's takes
/// `_` for `-`.
pub fn is_flag(flag: &str, name: &str) -> bool {
    let spelled = flag.replace('_', "-");
    spelled.strip_prefix("--").is_some_and(|beginning| !beginning.is_empty() && name.starts_with(beginning))
}

/// Checks the words of `client_parameters`.
///
/// # Errors
/// A word that would send requests elsewhere, or a header that a suite may not set; the text names the flag.
pub fn check(words: &[String]) -> anyhow::Result<()> {
    ensure!(!words.iter().any(|word| word == "--"), "`--` ends the flags: the server's address comes after them");
    for FlagValue { flag, value } in values(words) {
        if is_flag(flag, "endpoint") {
            check_endpoint(flag, value)?;
        }
        if is_flag(flag, "header") {
            check_header(flag, value)?;
        }
    }
    Ok(())
}

fn check_endpoint(flag: &str, endpoint: &str) -> anyhow::Result<()> {
    let refused = |why: &str| format!("`{flag} {endpoint}` {why}: requests go to the server under test only");
    ensure!(endpoint.starts_with('/'), refused("does not begin with `/`"));
    let plain = |c: char| c.is_ascii_graphic() && c != '\\';
    ensure!(endpoint.chars().all(plain), refused("has a character that a URL cannot have"));
    // As the clients join them: a text after a text.
    let joined = Url::parse(&format!("http://server.invalid:1{endpoint}"));
    let same = joined.is_ok_and(|url| &url[..url::Position::BeforePath] == "http://server.invalid:1");
    ensure!(same, refused("is not a path"));
    Ok(())
}

fn check_header(flag: &str, header: &str) -> anyhow::Result<()> {
    let name = header.split(['=', ':']).next().unwrap_or_default().trim().to_ascii_lowercase().replace('_', "-");
    let refused = REFUSED_HEADERS.contains(&name.as_str())
        || REFUSED_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning));
    if refused || header.contains(char::is_control) {
        bail!("`{flag} {name}=...`: a suite may not set this header");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<(), String> {
        check(&shell_words::split(text).unwrap()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn an_endpoint_of_a_suite_is_a_path_on_the_server_under_test() {
        for endpoint in ["/v1/completions", "/v1/chat/completions?a=b", "/a@b:80/c", "//double/completions"] {
            assert_eq!(checked(&format!("--backend vllm --endpoint {endpoint} --seed 1")), Ok(()), "{endpoint}");
        }
        for flags in [
            "--endpoint @127.0.0.1:9/v1/completions",
            "--endpoint=.evil.example/v1/completions",
            "--endpoint :80@evil.example/completions",
            "--endpoint http://evil.example/completions",
            "--endpoint 0/completions",
            "--endpoi @evil.example/completions",
            "--endpoint_ok 1 --endpoint ''",
            "--endpoint '/a b/completions'",
            "--endpoint '/\\evil/completions'",
            "--endpoint /v1/completions --endpoint @evil.example/completions",
            "--endpoint '/v1\n/completions'",
            "--seed 1 -- --endpoint",
        ] {
            assert!(checked(flags).is_err(), "{flags}");
        }
        insta::assert_snapshot!(checked("--endpoint @h:1/v1/completions").unwrap_err(), @"`--endpoint @h:1/v1/completions` does not begin with `/`: requests go to the server under test only");
    }

    #[test]
    fn a_suite_sets_no_header_with_a_login_or_a_server() {
        assert_eq!(checked("--header X-Run=1 x-team=perf Accept-Language=en --seed -1"), Ok(()));
        for header in [
            "Authorization=Bearer x",
            "AUTHORIZATION=x",
            "x-run=1 Host=evil.example",
            "cookie=a=b",
            "Proxy-Authorization=x",
            "proxy-connection=x",
            "' Authorization =x'",
            "Transfer-Encoding=chunked",
            "'X-Run=1\r\nAuthorization: x'",
            "Authorization:x",
        ] {
            assert!(checked(&format!("--header {header} --seed 1")).is_err(), "{header}");
            assert!(checked(&format!("--head {header}")).is_err(), "{header}");
        }
        assert!(checked("--header=Authorization=x").is_err());
        insta::assert_snapshot!(checked("--header Host=x").unwrap_err(), @"`--header host=...`: a suite may not set this header");
    }
}
