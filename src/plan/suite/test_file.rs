//! The test files: the names of those of a device, and the tests in their texts. `system/suite_folder.rs` reads them.

use std::collections::HashSet;

use anyhow::{Context, anyhow, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Number, Value};
use vllm_verdict::case::Kind;
use vllm_verdict::v1::{DeviceName, Skipped};

use crate::environment::Environment;
use crate::plan::suite::parameters::{self, Parameters};
use crate::plan::suite::strict_json::{self, DuplicatedKey};

/// A test file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuiteFile {
    pub kind: Kind,
    /// For messages.
    pub path: String,
    pub text: String,
}

/// The file of one kind of test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName {
    pub kind: Kind,
    /// Relative to the suite's folder, the first that exists counts. There is at least one.
    pub names: Vec<String>,
    /// The variable that names the file, in place of upstream's name.
    pub variable: Option<&'static str>,
}

/// The file of every kind, in upstream's order: as `SERVING_JSON` and the like name it, else `<kind>-tests<suffix>.json`.
/// Where upstream's script has no suffix for a device, `<kind>-tests.json` is read if there is no file with the suffix.
pub fn file_names(env: &Environment, device: DeviceName) -> Vec<FileName> {
    let file = |kind: Kind| {
        let variable = match kind {
            Kind::Serving => "SERVING_JSON",
            Kind::Latency => "LATENCY_JSON",
            Kind::Startup => "STARTUP_JSON",
            Kind::Throughput => "THROUGHPUT_JSON",
        };
        match env.get(variable) {
            Some(name) => FileName { kind, names: vec![name.to_owned()], variable: Some(variable) },
            None => {
                let name = |suffix: &str| format!("{}-tests{suffix}.json", kind.as_str());
                let mut names = vec![name(device.suite_suffix())];
                if matches!(device, DeviceName::Rocm | DeviceName::Xpu) {
                    names.push(name(""));
                }
                FileName { kind, names, variable: None }
            }
        }
    };
    Kind::ALL.map(file).to_vec()
}

/// One test of a file, defaults merged in.
#[derive(Debug)]
pub(super) struct Test {
    path: String,
    pub name: String,
    pub kind: Kind,
    pub model: String,
    /// `server_parameters` of a serving test, `parameters` of the others.
    pub parameters: Parameters,
    /// Variables of the server, or of the whole benchmark.
    pub env: Parameters,
    /// Serving tests only.
    pub load: Option<Load>,
}

/// The load of a serving test.
#[derive(Debug)]
pub(super) struct Load {
    pub client: Parameters,
    /// Request rates, as texts.
    pub rates: Vec<String>,
    concurrencies: Option<Vec<u64>>,
}

impl Test {
    /// File and test, for messages.
    pub fn place(&self) -> String {
        place(&self.path, &self.name)
    }

    /// The field that holds `parameters`.
    pub fn section(&self) -> &'static str {
        if self.load.is_some() { "server_parameters" } else { "parameters" }
    }
}

impl Load {
    /// The concurrencies of the file, or else the number of prompts as the only one.
    pub fn concurrencies(&self) -> anyhow::Result<Vec<u64>> {
        if let Some(list) = &self.concurrencies {
            return Ok(list.clone());
        }
        match parameters::value(&self.client, "num_prompts").and_then(Value::as_u64) {
            Some(prompts) if prompts > 0 => Ok(vec![prompts]),
            _ => bail!("`max_concurrency_list` is missing, and so is `client_parameters.num_prompts`, its default"),
        }
    }
}

fn place(path: &str, test: &str) -> String {
    format!("{path}: test `{test}`")
}

/// A test that breaks a rule.
#[derive(Debug)]
pub(super) struct Broken {
    /// Its name, where it has one.
    pub name: String,
    /// File, test and field, and what is wrong.
    pub why: anyhow::Error,
}

impl Broken {
    /// For the plan and the report.
    pub fn skipped(self) -> Skipped {
        let why = format!("{:#}", self.why);
        Skipped::invalid(self.name, why.chars().take(SHOWN_REASON).collect::<String>())
    }
}

/// Most characters of a reason, which quotes the file.
const SHOWN_REASON: usize = 1000;

/// Most characters of a name that breaks a rule.
const SHOWN_NAME: usize = 180;

/// The tests of `file`, in its order. One that breaks a rule is lost alone; where `defaults` break one, so are all.
pub(super) fn tests(file: &SuiteFile) -> anyhow::Result<Vec<Result<Test, Broken>>> {
    let path = &file.path;
    let (content, duplicated) = strict_json::parse(path, &file.text)?;
    let Content { tests, defaults, unknown, place } = content_of(file, content, &duplicated)?;
    refuse_foreign_format(path, &tests)?;
    let mut names = HashSet::new();
    let parsed = tests.into_iter().enumerate().map(|(index, value)| {
        let name = name(index, &value);
        let parse = || {
            let place = [place.as_slice(), &[index.to_string()]].concat();
            if let Some(twice) = duplicated_in(&duplicated, &place) {
                bail!("{}: {twice}", self::place(path, &name));
            }
            let defaults = defaults.as_ref().map_err(|why| anyhow!("{why}"))?;
            let test = self::test(file, index, value, defaults)?;
            let unique = names.insert(test.name.clone());
            ensure!(unique, "{}: `test_name` is duplicated: names must be unique", test.place());
            Ok(test)
        };
        parse().map_err(|why| Broken { name: name.clone(), why })
    });
    let unknown = unknown.map(|why| Err(Broken { name: file.kind.as_str().to_owned(), why }));
    Ok(parsed.chain(unknown).collect())
}

/// What a test file holds.
struct Content {
    tests: Vec<Value>,
    /// Or what is wrong with them.
    defaults: Result<Serving, String>,
    /// Why a key beside `defaults` and `tests` is wrong.
    unknown: Option<anyhow::Error>,
    /// Where the tests are in the file.
    place: Vec<String>,
}

fn content_of(file: &SuiteFile, content: Value, duplicated: &[DuplicatedKey]) -> anyhow::Result<Content> {
    let path = &file.path;
    let object = match (content, file.kind) {
        (Value::Array(tests), _) => {
            return Ok(Content { tests, defaults: Ok(Serving::default()), unknown: None, place: Vec::new() });
        }
        (Value::Object(object), Kind::Serving) => object,
        (_, Kind::Serving) => bail!("{path}: expected an array of tests, or an object with `defaults` and `tests`"),
        _ => bail!("{path}: expected an array of tests"),
    };
    if let Some(twice) = duplicated.iter().find(|it| it.place.is_empty()) {
        bail!("{path}: the key `{}` is duplicated", twice.key);
    }
    let mut fields = Fields { place: path.clone(), object };
    let defaults = fields.optional("defaults", "an object");
    let tests = fields.required("tests", "an array of tests")?;
    let unknown = fields.finish(&["defaults", "tests"]).err();
    let defaults = defaults.and_then(|defaults| {
        let mut defaults = Fields { place: format!("{path}: `defaults`"), object: defaults.unwrap_or_default() };
        if let Some(twice) = duplicated_in(duplicated, &["defaults".to_owned()]) {
            bail!("{}: {twice}", defaults.place);
        }
        let merged = Serving::take(&mut defaults)?;
        defaults.finish(Serving::FIELDS).map(|()| merged)
    });
    let place = vec!["tests".to_owned()];
    Ok(Content { tests, defaults: defaults.map_err(|why| format!("{why:#}")), unknown, place })
}

/// The sentence for the first duplicated key at or below `place`.
fn duplicated_in(duplicated: &[DuplicatedKey], place: &[String]) -> Option<String> {
    let found = duplicated.iter().find(|it| it.place.starts_with(place))?;
    let inside = found.place.get(place.len()..).unwrap_or_default();
    let object = if inside.is_empty() { String::new() } else { format!(" in `{}`", inside.join(".")) };
    Some(format!("the key `{}` is duplicated{object}", found.key))
}

/// The name of a test for messages; its position where it has none.
fn name(index: usize, test: &Value) -> String {
    let name = test.get("test_name").and_then(Value::as_str).map(|name| {
        let plain = |c: char| if c.is_control() { '?' } else { c };
        name.chars().take(SHOWN_NAME).map(plain).collect::<String>()
    });
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("test {}", index + 1))
}

fn test(file: &SuiteFile, index: usize, test: Value, defaults: &Serving) -> anyhow::Result<Test> {
    let position = format!("{}: test {}", file.path, index + 1);
    let Value::Object(object) = test else { bail!("{position}: expected an object, not {test}") };
    let mut fields = Fields { place: position, object };
    let name: String = fields.required("test_name", "a text")?;
    fields.place = place(&file.path, &name);
    check_name(file.kind, &name).with_context(|| fields.place.clone())?;

    if file.kind == Kind::Serving {
        let serving = Serving::take(&mut fields)?.over(defaults);
        fields.finish(&[&["test_name"], Serving::FIELDS].concat())?;
        let rates = serving.rates.filter(|rates| !rates.is_empty()).with_context(|| {
            format!("{}: `qps_list` is missing: give the test or the defaults a list like [1, \"inf\"]", fields.place)
        })?;
        let rates = rates.iter().map(Rate::text).collect::<anyhow::Result<_>>().context(fields.place.clone())?;
        let concurrencies = serving.concurrencies;
        ensure!(
            concurrencies.as_ref().is_none_or(|list| !list.is_empty() && !list.contains(&0)),
            "{}: `max_concurrency_list` must hold whole numbers from 1",
            fields.place
        );
        let parameters = serving.server.unwrap_or_default();
        let model = model(&parameters, "server_parameters").context(fields.place)?;
        let load = Load { client: serving.client.unwrap_or_default(), rates, concurrencies };
        let env = serving.env.unwrap_or_default();
        return Ok(Test { path: file.path.clone(), name, kind: file.kind, model, parameters, env, load: Some(load) });
    }
    let parameters = fields.required("parameters", "an object")?;
    let env = fields.optional("environment_variables", "an object")?.unwrap_or_default();
    fields.finish(&["test_name", "parameters", "environment_variables"])?;
    let model = model(&parameters, "parameters").context(fields.place)?;
    Ok(Test { path: file.path.clone(), name, kind: file.kind, model, parameters, env, load: None })
}

fn model(parameters: &Parameters, section: &str) -> anyhow::Result<String> {
    match parameters.get("model") {
        Some(Value::String(model)) if !model.is_empty() && !model.contains(char::is_whitespace) => Ok(model.clone()),
        None => bail!("`{section}.model` is missing"),
        Some(other) => bail!("`{section}.model` must be the name or the path of a model, not {other}"),
    }
}

/// Checks that a name begins with its kind and can be part of a file name.
fn check_name(kind: Kind, name: &str) -> anyhow::Result<()> {
    let prefix = format!("{}_", kind.as_str());
    ensure!(name.starts_with(&prefix), "`test_name` must begin with `{prefix}`");
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+=@,:".contains(&byte);
    ensure!(
        name.bytes().all(harmless),
        "`test_name` may hold only letters, digits and ._-+=@,: because files are named after it"
    );
    ensure!(name.len() <= 180, "`test_name` may be at most 180 characters long, because files are named after it");
    Ok(())
}

/// Refuses a file whose tests all have another format.
fn refuse_foreign_format(path: &str, tests: &[Value]) -> anyhow::Result<()> {
    let all_have = |key| !tests.is_empty() && tests.iter().all(|test| test.get(key).is_some());
    if !all_have("common_parameters") {
        return Ok(());
    }
    let format =
        if all_have("genai_perf_input_parameters") { "genai-perf" } else { "nightly (vLLM against other engines)" };
    bail!(
        "{path}: this is upstream's {format} format (tests with `common_parameters`), which is not run: \
         give a file of serving, latency, startup or throughput tests"
    )
}

/// The fields of a serving test that `defaults` may hold as well.
#[derive(Debug, Default)]
struct Serving {
    rates: Option<Vec<Rate>>,
    concurrencies: Option<Vec<u64>>,
    env: Option<Parameters>,
    server: Option<Parameters>,
    client: Option<Parameters>,
}

impl Serving {
    const FIELDS: &'static [&'static str] =
        &["qps_list", "max_concurrency_list", "server_environment_variables", "server_parameters", "client_parameters"];

    fn take(fields: &mut Fields) -> anyhow::Result<Self> {
        Ok(Self {
            rates: fields.optional("qps_list", "a list of request rates: numbers or \"inf\"")?,
            concurrencies: fields.optional("max_concurrency_list", "a list of whole numbers")?,
            env: fields.optional("server_environment_variables", "an object")?,
            server: fields.optional("server_parameters", "an object")?,
            client: fields.optional("client_parameters", "an object")?,
        })
    }

    fn over(self, defaults: &Self) -> Self {
        Self {
            rates: self.rates.or_else(|| defaults.rates.clone()),
            concurrencies: self.concurrencies.or_else(|| defaults.concurrencies.clone()),
            env: merged(&defaults.env, self.env),
            server: merged(&defaults.server, self.server),
            client: merged(&defaults.client, self.client),
        }
    }
}

/// A shallow merge in the order of the defaults; the values of the test have priority.
fn merged(defaults: &Option<Parameters>, test: Option<Parameters>) -> Option<Parameters> {
    let mut merged = defaults.clone().unwrap_or_default();
    merged.extend(test.unwrap_or_default());
    Some(merged)
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Rate {
    Number(Number),
    Text(String),
}

impl Rate {
    fn text(&self) -> anyhow::Result<String> {
        let text = match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text.clone(),
        };
        let positive = text.parse::<f64>().is_ok_and(|rate| rate > 0.0 && rate.is_finite());
        ensure!(text == "inf" || positive, "`qps_list` must hold numbers above 0 or \"inf\", not `{text}`");
        Ok(text)
    }
}

/// The fields of an object, taken one by one so that an error can name place and field.
struct Fields {
    place: String,
    object: Parameters,
}

impl Fields {
    fn optional<T: DeserializeOwned>(&mut self, field: &str, expected: &str) -> anyhow::Result<Option<T>> {
        match self.object.shift_remove(field) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::deserialize(&value)
                .map(Some)
                .map_err(|_| anyhow!("{}: `{field}` must be {expected}, not {value}", self.place)),
        }
    }

    fn required<T: DeserializeOwned>(&mut self, field: &str, expected: &str) -> anyhow::Result<T> {
        self.optional(field, expected)?.with_context(|| format!("{}: `{field}` is missing", self.place))
    }

    fn finish(&self, known: &[&str]) -> anyhow::Result<()> {
        match self.object.keys().next() {
            None => Ok(()),
            Some(key) => bail!("{}: unknown field `{key}`: expected one of {}", self.place, known.join(", ")),
        }
    }
}
