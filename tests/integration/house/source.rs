//! The source files of the workspace, and what is seen of them as text.

use std::fs;
use std::path::Path;

/// The root of each package's sources.
const ROOTS: [&str; 3] = ["src", "crates/load/src", "crates/verdict/src"];

/// One source file.
pub struct Source {
    /// Its path from the root of the workspace.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// A function or a struct.
pub struct Item {
    pub keyword: &'static str,
    pub name: String,
    pub lines: usize,
    pub fields: usize,
    /// Whether a comment above it says why it has so many fields.
    pub has_reason: bool,
}

/// Every source file of the workspace.
pub fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for folder in ROOTS {
        collect(root, &root.join(folder), &mut found);
    }
    found.sort_by(|a: &Source, b: &Source| a.path.cmp(&b.path));
    assert!(found.len() > 100, "only {} source files", found.len());
    found
}

fn collect(root: &Path, folder: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.push(Source { path: path.strip_prefix(root).unwrap().display().to_string(), text });
        }
    }
}

impl Source {
    /// The file's name without its extension.
    pub fn name(&self) -> &str {
        Path::new(&self.path).file_stem().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// The lines before the tests.
    pub fn lines(&self) -> Vec<&str> {
        let lines: Vec<&str> = self.text.lines().collect();
        let is_tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].contains("mod ") && pair[1].ends_with('{');
        let tests = lines.windows(2).position(is_tests).unwrap_or(lines.len());
        lines[..tests].to_vec()
    }

    /// The functions and structs before the tests, as rustfmt lays them out: an item ends at the first closing brace with
    /// its own indentation.
    pub fn items(&self) -> Vec<Item> {
        let lines = self.lines();
        let begin = |line: &str| {
            let words = line.trim_start();
            let words = words.strip_prefix("pub ").unwrap_or(words);
            let words =
                words.split_once(") ").filter(|(front, _)| front.starts_with("pub(")).map_or(words, |(_, rest)| rest);
            let words = words.trim_start_matches("const ").trim_start_matches("async ");
            ["fn", "struct"].into_iter().find_map(|keyword| {
                let rest = words.strip_prefix(keyword)?.strip_prefix(' ')?;
                let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                (!name.is_empty()).then_some((keyword, name))
            })
        };
        let mut items = Vec::new();
        for (start, line) in lines.iter().enumerate() {
            let Some((keyword, name)) = begin(line) else { continue };
            let indent = &line[..line.len() - line.trim_start().len()];
            let length = lines[start..]
                .iter()
                .position(|line| {
                    *line == format!("{indent}}}")
                        || (line.starts_with(indent) && line.ends_with(';') && !line[indent.len()..].starts_with(' '))
                })
                .map_or(1, |length| length + 1);
            if lines[start].trim_end().ends_with('}') || lines[start].trim_end().ends_with(';') {
                continue;
            }
            let is_field = |line: &&&str| {
                let text = line.strip_prefix(indent).and_then(|line| line.strip_prefix("    ")).unwrap_or_default();
                text.starts_with(|c: char| c.is_ascii_lowercase()) && text.contains(": ") && text.ends_with(',')
            };
            let above = lines[..start].iter().rev().take_while(|line| !line.trim().is_empty() && line.trim() != "}");
            let has_reason =
                above.clone().any(|line| line.trim_start().starts_with("//") && line.contains(" fields: "));
            let fields = lines[start..start + length].iter().filter(is_field).count();
            items.push(Item { keyword, name, lines: length, fields, has_reason });
        }
        items
    }
}
