//! The plan of the house, held by tests: who may import whom, no circles, one name for one file, sizes, and language.
//! `cargo test --test integration house -- --nocapture` prints the import graph.

#![allow(clippy::print_stdout, reason = "the import graph is printed for people")]

mod imports;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use imports::Graph;
use source::{Source, sources};

/// The rooms of the program, from the ground up, and the libraries that each may use. A room imports from itself and from
/// rooms before it.
const ROOMS: [(&str, &[&str]); 15] = [
    ("names", &[]),
    ("exit", &[]),
    ("environment", &[]),
    ("duration", &[]),
    ("escape", &[]),
    ("plan", &["vllm_verdict", "vllm_load"]),
    ("ci", &["vllm_verdict"]),
    ("result", &["vllm_verdict"]),
    ("system", &["vllm_verdict"]),
    ("run", &["vllm_verdict", "vllm_load"]),
    ("report", &["vllm_verdict"]),
    ("dashboard", &["vllm_verdict"]),
    ("publish", &["vllm_verdict"]),
    ("command", &["vllm_verdict", "vllm_load"]),
    ("lib", &[]),
];

/// Arrows that the order allows and the plan does not: measuring, reporting and the dashboard do not know each other.
const APART: [(&str, &str); 2] = [("report", "run"), ("dashboard", "run")];

/// Packages that a library must not depend on, directly.
const FORBIDDEN: [(&str, &[&str]); 2] = [
    (
        "verdict",
        &["tokio", "reqwest", "clap", "hyper", "axum", "tempfile", "nix", "octocrab", "vllm-load", "vllm-perf"],
    ),
    ("load", &["reqwest", "clap", "octocrab", "vllm-verdict", "vllm-perf"]),
];

const LONGEST_FILE: usize = 400;
const LONGEST_FUNCTION: usize = 60;
const MOST_FIELDS: usize = 12;

#[test]
fn each_room_imports_only_from_the_rooms_below_it() {
    let graph = Graph::of(&sources());
    let rooms = graph.rooms();
    for (room, imported) in &rooms {
        let imported: Vec<String> = imported.iter().map(|(other, count)| format!("{other} ({count})")).collect();
        println!("{room} -> {}", imported.join(", "));
    }
    let floor = |room: &str| ROOMS.iter().position(|(name, _)| *name == room);
    let mut broken = Vec::new();
    for arrow in graph.arrows() {
        let (from, to) = (arrow.from.room(), arrow.to.room());
        let allowed = match (floor(from), floor(to)) {
            (Some(from_floor), Some(to_floor)) => to_floor <= from_floor && !APART.contains(&(from, to)),
            (Some(from_floor), None) => ROOMS[from_floor].1.contains(&to),
            (None, Some(_)) => false,
            (None, None) => from == to,
        };
        if !allowed {
            broken.push(arrow.to_string());
        }
    }
    assert!(broken.is_empty(), "arrows that break the order of the rooms:\n{}", broken.join("\n"));
    let unknown: Vec<&String> =
        rooms.keys().filter(|room| floor(room).is_none() && !room.starts_with("vllm_")).collect();
    assert!(unknown.is_empty(), "rooms without a place in the order: {unknown:?}");
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let graph = Graph::of(&sources());
    let circles: Vec<String> = graph.circles().iter().map(ToString::to_string).collect();
    assert!(circles.is_empty(), "arrows of circles:\n{}", circles.join("\n"));
}

#[test]
fn a_library_depends_on_nothing_that_it_must_not_know() {
    for (package, forbidden) in FORBIDDEN {
        let path = format!("{}/crates/{package}/Cargo.toml", env!("CARGO_MANIFEST_DIR"));
        let manifest = fs::read_to_string(&path).unwrap();
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
        let names: BTreeSet<&str> =
            dependencies.lines().filter_map(|line| line.split(['.', ' ', '=']).next()).collect();
        let found: Vec<&&str> = forbidden.iter().filter(|name| names.contains(**name)).collect();
        assert!(found.is_empty(), "crates/{package} depends on {found:?}");
        println!(
            "crates/{package}: {}",
            names.into_iter().filter(|name| !name.is_empty()).collect::<Vec<_>>().join(", ")
        );
    }
}

#[test]
fn a_name_stands_for_one_file() {
    let mut by_name: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources().iter().filter(|source| source.name() != "lib") {
        by_name.entry(source.name().to_owned()).or_default().push(source.path.clone());
    }
    let shared: Vec<_> = by_name.values().filter(|paths| paths.len() > 1).collect();
    assert!(shared.is_empty(), "files that share a name: {shared:#?}");
}

#[test]
fn files_functions_and_structs_stay_small() {
    let mut large = Vec::new();
    for source in sources() {
        let lines = source.lines();
        if lines.len() > LONGEST_FILE {
            large.push(format!("{}: {} lines before its tests, at most {LONGEST_FILE}", source.path, lines.len()));
        }
        for item in source.items() {
            if item.keyword == "fn" && item.lines > LONGEST_FUNCTION {
                large.push(format!(
                    "{}: fn {}: {} lines, at most {LONGEST_FUNCTION}",
                    source.path, item.name, item.lines
                ));
            }
            if item.keyword == "struct" && item.fields > MOST_FIELDS && !item.has_reason {
                large.push(format!(
                    "{}: struct {}: {} fields without a reason (`// {} fields: ...` before it), at most {MOST_FIELDS}",
                    source.path, item.name, item.fields, item.fields
                ));
            }
        }
    }
    assert!(large.is_empty(), "{}", large.join("\n"));
}

/// Sayings that the language of the project does not use, in comments, messages and documents.
const SAYINGS: [&str; 33] = [
    "who tells",
    "of ours stays",
    "is called one",
    "nothing suspicious",
    "the runs cannot tell",
    "could have called one",
    "usual step",
    "is no record,",
    "left out of every number",
    "the same again:",
    "has no size",
    "the world failed",
    "the world's:",
    "world: ",
    "stands twice",
    "stand twice",
    "stands there twice",
    "of a stranger",
    "a stranger's",
    "by strangers",
    "patience",
    "worth a word",
    "drawn by lot",
    "nobody wants",
    "somebody",
    "gets on with",
    "and nothing else of",
    "is no error",
    "is no reason",
    "is no commit",
    "is no target",
    "at its limit of",
    "lies idle",
];

#[test]
fn the_language_is_plain() {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut texts: Vec<(String, String)> = sources().into_iter().map(|source| (source.path, source.text)).collect();
    for path in [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "docs/glossary.md",
        "docs/client.md",
        "docs/migrating.md",
        "pyproject.toml",
        "action.yml",
        "plugin.yml",
        "crates/load/README.md",
        "crates/verdict/README.md",
    ] {
        texts.push((path.to_owned(), fs::read_to_string(format!("{root}/{path}")).unwrap_or_default()));
    }
    let mut found = Vec::new();
    for (path, text) in &texts {
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.to_lowercase();
            found.extend(
                SAYINGS
                    .iter()
                    .filter(|saying| line.contains(**saying))
                    .map(|saying| format!("{path}:{number}: {saying}")),
            );
        }
    }
    assert!(found.is_empty(), "{} sayings:\n{}", found.len(), found.join("\n"));
}

#[test]
fn the_graph_sees_every_form_of_import() {
    let source = |path: &str, text: &str| Source { path: path.to_owned(), text: text.to_owned() };
    let graph = Graph::of(&[
        source("src/plan.rs", "pub mod image;\npub use image::Reference;\n"),
        source("src/plan/image.rs", "use crate::exit::{self, Exit};\npub struct Reference;\n"),
        source("src/exit.rs", "pub enum Exit {}\n#[cfg(test)]\nmod tests {\n    use crate::run::pass;\n}\n"),
        source("src/run/pass.rs", "fn a() { crate::plan::Reference; super::journal::read(); }\n// crate::exit::Exit\n"),
        source("src/run/journal.rs", "use super::pass::Pass;\nuse vllm_load::Load;\n"),
        source("crates/load/src/lib.rs", "mod load;\npub use load::Load;\n"),
        source("crates/load/src/load.rs", ""),
    ]);
    let arrows: Vec<String> = graph.arrows().map(ToString::to_string).collect();
    insta::assert_snapshot!(arrows.join("\n"), @r"
    src/plan/image.rs -> src/exit.rs (Exit)
    src/run/journal.rs -> crates/load/src/load.rs (Load)
    src/run/journal.rs -> src/run/pass.rs (Pass)
    src/run/pass.rs -> src/plan/image.rs (Reference)
    src/run/pass.rs -> src/run/journal.rs (read)
    ");
    let circles: Vec<String> = graph.circles().iter().map(ToString::to_string).collect();
    assert_eq!(
        circles,
        ["src/run/journal.rs -> src/run/pass.rs (Pass)", "src/run/pass.rs -> src/run/journal.rs (read)"]
    );
}

#[test]
fn every_test_that_security_md_names_exists() {
    let root = env!("CARGO_MANIFEST_DIR");
    let read = |path: &str| fs::read_to_string(format!("{root}/{path}")).unwrap();
    let mut code: String = sources().into_iter().map(|source| source.text).collect();
    for entry in fs::read_dir(format!("{root}/tests/integration")).unwrap() {
        code.push_str(&fs::read_to_string(entry.unwrap().path()).unwrap_or_default());
    }
    let name = regex::Regex::new("`([a-z0-9]+(_[a-z0-9]+){3,})`|`(tests/real/[a-z]+)`").unwrap();
    let text = read("SECURITY.md");
    let names: Vec<&str> =
        name.captures_iter(&text).map(|found| found.get(1).or(found.get(3)).unwrap().as_str()).collect();
    let exists = |name: &str| match name.starts_with("tests/") {
        true => Path::new(root).join(name).is_file(),
        false => code.contains(&format!("fn {name}(")),
    };
    let missing: Vec<&&str> = names.iter().filter(|name| !exists(name)).collect();
    assert!(names.len() > 50 && missing.is_empty(), "{} names, missing: {missing:#?}", names.len());
}
