//! The import graph: which file takes which name from which other file. Names that a module only passes on (`pub use`)
//! are followed to the file that defines them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::source::Source;

/// The path of a module: package and segments.
type Module = Vec<String>;

const PACKAGES: [(&str, &str); 3] =
    [("vllm_load", "crates/load/src/"), ("vllm_verdict", "crates/verdict/src/"), ("vllm_perf", "src/")];

/// A file in the graph.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node {
    path: String,
    module: Module,
}

impl Node {
    /// The room of the program that the file is in, or its package.
    pub fn room(&self) -> &str {
        match (self.module[0].as_str(), self.module.get(1)) {
            ("vllm_perf", Some(room)) => room,
            ("vllm_perf", None) => "lib",
            (package, _) => package,
        }
    }
}

/// One file imports names from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrow {
    pub from: Node,
    pub to: Node,
    names: BTreeSet<String>,
}

impl fmt::Display for Arrow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        write!(f, "{} -> {} ({})", self.from.path, self.to.path, names.join(", "))
    }
}

/// All arrows between files.
pub struct Graph(Vec<Arrow>);

struct Reader {
    paths: BTreeMap<Module, String>,
    children: BTreeMap<Module, BTreeSet<String>>,
    passed_on: BTreeMap<(Module, String), Module>,
}

impl Graph {
    /// Reads the imports of every file.
    pub fn of(sources: &[Source]) -> Self {
        let files: Vec<(Module, &Source, String)> = sources
            .iter()
            .filter(|source| !source.path.ends_with("main.rs"))
            .map(|source| (module(&source.path), source, code(source)))
            .collect();
        let mut reader = Reader { paths: BTreeMap::new(), children: BTreeMap::new(), passed_on: BTreeMap::new() };
        for (module, source, code) in &files {
            reader.paths.insert(module.clone(), source.path.clone());
            reader.children.insert(module.clone(), children(code));
        }
        for (module, _, code) in &files {
            for path in uses(code).filter(|(is_public, _)| *is_public).flat_map(|(_, tree)| expand(&tree)) {
                if let Some(target) = reader.absolute(module, &path) {
                    let name = target.last().cloned().unwrap_or_default();
                    reader.passed_on.insert((module.clone(), name), target);
                }
            }
        }
        let mut arrows: BTreeMap<(Node, Node), BTreeSet<String>> = BTreeMap::new();
        for (module, source, code) in &files {
            let from = Node { path: source.path.clone(), module: module.clone() };
            for path in imported(code, &reader.children[module]) {
                let Some((to, name)) = reader.absolute(module, &path).and_then(|path| reader.file(path)) else {
                    continue;
                };
                if to.module != from.module && !(to.module.len() == 1 && to.module[0] == from.module[0]) {
                    arrows.entry((from.clone(), to)).or_default().extend(name);
                }
            }
        }
        Self(arrows.into_iter().map(|((from, to), names)| Arrow { from, to, names }).collect())
    }

    pub fn arrows(&self) -> impl Iterator<Item = &Arrow> {
        self.0.iter()
    }

    /// How many arrows lead from each room to each other room.
    pub fn rooms(&self) -> BTreeMap<String, BTreeMap<String, usize>> {
        let mut rooms: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
        for arrow in self.0.iter().filter(|arrow| arrow.from.room() != arrow.to.room()) {
            *rooms.entry(arrow.from.room().to_owned()).or_default().entry(arrow.to.room().to_owned()).or_default() += 1;
        }
        rooms
    }

    /// The arrows that are part of a circle, or lead from one circle to another.
    pub fn circles(&self) -> Vec<&Arrow> {
        let mut left: Vec<&Arrow> = self.0.iter().collect();
        loop {
            let (from, to): (BTreeSet<&Node>, BTreeSet<&Node>) =
                left.iter().map(|arrow| (&arrow.from, &arrow.to)).unzip();
            let before = left.len();
            left.retain(|arrow| from.contains(&arrow.to) && to.contains(&arrow.from));
            if left.len() == before {
                return left;
            }
        }
    }
}

impl Reader {
    /// A path as the modules of a package have it; `None` for other packages.
    fn absolute(&self, module: &Module, path: &str) -> Option<Module> {
        let segments: Vec<String> = path.split("::").map(|segment| segment.trim().to_owned()).collect();
        let first = segments.first()?.as_str();
        let after = |count: usize| segments[count..].iter().cloned();
        match first {
            "crate" => Some(module[..1].iter().cloned().chain(after(1)).collect()),
            "self" => Some(module.iter().cloned().chain(after(1)).collect()),
            "super" => {
                let up = segments.iter().take_while(|segment| *segment == "super").count();
                let parent = module.get(..module.len().checked_sub(up)?)?;
                Some(parent.iter().cloned().chain(after(up)).collect())
            }
            _ if PACKAGES.iter().any(|(package, _)| *package == first) => Some(segments),
            _ if self.children[module].contains(first) => Some(module.iter().cloned().chain(after(0)).collect()),
            _ => None,
        }
    }

    /// The file that defines what a path names, and the name.
    fn file(&self, path: Module) -> Option<(Node, Option<String>)> {
        let length = (1..=path.len()).rev().find(|length| self.paths.contains_key(&path[..*length]))?;
        let (module, rest) = (path[..length].to_vec(), &path[length..]);
        if let Some(target) = rest.first().and_then(|name| self.passed_on.get(&(module.clone(), name.clone()))) {
            return self.file(target.iter().chain(&rest[1..]).cloned().collect());
        }
        Some((Node { path: self.paths[&module].clone(), module }, rest.first().cloned()))
    }
}

fn module(path: &str) -> Module {
    let (package, rest) =
        PACKAGES.iter().find_map(|(package, root)| Some((package, path.strip_prefix(root)?))).expect("a package");
    let segments = rest.trim_end_matches(".rs").split('/').filter(|segment| *segment != "lib");
    std::iter::once((*package).to_owned()).chain(segments.map(str::to_owned)).collect()
}

/// The code before the tests, without comments.
fn code(source: &Source) -> String {
    source.lines().into_iter().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn children(code: &str) -> BTreeSet<String> {
    let declared = code.lines().filter_map(|line| {
        let line = line.strip_prefix("pub").map_or(line, |rest| rest.trim_start_matches(|c| c != ' ').trim_start());
        line.strip_prefix("mod ")?.strip_suffix(';').map(str::to_owned)
    });
    declared.collect()
}

/// The `use` declarations: whether each is public, and its tree.
fn uses(code: &str) -> impl Iterator<Item = (bool, String)> {
    code.split(';').filter_map(|statement| {
        let line = statement.lines().position(|line| {
            let line = line.trim_start();
            line.starts_with("use ") || (line.starts_with("pub") && line.contains(" use "))
        })?;
        let text = statement.lines().skip(line).collect::<Vec<_>>().join(" ");
        let (front, tree) = text.split_once("use ")?;
        Some((front.trim_start().starts_with("pub"), tree.to_owned()))
    })
}

/// The paths of a `use` tree.
fn expand(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((front, rest)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().trim().to_owned()];
    };
    let inner = rest.rsplit_once('}').map_or(rest, |(inner, _)| inner);
    let (mut parts, mut depth) = (vec![String::new()], 0);
    for c in inner.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        parts.last_mut().expect("a part").push(c);
    }
    let whole = |part: String| {
        if part == "self" { front.trim_end_matches("::").to_owned() } else { format!("{front}{part}") }
    };
    parts.iter().filter(|part| !part.trim().is_empty()).flat_map(|part| expand(part)).map(whole).collect()
}

/// Every path that the code names: `use` declarations that are not passed on, and paths in the code.
fn imported(code: &str, children: &BTreeSet<String>) -> Vec<String> {
    let mut paths: Vec<String> =
        uses(code).filter(|(is_public, _)| !is_public).flat_map(|(_, tree)| expand(&tree)).collect();
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    for line in code.lines().filter(|line| !line.trim_start().starts_with("use ") && !line.contains("pub use ")) {
        for word in line.split(|c| !is_path(c)).filter(|word| word.contains("::")) {
            let first = word.split("::").next().unwrap_or_default();
            let known = ["crate", "super"].contains(&first) || PACKAGES.iter().any(|(package, _)| *package == first);
            if known || children.contains(first) {
                paths.push(word.trim_end_matches(':').to_owned());
            }
        }
    }
    paths
}
