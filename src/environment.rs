//! The process environment as a value, and the secrets in it. `main` reads the environment once; nothing else does.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;

/// Environment variables, by name. An empty value counts as unset, as it does on every CI.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

/// What a word or a value lacks that is given to other programs, which would get another one.
pub const NOT_UTF8: &str = "is not UTF-8 text: rename the file or folder, or reach it by a link with another name";

/// Variables that are read here, and beginnings of their names.
const READ: [&str; 24] = [
    "VLLM_PERF_",
    "GITHUB_",
    "BUILDKITE",
    "HF_",
    "HOME",
    "PATH",
    "XDG_CACHE_HOME",
    "DOCKER_CONFIG",
    "SERVING_JSON",
    "LATENCY_JSON",
    "STARTUP_JSON",
    "THROUGHPUT_JSON",
    "TEST_SELECTOR",
    "MODEL_FILTER",
    "DTYPE_FILTER",
    "REMOTE_",
    "PROMPTS_PER_CONCURRENCY",
    "MIN_NUM_PROMPTS",
    "MAX_NUM_PROMPTS",
    "ENABLE_ADAPTIVE_CONCURRENCY",
    "SLA_",
    "ADAPTIVE_",
    "DRY_RUN",
    "ON_CPU",
];

impl Environment {
    /// The variables of a process. Those that are not UTF-8 text and are not read here are left out: a child would get
    /// another value.
    ///
    /// # Errors
    /// One that is read here is not UTF-8 text.
    pub fn of_process(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, String> {
        let mut read = BTreeMap::new();
        for (name, value) in variables {
            let Ok(name) = name.into_string() else { continue };
            match value.into_string() {
                Ok(value) => {
                    read.insert(name, value);
                }
                Err(value) if READ.iter().any(|beginning| name.starts_with(beginning)) => {
                    return Err(format!("{name}, `{}`, {NOT_UTF8}", value.to_string_lossy()));
                }
                Err(_) => {}
            }
        }
        Ok(Self(read))
    }

    /// Every variable, also the empty ones, sorted by name.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of `name`, or `None` where it is unset or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether `name` is set, even to an empty value.
    pub fn is_set(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Whether `name` is switched on.
    ///
    /// # Errors
    /// Its value is neither a yes nor a no.
    pub fn is_on(&self, name: &str) -> Result<bool, String> {
        match self.get(name).map(str::to_ascii_lowercase).as_deref() {
            None | Some("0" | "false" | "no" | "off") => Ok(false),
            Some("1" | "true" | "yes" | "on") => Ok(true),
            Some(other) => Err(format!("{name} must be 1 or 0, not `{other}`")),
        }
    }

    /// The value of `name` as a secret.
    pub fn secret(&self, name: &str) -> Option<Secret> {
        self.get(name).map(|value| Secret(value.to_owned()))
    }

    /// The values that are secret by the name of their variable, and the passwords in URLs: the longest first. A value of
    /// several lines is there with each of its lines. A child that gets any other variable with such a value gets a secret.
    pub fn secrets(&self) -> Vec<Secret> {
        let mut secrets: Vec<&str> = Vec::new();
        for (name, value) in self.iter() {
            if is_secret_name(name) {
                secrets.push(value);
                secrets.extend(value.lines().map(str::trim));
            }
            secrets.extend(password(value));
        }
        secrets.retain(|secret| secret.len() >= SHORTEST_SECRET && !secret.bytes().all(|byte| byte.is_ascii_digit()));
        secrets.sort_by(|one, other| other.len().cmp(&one.len()).then(one.cmp(other)));
        secrets.dedup();
        secrets.into_iter().map(|secret| Secret(secret.to_owned())).collect()
    }

    /// Every variable that is set, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).filter(|(_, value)| !value.is_empty())
    }
}

/// Shortest secret, in bytes: to hide a shorter text would hide words of sentences.
const SHORTEST_SECRET: usize = 8;

/// Parts of names of variables that hold secrets.
const SECRET_PARTS: [&str; 10] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "CREDENTIAL",
    "APIKEY",
    "ACCESSKEY",
    "PRIVATEKEY",
    "BEARER",
];

/// Words of such names, where a part would be found in harmless ones.
const SECRET_WORDS: [&str; 10] =
    ["KEY", "KEYS", "PAT", "AUTH", "AUTHORIZATION", "PASS", "JWT", "COOKIE", "SAS", "WEBHOOK"];

/// Last words of names whose values say where a secret is, or what it is about.
const HARMLESS_ENDS: [&str; 9] = ["FILE", "PATH", "DIR", "SOCK", "SOCKET", "NAME", "ENV", "TYPE", "COMMAND"];

/// Whether a variable of this name holds a secret.
pub fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let words: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    let last = words.last().copied().unwrap_or_default();
    // The name of a setting of git.
    let is_of_git = name.starts_with("GIT_CONFIG_KEY_");
    if is_of_git || HARMLESS_ENDS.contains(&last) || words.iter().any(|word| word.starts_with("TOKENIZER")) {
        return false;
    }
    let is_secret = |word: &str| SECRET_WORDS.contains(&word) || SECRET_PARTS.iter().any(|part| word.contains(part));
    let password = last == "PWD" && !matches!(name.as_str(), "PWD" | "OLDPWD");
    password || words.into_iter().any(is_secret)
}

/// The password in a URL.
fn password(value: &str) -> Option<&str> {
    let (_, rest) = value.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (login, _) = authority.rsplit_once('@')?;
    login.split_once(':').map(|(_, password)| password)
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// A token or password. It cannot be displayed, and its debug output is `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let environment: Environment = [("A", ""), ("B", "b")].into_iter().collect();
        assert_eq!(environment.get("A"), None);
        assert_eq!(environment.get("B"), Some("b"));
    }

    #[test]
    fn a_variable_that_is_no_text_is_never_changed() {
        use std::os::unix::ffi::OsStringExt;
        let of = |name: &str, value: &[u8]| {
            let variables = [(name.into(), OsString::from_vec(value.to_vec())), ("A".into(), "a".into())];
            Environment::of_process(variables.into_iter())
        };
        for name in ["VLLM_PERF_OUT", "HOME", "GITHUB_EVENT_PATH", "HF_HOME", "SERVING_JSON"] {
            let error = of(name, b"o-\xfc").unwrap_err();
            assert!(error.starts_with(&format!("{name}, `o-\u{fffd}`, is not UTF-8 text")), "{error}");
            assert_eq!(of(name, "o-\u{fc}".as_bytes()).unwrap().get(name), Some("o-\u{fc}"));
        }
        let other = of("LS_COLORS", b"\xfc").unwrap();
        assert_eq!((other.is_set("LS_COLORS"), other.get("A")), (false, Some("a")));
    }

    #[test]
    fn a_switch_is_on_or_off_and_nothing_else() {
        let read = |value: &str| [("DRY_RUN", value)].into_iter().collect::<Environment>().is_on("DRY_RUN");
        for (value, expected) in
            [("1", true), ("true", true), ("Yes", true), ("0", false), ("false", false), ("", false)]
        {
            assert_eq!(read(value), Ok(expected), "{value}");
        }
        assert_eq!(read("2").unwrap_err(), "DRY_RUN must be 1 or 0, not `2`");
        assert!(read("maybe").is_err());
    }

    #[test]
    fn secrets_are_found_by_their_variables_and_in_urls() {
        let environment: Environment = [
            ("GITHUB_TOKEN", "ghs_1234567"),
            ("AWS_SECRET_ACCESS_KEY", "aws/1234567"),
            ("aws_secret_access_key", "lower-case-1"),
            ("PGPASSWORD", "postgres-1"),
            ("DB_PWD", "database-1"),
            ("SLACK_WEBHOOK_URL", "https://hooks.example/T0/x"),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ey.1234567"),
            ("DATABASE_URL", "postgres://me:in-the-url@host/db"),
            ("SHORT_TOKEN", "abc"),
            ("MAX_TOKENS", "123456789"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/token"),
            ("SSH_AUTH_SOCK", "/tmp/ssh/agent"),
            ("TOKENIZERS_PARALLELISM", "falsefalse"),
            ("GITHUB_TOKEN_ENV", "MY_OWN_TOKEN"),
            ("PWD", "/home/runner/work"),
            ("PATH", "/usr/bin:/bin"),
            ("KEYBOARD", "german-layout"),
            ("GIT_CONFIG_KEY_0", "safe.directory"),
        ]
        .into_iter()
        .collect();
        let secrets: Vec<String> = environment.secrets().iter().map(|secret| secret.expose().to_owned()).collect();
        assert_eq!(
            secrets,
            [
                "https://hooks.example/T0/x",
                "lower-case-1",
                "aws/1234567",
                "ghs_1234567",
                "database-1",
                "ey.1234567",
                "in-the-url",
                "postgres-1",
            ]
        );
        assert_eq!(format!("{:?}", environment.secrets().first()), "Some(***)");
    }

    #[test]
    fn debug_output_of_secrets_and_of_the_environment_has_no_values() {
        let environment: Environment = [("GITHUB_TOKEN", "ghs_hidden")].into_iter().collect();
        let printed = format!("{environment:?} {:?}", environment.secret("GITHUB_TOKEN"));
        assert_eq!(printed, r#"["GITHUB_TOKEN"] Some(***)"#);
    }
}
