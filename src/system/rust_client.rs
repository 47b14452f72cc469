//! Where vLLM's own Rust client is on this machine: in the package of a vllm that starts it, or the program `vllm-bench`.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::environment::Environment;
use crate::plan::suite::RUST_CLIENT;
use crate::plan::target::Target;
use crate::system::{program_path, regular_file};

/// The variable with the path of that client, where it is not in the package.
const PATH_VARIABLE: &str = "VLLM_RUST_FRONTEND_PATH";

/// The program that is this client alone.
pub const STANDALONE: &str = "vllm-bench";

/// The client in the package of vLLM.
const IN_PACKAGE: &str = "vllm-rs";

/// Most bytes of the file of vLLM that lists its variables: in 0.32 it has 80 kB.
const LONGEST_FILE: u64 = 4 << 20;

/// Which program is the Rust client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RustClient {
    /// The vllm itself, with [`RUST_CLIENT`]. Also where its package was not found: it says what it lacks when it runs.
    OfVllm,
    /// This program, which takes the flags alone.
    Standalone(PathBuf),
    /// None, and why.
    Missing(String),
}

/// The vllm of this machine that starts the clients of a target; `None` where they are in a container, or simulated.
pub fn vllm_of(target: &Target) -> Option<&Path> {
    match target {
        Target::Local(vllm) => Some(vllm),
        Target::Remote(_) => Some(Path::new("vllm")),
        _ => None,
    }
}

/// The Rust client of the executable `vllm`, or else the one alone on the `PATH` of `environment`.
pub fn find(vllm: &Path, environment: &Environment) -> RustClient {
    let (path, own) = (environment.get("PATH").unwrap_or_default(), environment.get(PATH_VARIABLE));
    let lacks = match program_path::find(vllm, path).filter(|found| found.is_file()) {
        Some(found) => packages(&found).first().and_then(|package| lacks(package, own)),
        None => Some(format!("there is no program `{}` on PATH", vllm.display())),
    };
    let Some(reason) = lacks else { return RustClient::OfVllm };
    match program_path::find(Path::new(STANDALONE), path) {
        Some(program) => RustClient::Standalone(program),
        None => RustClient::Missing(format!("{reason}, and there is no program `{STANDALONE}` on PATH")),
    }
}

/// What a package of vLLM lacks to start the Rust client.
fn lacks(package: &Path, own: Option<&str>) -> Option<String> {
    let shown = package.display();
    let mut text = String::new();
    let file = regular_file::open_followed(&package.join("envs.py")).ok()?;
    file.take(LONGEST_FILE).read_to_string(&mut text).ok()?;
    if !text.contains(RUST_CLIENT) {
        return Some(format!("the vLLM in `{shown}` does not know {RUST_CLIENT}, as vLLM before 0.27"));
    }
    // As vLLM reads it: any other value is the path of a program.
    let is_elsewhere = own.is_some_and(|own| !["auto", "1", "true"].contains(&own.to_lowercase().as_str()));
    let is_there = is_elsewhere || package.join(IN_PACKAGE).is_file();
    (!is_there).then(|| format!("the vLLM in `{shown}` was built without `{IN_PACKAGE}`"))
}

/// The folders of the package `vllm` that belong to an executable: in the environment that it is in, or in that of the Python
/// which its first line names. There is none for a vLLM that is run from its sources.
fn packages(vllm: &Path) -> Vec<PathBuf> {
    let programs = [vllm.canonicalize().ok(), program_path::interpreter(vllm)];
    let roots = programs.into_iter().flatten().filter_map(|program| Some(program.parent()?.parent()?.to_owned()));
    let mut found = Vec::new();
    for library in roots.flat_map(|root| [root.join("lib"), root.join("lib64")]) {
        let Ok(entries) = std::fs::read_dir(&library) else { continue };
        let versions = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("python3"));
        for packages in
            versions.flat_map(|entry| ["site-packages", "dist-packages"].map(|name| entry.path().join(name)))
        {
            found.extend(Some(packages.join("vllm")).filter(|package| package.join("envs.py").is_file()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::system::output;

    fn program(path: PathBuf, text: &str) -> PathBuf {
        output::write(&path, text.as_bytes()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn environment(path: &str, own: Option<&str>) -> Environment {
        let own = own.map(|own| (PATH_VARIABLE, own));
        std::iter::once(("PATH", path)).chain(own).collect()
    }

    #[test]
    fn the_client_is_that_of_the_package_or_the_program_alone_or_missing_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let package = root.join("venv/lib/python3.12/site-packages/vllm");
        let vllm = program(root.join("venv/bin/vllm"), "#!/usr/bin/python3\n");
        let found = |path: &str, own: Option<&str>| match find(&vllm, &environment(path, own)) {
            RustClient::Missing(why) => why.replace(&root.display().to_string(), "DIR"),
            other => format!("{other:?}").replace(&root.display().to_string(), "DIR"),
        };
        assert_eq!(found("", None), "OfVllm", "run from its sources: not known");
        output::write(&package.join("envs.py"), b"VLLM_USE_RUST_FRONTEND: bool = False\n").unwrap();
        insta::assert_snapshot!(found("", None), @"the vLLM in `DIR/venv/lib/python3.12/site-packages/vllm` does not know VLLM_USE_RUST_BENCH, as vLLM before 0.27, and there is no program `vllm-bench` on PATH");
        output::write(&package.join("envs.py"), b"VLLM_USE_RUST_BENCH: bool = False\n").unwrap();
        insta::assert_snapshot!(found("", None), @"the vLLM in `DIR/venv/lib/python3.12/site-packages/vllm` was built without `vllm-rs`, and there is no program `vllm-bench` on PATH");
        assert_eq!(found("", Some("/opt/vllm-rs")), "OfVllm");
        let bin = root.join("bin").display().to_string();
        program(root.join("bin/vllm-bench"), "\x7fELF");
        assert_eq!(found(&bin, Some("auto")), r#"Standalone("DIR/bin/vllm-bench")"#);
        program(package.join("vllm-rs"), "\x7fELF");
        assert_eq!(found(&bin, None), "OfVllm");
    }

    #[test]
    fn the_package_of_a_link_or_of_a_script_elsewhere_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        output::write(&root.join("venv/lib/python3.13/site-packages/vllm/envs.py"), b"").unwrap();
        let vllm = program(root.join("venv/bin/vllm"), "#!/usr/bin/python3\n");
        std::fs::create_dir(root.join("bin")).unwrap();
        symlink(&vllm, root.join("bin/vllm")).unwrap();
        let python = root.join("venv/bin/python").display().to_string();
        let elsewhere = program(root.join("other/vllm"), &format!("#!{python}\n"));
        for found in [root.join("bin/vllm"), elsewhere] {
            assert_eq!(packages(&found), [root.join("venv/lib/python3.13/site-packages/vllm")], "{}", found.display());
        }
    }

    #[test]
    fn without_a_vllm_the_program_alone_is_the_client() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        let missing = "there is no program `vllm` on PATH, and there is no program `vllm-bench` on PATH".to_owned();
        assert_eq!(find(Path::new("vllm"), &environment(&path, None)), RustClient::Missing(missing));
        let client = program(folder.path().join("vllm-bench"), "\x7fELF");
        assert_eq!(find(Path::new("vllm"), &environment(&path, None)), RustClient::Standalone(client));
    }
}
