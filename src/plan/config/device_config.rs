//! `devices` in the config file: the devices that are measured.

use vllm_verdict::v1::DeviceName;

use super::scalar::{Scalar, Schema, known_key, valid};
use super::section::{Section, Walk};
use super::trigger_config::LABEL;
use super::value_kinds::Optional;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceConfig {
    pub image_suffix: String,
    pub label: Option<String>,
}

impl DeviceConfig {
    /// The default: the suffix under which vLLM's CI publishes the image, and a label where vLLM's matrix has the device.
    pub fn of(name: DeviceName) -> Self {
        let (image_suffix, label) = match name {
            DeviceName::Cuda => ("", Some("perf-gpu")),
            DeviceName::Rocm => ("", None),
            DeviceName::Hpu => ("-hpu", None),
            DeviceName::Xpu => ("-xpu", None),
            DeviceName::Cpu => ("-cpu", Some("perf-cpu")),
            DeviceName::Arm64Cpu => ("-arm64-cpu", Some("perf-arm64")),
        };
        Self { image_suffix: image_suffix.to_owned(), label: label.map(str::to_owned) }
    }
}

impl Section for DeviceConfig {
    fn keys(&mut self, walk: &mut impl Walk) {
        walk.key("image_suffix", "Suffix of the image tag: `-cpu` in `<commit>-cpu`.", &mut self.image_suffix, SUFFIX);
        walk.key(
            "label",
            "Label that restricts the run of a pull request to this device.",
            &mut self.label,
            Optional { value: LABEL, none: "none" },
        );
    }
}

/// The name of a device, as a key.
pub(super) const DEVICE: Scalar<DeviceName> = Scalar {
    expecting: "the name of a device",
    numbers: false,
    schema: Schema::OneOf(names),
    read: |text| known_key(text, &names())?.parse(),
    show: DeviceName::to_string,
};

fn names() -> Vec<&'static str> {
    DeviceName::ALL.map(DeviceName::as_str).to_vec()
}

const SUFFIX: Scalar<String> = Scalar {
    // In quotes, because it may be empty.
    show: |suffix| format!("{suffix:?}"),
    ..Scalar::text("a text", "^[A-Za-z0-9_.-]{0,64}$", |text| {
        let is_tag = text.len() <= 64 && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
        valid(is_tag, text, "a suffix of an image tag: expected at most 64 of the characters A-Z a-z 0-9 and -_.")
    })
};
