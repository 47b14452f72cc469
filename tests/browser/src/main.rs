//! Tests the dashboard in a real browser: `store DIR` writes records with a known history, and `walk CHROMIUM SITE SCREENSHOTS`
//! clicks through the site built from them in a headless Chromium, and fails at the first unexpected result.

mod browser;
mod store;
mod walk;

use std::path::Path;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["store", folder] => store::write(Path::new(folder)),
        ["walk", chromium, site, screenshots] => {
            walk::walk(Path::new(chromium), Path::new(site), Path::new(screenshots))
        }
        _ => bail!("usage: store DIR, or walk CHROMIUM SITE SCREENSHOTS"),
    }
}
