//! `container` in the config file: what the container of an image target may use of this machine.

use indexmap::IndexMap;

use super::container_values::{DEVICE_FILE, OPTION, VALUE, VARIABLE, VOLUME};
use super::scalar::{Scalar, Schema, valid};
use super::section::{Section, Walk};
use super::value_kinds::{ListOf, MapOf, Optional};

/// Limits of a container. Sizes are in the form of `docker run`: a number and `b`, `k`, `m` or `g`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerConfig {
    /// Most memory; `None` is nine tenths of this machine's.
    pub memory: Option<String>,
    pub shm_size: String,
    /// Most processes and threads.
    pub pids: u32,
    /// `HOST:CONTAINER:MODE`.
    pub volumes: Vec<String>,
    pub devices: Vec<String>,
    /// Variables of every container. Those of a test have priority.
    pub environment: IndexMap<String, String>,
    /// Of `docker run`.
    pub options: Vec<String>,
}

impl ContainerConfig {
    /// The words of `docker run` for what the operator adds.
    pub fn words(&self) -> Vec<String> {
        let volumes = self.volumes.iter().flat_map(|volume| ["--volume".to_owned(), volume.clone()]);
        let devices = self.devices.iter().flat_map(|device| ["--device".to_owned(), device.clone()]);
        volumes.chain(devices).chain(self.options.iter().cloned()).collect()
    }

    /// The paths of this machine that containers get.
    pub fn paths(&self) -> impl Iterator<Item = &str> {
        let all = self.volumes.iter().chain(&self.devices);
        all.map(|text| text.split(':').next().unwrap_or_default())
    }

    /// What the operator adds, for the reader of a plan: without the values of variables.
    pub fn sentence(&self) -> Option<String> {
        let mut parts = Vec::new();
        let words = self.words();
        if !words.is_empty() {
            parts.push(format!("`{}`", shell_words::join(&words)));
        }
        if !self.environment.is_empty() {
            let names: Vec<&str> = self.environment.keys().map(String::as_str).collect();
            parts.push(format!("the variables {}", names.join(", ")));
        }
        (!parts.is_empty())
            .then(|| format!("containers also get {} (`container` in vllm-perf.yml)", parts.join(" and ")))
    }
}

impl Default for ContainerConfig {
    fn default() -> Self {
        // A server on eight devices has some thousand threads; its workers exchange tensors in shared memory, which is
        // taken only as it is used.
        Self {
            memory: None,
            shm_size: "16g".to_owned(),
            pids: 16_384,
            volumes: Vec::new(),
            devices: Vec::new(),
            environment: IndexMap::new(),
            options: Vec::new(),
        }
    }
}

impl Section for ContainerConfig {
    fn keys(&mut self, walk: &mut impl Walk) {
        let memory = "Most memory of a container: `64g`, `512m`. By default nine tenths of the machine's.";
        let kind = Optional { value: SIZE, none: "nine tenths of the machine's" };
        walk.key("memory", memory, &mut self.memory, kind);
        let shm_size = "Size of a container's own `/dev/shm`: `16g`.";
        walk.key("shm_size", shm_size, &mut self.shm_size, SIZE);
        walk.key("pids", "Most processes and threads of a container.", &mut self.pids, PIDS);
        let volumes = "Folders of this machine that containers see: `/HOST:/CONTAINER`, read-only, or with `:rw`.";
        walk.key("volumes", volumes, &mut self.volumes, ListOf { of: VOLUME, item: None });
        let devices = "Devices of this machine that containers get, besides those of the device that is measured.";
        walk.key("devices", devices, &mut self.devices, ListOf { of: DEVICE_FILE, item: None });
        let environment = "Variables of containers; those of a test have priority.";
        let variables = MapOf { key: VARIABLE, value: VALUE, default: |_| String::new(), item: None };
        walk.key("environment", environment, &mut self.environment, variables);
        let options = "More options of `docker run`, each one word: `--ulimit=memlock=-1`.";
        walk.key("options", options, &mut self.options, ListOf { of: OPTION, item: None });
    }
}

const SIZE: Scalar<String> = Scalar::text("a size such as `16g`", "^[1-9][0-9]{0,11}[bkmg]$", |text| {
    let number = text.strip_suffix(['b', 'k', 'm', 'g']).unwrap_or_default();
    let is_size = (1..=12).contains(&number.len())
        && number.bytes().all(|byte| byte.is_ascii_digit())
        && !number.starts_with('0');
    valid(is_size, text, "a size: expected a number and `b`, `k`, `m` or `g`, such as `16g`")
});

const PIDS: Scalar<u32> = Scalar {
    expecting: "a number of processes",
    numbers: true,
    schema: Schema::Other(|| serde_json::json!({"type": "integer", "minimum": 64, "maximum": 4_194_304})),
    read: |text| {
        let pids = text.parse().ok().filter(|pids| (64..=4_194_304).contains(pids));
        pids.ok_or_else(|| super::scalar::not(text, "a number of processes: expected 64 to 4194304"))
    },
    show: u32::to_string,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_number_with_a_unit() {
        for text in ["16g", "512m", "1b"] {
            assert_eq!((SIZE.read)(text).unwrap(), text);
        }
        for text in ["", "g", "0g", "-1g", "16", "1.5g", "16 g", "16G", "1g --privileged", "9999999999999g"] {
            assert!((SIZE.read)(text).is_err(), "{text}");
        }
    }
}
