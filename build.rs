//! Compresses Plotly's script, which the pages of the dashboard load, so that the program contains it once and small. The
//! crate `plotly` has it together with a script for formulas, which no page uses.

use std::env;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

#[expect(clippy::disallowed_methods, reason = "cargo passes the folder of a build script in its environment")]
fn main() -> std::io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let sources = plotly::Plot::offline_js_sources();
    // The first of two `<script>` elements.
    let (first, _) = sources.split_once("</script>").ok_or(std::io::ErrorKind::InvalidData)?;
    let (_, script) = first.split_once('>').ok_or(std::io::ErrorKind::InvalidData)?;
    let folder = env::var_os("OUT_DIR").ok_or(std::io::ErrorKind::NotFound)?;
    let file = File::create(Path::new(&folder).join("plotly.min.js.gz"))?;
    let mut compressed = GzEncoder::new(file, Compression::best());
    compressed.write_all(script.as_bytes())?;
    compressed.finish()?.flush()
}
