//! Where the data sets that test files name are: files of this machine, or of the Hugging Face hub. `data_set_download.rs`
//! downloads them.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, ensure};
use url::Url;
use vllm_verdict::v1::Event;

use crate::environment::Environment;
use crate::plan::config::{Config, DatasetsConfig};
use crate::system::model_folder;
use crate::system::registry::registry_url::is_private;
use crate::system::suite_files::SuiteFiles;

/// The data sets of vLLM's suite that are files, and the repositories that have them.
const KNOWN: [(&str, &str); 1] =
    [("ShareGPT_V3_unfiltered_cleaned_split.json", "anon8231489123/ShareGPT_Vicuna_unfiltered")];

/// The hub, unless `HF_ENDPOINT` names another.
const HUB: &str = "https://huggingface.co";

/// Where a data set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    /// A file of this machine.
    Here(PathBuf),
    /// A file of the hub that is not on this machine.
    OnHub(HubFile),
    /// Neither is known; where the hub has it, why it is not asked.
    Unknown(Option<String>),
}

/// A file of the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubFile {
    pub url: Url,
    /// Where it is kept on this machine.
    pub place: PathBuf,
}

/// The places in which data sets are looked for.
#[derive(Debug)]
pub struct DataSets<'a> {
    suite: &'a Path,
    config: &'a DatasetsConfig,
    environment: &'a Environment,
    /// Where the files of the suite may lie.
    allowed: SuiteFiles,
}

impl<'a> DataSets<'a> {
    /// The places for a plan of `event`.
    ///
    /// # Errors
    /// As of [`SuiteFiles::of_event`].
    pub fn of(event: &Event, config: &'a Config, environment: &'a Environment) -> Result<Self> {
        let allowed = SuiteFiles::of_event(event, &config.suite, &config.allowed_folders, environment)?;
        Ok(Self { suite: &config.suite, config: &config.datasets, environment, allowed })
    }

    /// The places for a user's own suite, for tests.
    #[cfg(test)]
    pub fn sample(config: &'a Config, environment: &'a Environment) -> Self {
        Self { suite: &config.suite, config: &config.datasets, environment, allowed: SuiteFiles::Everywhere }
    }

    /// Where the data set is that a command names. A relative name is looked for in the current folder; a bare one also in the
    /// suite, in the cache of the hub, in the folders of the config, and among those that were downloaded before.
    pub fn find(&self, named: &Path) -> Whereabouts {
        if named.is_file() && self.allowed.check(named).is_ok() {
            return Whereabouts::Here(named.to_owned());
        }
        let Some(name) = bare(named) else { return Whereabouts::Unknown(None) };
        let repository = self.repository(name);
        let of_suite = Some(self.suite.join(name)).filter(|file| self.allowed.check(file).is_ok());
        let of_hub = repository.and_then(|repository| model_folder::data_set(repository, name, self.environment));
        let of_folders = self.config.folders.iter().map(|folder| folder.join(name));
        let kept = self.kept(name);
        let mut places = of_suite.into_iter().chain(of_hub).chain(of_folders).chain(kept.clone());
        if let Some(file) = places.find(|place| place.is_file()) {
            return Whereabouts::Here(file);
        }
        let Some(repository) = repository else { return Whereabouts::Unknown(None) };
        match self.on_hub(repository, name, kept) {
            Ok(file) => Whereabouts::OnHub(file),
            Err(error) => Whereabouts::Unknown(Some(format!("{error:#}"))),
        }
    }

    /// The checksum that the config has for a data set.
    pub fn sha256(&self, named: &Path) -> Option<&str> {
        self.config.files.get(bare(named)?)?.sha256.as_deref()
    }

    fn repository(&self, name: &str) -> Option<&str> {
        let of_config = self.config.files.get(name).and_then(|file| file.repository.as_deref());
        of_config.or_else(|| KNOWN.into_iter().find(|(known, _)| *known == name).map(|(_, repository)| repository))
    }

    /// The file of a download.
    fn kept(&self, name: &str) -> Option<PathBuf> {
        let cache = self.environment.get("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| self.environment.get("HOME").map(|home| Path::new(home).join(".cache")))?;
        Some(cache.join("vllm-perf/datasets").join(name))
    }

    fn on_hub(&self, repository: &str, name: &str, kept: Option<PathBuf>) -> Result<HubFile> {
        let endpoint = self.environment.get("HF_ENDPOINT").unwrap_or(HUB);
        let url = format!("{}/datasets/{repository}/resolve/main/{name}", endpoint.trim_end_matches('/'));
        let url = Url::parse(&url).context("HF_ENDPOINT is not a URL such as https://huggingface.co")?;
        ensure!(!self.is_offline(), "HF_HUB_OFFLINE forbids the download from {url}");
        ensure!(is_private(&url), "HF_ENDPOINT is not an https URL");
        let place = kept.context("HOME is not set, so that there is no folder for it")?;
        Ok(HubFile { url, place })
    }

    fn is_offline(&self) -> bool {
        let is_on = |name: &&str| self.environment.is_on(name).unwrap_or(true);
        ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"].iter().any(is_on)
    }
}

/// The name of a file that is named without a folder.
fn bare(named: &Path) -> Option<&str> {
    let mut parts = named.components().filter(|part| *part != Component::CurDir);
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(name)), None) => name.to_str(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::plan::config;
    use crate::system::output;

    const SHAREGPT: &str = "ShareGPT_V3_unfiltered_cleaned_split.json";

    /// The folders of a machine, and a description of where a data set is found in it.
    struct Machine {
        _folder: tempfile::TempDir,
        root: PathBuf,
        config: Config,
    }

    impl Machine {
        fn new(more: &str) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().canonicalize().unwrap();
            std::fs::create_dir(root.join("suite")).unwrap();
            let text = format!("datasets: {{folders: [{0}/one, {0}/two]{more}}}", root.display());
            let mut config = config::parse(&text, "vllm-perf.yml").unwrap();
            config.suite = root.join("suite");
            Self { _folder: folder, root, config }
        }

        fn find(&self, named: &str, variables: &[(&'static str, &str)]) -> String {
            let own = [("HOME", self.root.join("home").display().to_string())];
            let given = variables.iter().map(|(name, value)| (*name, (*value).to_owned()));
            let environment: Environment = own.into_iter().chain(given).collect();
            let sets = DataSets::sample(&self.config, &environment);
            let found = match sets.find(Path::new(named)) {
                Whereabouts::Here(file) => format!("here {}", file.display()),
                Whereabouts::OnHub(file) => format!("hub {} -> {}", file.url, file.place.display()),
                Whereabouts::Unknown(why) => format!("unknown {}", why.unwrap_or_default()),
            };
            found.replace(&self.root.display().to_string(), "DIR")
        }
    }

    #[test]
    fn a_data_set_is_looked_for_in_one_place_after_the_other() {
        let machine = Machine::new("");
        let named = format!("./{SHAREGPT}");
        let hub = "home/.cache/huggingface/hub/datasets--anon8231489123--ShareGPT_Vicuna_unfiltered/snapshots/1";
        let hub_url = "https://huggingface.co/datasets/anon8231489123/ShareGPT_Vicuna_unfiltered/resolve/main";
        assert_eq!(
            machine.find(&named, &[]),
            format!("hub {hub_url}/{SHAREGPT} -> DIR/home/.cache/vllm-perf/datasets/{SHAREGPT}")
        );
        for place in ["home/.cache/vllm-perf/datasets", "two", "one", hub, "suite"] {
            output::write(&machine.root.join(place).join(SHAREGPT), b"[]").unwrap();
            for named in [&named, SHAREGPT] {
                assert_eq!(machine.find(named, &[]), format!("here DIR/{place}/{SHAREGPT}"));
            }
        }
        let there = machine.root.join("x.json");
        output::write(&there, b"[]").unwrap();
        assert_eq!(machine.find(there.to_str().unwrap(), &[]), "here DIR/x.json");
        for other in ["sub/x.json", "../x.json", "./gone.json", "/gone/x.json", "org/name"] {
            assert_eq!(machine.find(other, &[]), "unknown ", "{other}");
        }
    }

    #[test]
    fn the_hub_is_that_of_the_variables_and_its_repositories_those_of_the_config() {
        let machine = Machine::new(", files: {mine.jsonl: {repository: me/sets}}");
        let found = machine.find("mine.jsonl", &[("HF_ENDPOINT", "http://127.0.0.1:9/"), ("XDG_CACHE_HOME", "/c")]);
        assert_eq!(
            found,
            "hub http://127.0.0.1:9/datasets/me/sets/resolve/main/mine.jsonl -> /c/vllm-perf/datasets/mine.jsonl"
        );
        for offline in [("HF_HUB_OFFLINE", "1"), ("HF_DATASETS_OFFLINE", "True"), ("HF_HUB_OFFLINE", "odd")] {
            assert!(machine.find("mine.jsonl", &[offline]).starts_with("unknown HF_HUB_OFFLINE forbids"));
        }
        assert_eq!(machine.find("mine.jsonl", &[("HF_HUB_OFFLINE", "0")])[..4], *"hub ");
        let plain = machine.find("mine.jsonl", &[("HF_ENDPOINT", "http://hub.example")]);
        assert_eq!(plain, "unknown HF_ENDPOINT is not an https URL");
    }

    #[test]
    fn a_link_in_the_suite_of_a_pull_request_leads_nowhere() {
        let machine = Machine::new("");
        output::write(&machine.root.join("secret"), b"x").unwrap();
        symlink(machine.root.join("secret"), machine.root.join("suite/a.json")).unwrap();
        let environment: Environment = [("HOME", "/nowhere")].into_iter().collect();
        let below = |folder: &str| SuiteFiles::Below(vec![machine.root.join(folder)]);
        let suite = machine.config.suite.as_path();
        let find = |allowed| {
            DataSets { suite, config: &machine.config.datasets, environment: &environment, allowed }
                .find(Path::new("a.json"))
        };
        assert_eq!(find(below("suite")), Whereabouts::Unknown(None));
        assert_eq!(find(below("")), Whereabouts::Here(machine.root.join("suite/a.json")));
    }
}
