//! The platforms in manifests and configurations of images.

use anyhow::Context;
use serde::Deserialize;

/// A manifest.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Manifest {
    /// Several images, with their platforms: `linux/arm64`, `linux/arm/v7`.
    Index(Vec<String>),
    /// One image, with the digest of its configuration, which names its platform.
    Image(String),
    /// Docker's first form, which has no platform.
    Old,
}

#[derive(Deserialize)]
struct Document {
    manifests: Option<Vec<Entry>>,
    config: Option<Blob>,
}

#[derive(Deserialize)]
struct Entry {
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Blob {
    digest: String,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    fn name(&self) -> String {
        let variant = self.variant.as_ref().map(|variant| format!("/{variant}")).unwrap_or_default();
        format!("{}/{}{variant}", self.os, self.architecture)
    }
}

/// Reads a manifest.
///
/// # Errors
/// It is not JSON of a known form.
pub(super) fn read(content: &[u8]) -> anyhow::Result<Manifest> {
    let document: Document = serde_json::from_slice(content).context("cannot read the manifest")?;
    Ok(match (document.manifests, document.config) {
        (Some(entries), _) => {
            // Attestations are listed with the images, for the platform `unknown/unknown`.
            let platforms = entries.iter().filter_map(|entry| entry.platform.as_ref());
            Manifest::Index(platforms.map(Platform::name).filter(|name| name != "unknown/unknown").collect())
        }
        (None, Some(config)) => Manifest::Image(config.digest),
        (None, None) => Manifest::Old,
    })
}

/// The platform in an image's configuration.
///
/// # Errors
/// It is not a configuration.
pub(super) fn platform(content: &[u8]) -> anyhow::Result<String> {
    let platform: Platform = serde_json::from_slice(content).context("cannot read the image's configuration")?;
    Ok(platform.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_names_its_platforms_and_an_image_its_configuration() {
        let index = br#"{"schemaVersion": 2, "manifests": [
            {"digest": "sha256:a", "platform": {"os": "linux", "architecture": "amd64"}},
            {"digest": "sha256:b", "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}},
            {"digest": "sha256:c", "platform": {"os": "unknown", "architecture": "unknown"}}]}"#;
        assert_eq!(read(index).unwrap(), Manifest::Index(vec!["linux/amd64".into(), "linux/arm64/v8".into()]));
        let image = br#"{"schemaVersion": 2, "config": {"digest": "sha256:d", "size": 1}, "layers": []}"#;
        assert_eq!(read(image).unwrap(), Manifest::Image("sha256:d".into()));
        assert_eq!(read(br#"{"schemaVersion": 1, "architecture": "amd64"}"#).unwrap(), Manifest::Old);
        assert!(read(b"<html>").is_err());
        assert_eq!(platform(br#"{"architecture": "arm64", "os": "linux", "rootfs": {}}"#).unwrap(), "linux/arm64");
    }
}
