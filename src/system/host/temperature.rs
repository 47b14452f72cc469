//! Load and temperature of the machine, and thermal slowdowns. A value that cannot be read is absent.

use std::fs;
use std::path::Path;

/// Runnable processes over the last minute.
pub fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// Warmest thermal zone, in degrees Celsius.
pub fn temperature() -> Option<f64> {
    let zones = numbers(Path::new("/sys/class/thermal"), "thermal_zone", "temp");
    // Zones without a working sensor have 0 or less.
    zones.into_iter().filter(|zone| *zone > 0).max().map(|millidegrees| millidegrees as f64 / 1000.0)
}

/// How often heat has slowed the processor cores down since the machine started.
pub fn throttled() -> Option<u64> {
    let counts = numbers(Path::new("/sys/devices/system/cpu"), "cpu", "thermal_throttle/core_throttle_count");
    let counts: Vec<u64> = counts.into_iter().filter_map(|count| u64::try_from(count).ok()).collect();
    (!counts.is_empty()).then(|| counts.iter().sum())
}

/// The number in `file` of each sub-folder of `root` whose name begins with `prefix`.
fn numbers(root: &Path, prefix: &str, file: &str) -> Vec<i64> {
    let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .filter_map(|entry| fs::read_to_string(entry.path().join(file)).ok()?.trim().parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_named_folders() {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in [("thermal_zone0", "41000\n"), ("thermal_zone1", "n/a"), ("cooling_device0", "7")] {
            crate::system::output::write(&root.path().join(name).join("temp"), text.as_bytes()).unwrap();
        }
        assert_eq!(numbers(root.path(), "thermal_zone", "temp"), [41000]);
        assert_eq!(numbers(&root.path().join("missing"), "thermal_zone", "temp"), [0; 0]);
    }
}
