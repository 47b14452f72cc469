//! `container` in the config file: what the container of an image target may use of this machine.

use super::scalar::{Scalar, Schema, valid};
use super::section::{Section, Walk};
use super::value_kinds::Optional;

/// Limits of a container. Sizes are in the form of `docker run`: a number and `b`, `k`, `m` or `g`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerConfig {
    /// Most memory; `None` is nine tenths of this machine's.
    pub memory: Option<String>,
    pub shm_size: String,
    /// Most processes and threads.
    pub pids: u32,
}

impl Default for ContainerConfig {
    fn default() -> Self {
        // A server on eight devices has some thousand threads; its workers exchange tensors in shared memory, which is
        // taken only as it is used.
        Self { memory: None, shm_size: "16g".to_owned(), pids: 16_384 }
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
