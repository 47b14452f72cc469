//! Asks vLLM's wheel index, or PyPI for a release, which file is the wheel of a commit or version for this machine. The index
//! is a simple repository (PEP 503) with a `metadata.json` beside each list of files.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use regex::Regex;
use reqwest::header::ACCEPT;
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use vllm_verdict::v1::DeviceName;

use crate::environment::Environment;
use crate::escape;
use crate::exit::Classify;
use crate::plan::wheel::{self, Wheel};
use crate::plan::wheel_name::{self, WheelName};
use crate::system::registry;
use crate::system::retrying_http::{self, RetryingHttp};

/// What an index has for a wheel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WheelState {
    Present(FoundWheel),
    /// Not, or not yet: why.
    Missing(String),
}

/// A file of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundWheel {
    pub url: Url,
    /// Its name, of a wheel.
    pub file: String,
    /// SHA-256 in lower-case hexadecimal digits, where the index names it.
    pub sha256: Option<String>,
    /// The index that other packages are looked for in first; `None` for PyPI.
    pub index: Option<Url>,
}

/// Access to the indexes, for one device of this machine.
#[derive(Debug, Clone)]
pub struct WheelIndex {
    http: RetryingHttp,
    base: Url,
    pypi: Url,
    device: DeviceName,
    architecture: &'static str,
}

/// Where releases are, unless the operator's uv or pip asks another index.
const PYPI: &str = "https://pypi.org/simple/";

/// The part of the two kinds of list that is a name of a folder or of a file, and its link.
const LINK: &str = r#"(?is)<a\s[^>]*?href\s*=\s*["']([^"']*)["'][^>]*>\s*([^<]*?)\s*</a>"#;

/// One file in `metadata.json`.
#[derive(Deserialize)]
struct Listed {
    filename: String,
    /// Relative to the list, quoted as in a URL.
    path: String,
}

impl WheelIndex {
    /// Access to the index at `base` for a device. The processors are those of this machine, or the device's own.
    ///
    /// # Errors
    /// The user's mistake (exit 2): the address of the index that uv is set to is no URL. Exit 4: no TLS.
    pub fn new(pause: Duration, base: &Url, device: DeviceName, environment: &Environment) -> Result<Self> {
        let set = ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"].into_iter();
        let set = set.filter_map(|name| Some((name, environment.get(name).filter(|text| !text.is_empty())?))).next();
        let (name, text) = set.unwrap_or(("", PYPI));
        let pypi = with_slash(text).with_context(|| format!("{name} is not a URL")).mistake()?;
        let architecture = match registry::architecture(device) {
            "arm64" => "aarch64",
            "amd64" => "x86_64",
            other => other,
        };
        Ok(Self { http: RetryingHttp::new(pause)?, base: with_slash(base.as_str())?, pypi, device, architecture })
    }

    /// What the index has for a commit or a version. A file of this machine is always there.
    ///
    /// # Errors
    /// The user's mistake (exit 2): there are no wheels for the device. Exit 4: the index cannot be reached, or refuses.
    pub async fn find(&self, wheel: &Wheel) -> Result<WheelState> {
        let Some(folder) = wheel.folder(self.device).mistake()? else { bail!("`{wheel}` is in no index") };
        let folder = self.base.join(&folder).context("cannot name the folder of the wheel").mistake()?;
        let cannot = || format!("cannot query the wheel index for {wheel}");
        let state = self.in_folder(&folder).await.with_context(cannot).world()?;
        match (wheel, state) {
            // PyPI has one build: for NVIDIA GPUs, and another distribution for processors.
            (Wheel::Version { version, variant: None }, WheelState::Missing(_))
                if self.device == DeviceName::Cuda || self.device.is_cpu() =>
            {
                self.on_pypi(version).await.with_context(cannot).world()
            }
            (_, state) => Ok(state),
        }
    }

    /// The wheel in a folder of the index.
    async fn in_folder(&self, folder: &Url) -> Result<WheelState> {
        let named = wheel::packages(self.device).iter().map(|package| folder.join(&format!("{package}/")));
        let mut lists = named.collect::<Result<Vec<Url>, _>>()?;
        let mut projects = Vec::new();
        if let Some(page) = self.get(folder).await? {
            projects = links(&page, folder);
            // Its folders may be written otherwise, and a plain folder lists the files themselves.
            let others = projects.iter().filter(|link| self.is_ours(link.file.trim_end_matches('/')));
            lists.extend(others.map(|link| link.url.clone()));
            lists.push(folder.clone());
        }
        for list in lists {
            let (links, is_complete) = self.list(&list).await?;
            if !is_complete {
                return Ok(WheelState::Missing("its metadata.json is not complete".to_owned()));
            }
            if links.iter().any(|link| link.file.ends_with(".whl")) {
                return self.choose(links, |_| true, Some(folder.clone())).await;
            }
        }
        Ok(WheelState::Missing(without_wheel(&projects)))
    }

    /// Whether a distribution is vLLM for the device.
    fn is_ours(&self, distribution: &str) -> bool {
        wheel::packages(self.device).contains(&wheel_name::normalized(distribution).as_str())
    }

    /// The files of a list and of its `metadata.json`, and whether the latter can be read.
    async fn list(&self, list: &Url) -> Result<(Vec<Link>, bool)> {
        let page = self.get(list).await?;
        let mut all = page.map(|page| links(&page, list)).unwrap_or_default();
        let Some(metadata) = self.get(&list.join("metadata.json")?).await? else { return Ok((all, true)) };
        let Ok(listed) = serde_json::from_str::<Vec<Listed>>(&metadata) else { return Ok((all, false)) };
        let new = listed.into_iter().filter(|new| !all.iter().any(|known| known.file == new.filename));
        let new: Vec<Link> = new.filter_map(|new| Some(Link::new(list.join(&new.path).ok()?, new.filename))).collect();
        all.extend(new);
        Ok((all, true))
    }

    /// The wheel of a release on PyPI.
    async fn on_pypi(&self, version: &str) -> Result<WheelState> {
        let mut missing = "the index does not have it".to_owned();
        // The name of PyPI's `vllm` for processors is the second.
        for package in wheel::packages(self.device).iter().rev() {
            let list = self.pypi.join(&format!("{package}/"))?;
            let Some(page) = self.get(&list).await? else { continue };
            match self.choose(links(&page, &list), |name| name.is_of(version), None).await? {
                WheelState::Missing(why) => missing = format!("{}: {why}", registry::host(&list)),
                present => return Ok(present),
            }
            // PyPI's `vllm` needs a GPU.
            break;
        }
        Ok(WheelState::Missing(missing))
    }

    /// The link to the wheel for this machine. An index may name a file before it has it.
    async fn choose(
        &self,
        links: Vec<Link>,
        is_wanted: impl Fn(&WheelName) -> bool,
        index: Option<Url>,
    ) -> Result<WheelState> {
        let named = links.into_iter().filter_map(|link| Some((link.file.parse::<WheelName>().ok()?, link)));
        let wheels: Vec<(WheelName, Link)> =
            named.filter(|(name, _)| self.is_ours(&name.distribution) && is_wanted(name)).collect();
        let platforms: Vec<String> = wheels.iter().map(|(name, _)| escape::clean(name.platform(), 60)).collect();
        let Some((_, link)) = wheels.into_iter().rev().find(|(name, _)| name.fits(self.architecture)) else {
            return Ok(WheelState::Missing(match platforms.is_empty() {
                true => "the index has no wheel of it".to_owned(),
                false => {
                    format!("the index has it for {} alone, and this is {}", platforms.join(", "), self.architecture)
                }
            }));
        };
        let file = self.ask(Method::HEAD, &link.url).await?;
        Ok(match file {
            Some(_) => WheelState::Present(FoundWheel { url: link.url, file: link.file, sha256: link.sha256, index }),
            None => WheelState::Missing(format!("the index names {} and does not have it yet", link.file)),
        })
    }

    /// A document of the index; `None` where it has no such thing.
    async fn get(&self, url: &Url) -> Result<Option<String>> {
        let Some(response) = self.ask(Method::GET, url).await? else { return Ok(None) };
        let body = retrying_http::body(response).await.with_context(|| format!("cannot read {url}"))?;
        Ok(Some(String::from_utf8_lossy(&body).into_owned()))
    }

    async fn ask(&self, method: Method, url: &Url) -> Result<Option<reqwest::Response>> {
        let request = self.http.client.request(method, url.clone()).header(ACCEPT, "text/html, application/json");
        let response = self.http.send(request).await?;
        let host = registry::host(url);
        match response.status() {
            status if status.is_success() => Ok(Some(response)),
            // A bucket that may not be listed answers 403 for what it does not have.
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::GONE => Ok(None),
            status if retrying_http::is_temporary_status(status) => {
                let words = retrying_http::words(response).await;
                Err(retrying_http::Temporary(format!("{host} answers {status}{words}")).into())
            }
            status => bail!("{host} answers {status}{}", retrying_http::words(response).await),
        }
    }
}

/// A link of a list.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    url: Url,
    file: String,
    sha256: Option<String>,
}

impl Link {
    fn new(mut url: Url, file: String) -> Self {
        let hash = url.fragment().and_then(|fragment| fragment.strip_prefix("sha256=")).map(str::to_lowercase);
        url.set_fragment(None);
        Self { url, file, sha256: hash }
    }
}

/// The links of a list, by the names that it shows.
fn links(page: &str, list: &Url) -> Vec<Link> {
    let Ok(pattern) = Regex::new(LINK) else { return Vec::new() };
    let link = |found: regex::Captures<'_>| {
        let href = found[1].replace("&amp;", "&");
        Some(Link::new(list.join(&href).ok()?, found[2].to_owned()))
    };
    pattern.captures_iter(page).filter_map(link).collect()
}

/// Why a folder of the index has no wheel: it may have variants.
fn without_wheel(projects: &[Link]) -> String {
    let folders = projects.iter().filter(|link| link.file.ends_with('/')).map(|link| link.file.trim_end_matches('/'));
    let variants: Vec<String> =
        folders.filter(|name| !name.is_empty() && *name != "..").map(|name| escape::clean(name, 60)).collect();
    match variants.is_empty() {
        true => "the index does not have it".to_owned(),
        false => format!("the index has it as {}: name one after a `/`", variants.join(", ")),
    }
}

/// A URL that others are joined to.
fn with_slash(text: &str) -> Result<Url> {
    let url = Url::parse(&format!("{}/", text.trim_end_matches('/')))?;
    Ok(url)
}
