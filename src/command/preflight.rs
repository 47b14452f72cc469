//! What can be known before the first server: whether a run can end well on this machine. Every mistake is one sentence, and
//! nothing has been started or written.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};
use tokio::net::TcpStream;
use url::Url;
use vllm_verdict::case::MeasuredBy;
use vllm_verdict::side::Side;

use crate::ci::event::is_proposal;
use crate::environment::{Environment, NOT_UTF8};
use crate::exit::Classify;
use crate::plan::Plan;
use crate::plan::config::ContainerConfig;
use crate::plan::suite::Case;
use crate::plan::suite::client_flags::{is_flag, values};
use crate::plan::target::Target;
use crate::plan::wheel::Wheel;
use crate::plan::wheel_name::WheelName;
use crate::run::build_fetch;
use crate::system::rust_client::{self, RustClient};
use crate::system::shell::Shell;
use crate::system::wheel_cache::WheelCache;
use crate::system::{docker, program_path};

/// Least free space of the output folder's disk, in bytes: about the size of a large suite's plan, which is written first.
const LEAST_SPACE: u64 = 64 << 10;

/// How long a running server may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_millis(800);

/// Checks that the programs, the container engine and the models of the plan are there, and that `out` can be written.
///
/// # Errors
/// The user's mistake (exit 2): the text names the flag or the case, and what is missing.
pub async fn check(plan: &Plan, container: &ContainerConfig, out: &Path, shell: &Shell) -> Result<()> {
    let environment = &shell.environment;
    output(out).mistake()?;
    let is_image = plan.sides.present().any(|(_, side)| matches!(side.target, Target::Image(_)));
    // Docker would make a folder of root.
    if let Some(gone) = container.paths().find(|path| is_image && !Path::new(path).exists()) {
        return Err(anyhow!("`container` in vllm-perf.yml names `{gone}`, which is not there")).mistake();
    }
    if is_image || plan.cases.iter().any(|case| case.measured_by != MeasuredBy::Native) {
        name_for_others(out, is_image).mistake()?;
    }
    for (side, planned) in plan.sides.present() {
        let path = environment.get("PATH").unwrap_or_default();
        let by_vllm = plan.cases.iter().find(|case| case.measured_by == MeasuredBy::Vllm);
        if let Target::Remote(url) = &planned.target
            && let Err(error) = listens(url).await
        {
            let flag = side.as_str();
            shell.say(&format!("--{flag} {}: no server answers yet ({error:#})", planned.target));
        }
        let by_rust = plan.cases.iter().find(|case| case.measured_by == MeasuredBy::VllmRs);
        if let (Some(case), Some(vllm)) = (by_rust, rust_client::vllm_of(&planned.target)) {
            rust_client(case, vllm, environment).with_context(|| format!("--{}", side.as_str())).mistake()?;
        }
        match (&planned.target, by_vllm) {
            (Target::Local(program), _) => local(side, program, path).mistake()?,
            (Target::Remote(_), Some(case)) => executable(Path::new("vllm"), path)
                .with_context(|| {
                    let name = &case.name;
                    format!("--{}: `{name}` is measured by `vllm bench serve` on this machine", side.as_str())
                })
                .mistake()?,
            (Target::Wheel(wheel), _) => self::wheel(side, wheel, plan, shell).await?,
            (Target::Image(_), _) => engine(side, path, environment).await.mistake()?,
            (Target::Remote(_) | Target::Sim(_), _) => {}
        }
    }
    let is_here = |target: &Target| matches!(target, Target::Local(_) | Target::Wheel(_));
    if plan.sides.present().any(|(_, side)| is_here(&side.target)) {
        models(plan).mistake()?;
    }
    Ok(())
}

/// Checks that a wheel can be installed here, and its checkout put over it.
async fn wheel(side: Side, wheel: &Wheel, plan: &Plan, shell: &Shell) -> Result<()> {
    let flag = || format!("--{} wheel:{wheel}", side.as_str());
    if let Wheel::File(path) = wheel {
        wheel_file(path).with_context(flag).mistake()?;
    }
    wheel.folder(plan.device.name).with_context(flag).mistake()?;
    WheelCache::of(&shell.environment)?;
    // Only the checkout of a pull request has to be of its head.
    let head = plan.event.head_sha.as_deref().filter(|_| is_proposal(&plan.event) && side == Side::Head);
    build_fetch::check_checkout(wheel, head, plan.device.name, shell).await.with_context(flag)
}

/// Checks that a wheel is there and that this machine can run it.
fn wheel_file(path: &Path) -> Result<()> {
    ensure!(path.is_file(), "there is no file `{}`", path.display());
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let name: WheelName = file.parse()?;
    let here = std::env::consts::ARCH;
    ensure!(name.fits(here), "the wheel is for {}, and this machine is Linux on {here}", name.platform());
    Ok(())
}

fn local(side: Side, program: &Path, path: &str) -> Result<()> {
    let flag = side.as_str();
    executable(program, path)
        .map_err(|error| anyhow!("{error:#}: name a vllm executable with --{flag} local:PATH"))
        .with_context(|| format!("--{flag} {}", Target::Local(program.to_owned())))
}

/// Checks that vLLM's Rust client is on this machine, where `vllm` or its own program would start it.
fn rust_client(case: &Case, vllm: &Path, environment: &Environment) -> Result<()> {
    let name = &case.name;
    match rust_client::find(vllm, environment) {
        RustClient::OfVllm | RustClient::Standalone(_) => Ok(()),
        RustClient::Missing(why) => {
            bail!("`{name}` is measured by vLLM's Rust client: {why}; install one, or use --client vllm")
        }
    }
}

/// Checks that a program can be started.
fn executable(program: &Path, path: &str) -> Result<()> {
    let shown = program.display();
    let Some(found) = program_path::find(program, path) else { bail!("there is no program `{shown}` on PATH") };
    let metadata = match std::fs::metadata(&found) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            bail!("there is no program `{shown}`")
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read `{shown}`")),
    };
    if metadata.is_dir() {
        let inside = ["bin/vllm", "vllm"].map(|name| found.join(name)).into_iter().find(|inside| inside.is_file());
        let hint = inside.map(|inside| format!("; it has `{}`", inside.display()));
        bail!("`{shown}` is a folder, not a program{}", hint.unwrap_or_default());
    }
    ensure!(access(&found, AccessFlags::X_OK).is_ok(), "`{shown}` cannot be executed: `chmod +x` it");
    match program_path::interpreter(&found) {
        Some(interpreter) if !interpreter.exists() => bail!(
            "`{shown}` needs `{}`, which is not there, as after its virtual environment was moved",
            interpreter.display()
        ),
        _ => Ok(()),
    }
}

/// Checks that something listens at a URL. A server may still be starting.
async fn listens(url: &Url) -> Result<()> {
    let addresses = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
    let connected = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(addresses)).await;
    connected.context("it does not answer")?.map(drop).map_err(Into::into)
}

async fn engine(side: Side, path: &str, environment: &Environment) -> Result<()> {
    let flag = side.as_str();
    executable(Path::new("docker"), path)
        .map_err(|error| anyhow!("--{flag} is an image, and {error:#}: install Docker, or give --{flag} local:PATH"))?;
    docker::answers(environment)
        .await
        .with_context(|| format!("--{flag} is an image, and the container engine cannot be used"))
}

/// Checks that the models and tokenizers that are given as paths are there. Other names are of the hub.
fn models(plan: &Plan) -> Result<()> {
    for case in &plan.cases {
        let commands = case.server.iter().chain([&case.client]);
        let named = commands.flat_map(|command| values(&command.argv));
        let tokenizers = named.filter(|it| is_flag(it.flag, "tokenizer") || is_flag(it.flag, "model"));
        for name in std::iter::once(case.model.as_str()).chain(tokenizers.map(|it| it.value)) {
            ensure!(
                !is_path(name) || Path::new(name).exists(),
                "`{}` needs the model `{name}`, and there is no such folder{}",
                case.name,
                if name.starts_with('~') { ": write the home folder in full" } else { "" }
            );
        }
    }
    Ok(())
}

/// Whether the name of a model can only be a path: names of the hub have at most one `/`, between two words.
fn is_path(name: &str) -> bool {
    let begins = ["/", "./", "../", "~"].iter().any(|beginning| name.starts_with(beginning));
    !name.contains("://") && (begins || name.ends_with('/') || name.matches('/').count() > 1)
}

/// Checks that the output folder can be made and written.
fn output(out: &Path) -> Result<()> {
    let shown = out.display();
    let folder = nearest(out)?;
    // A file without a name, which is gone at once.
    tempfile::tempfile_in(&folder).with_context(|| format!("cannot write into `{}`", folder.display()))?;
    let Ok(disk) = statvfs(&folder) else { return Ok(()) };
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    ensure!(free >= LEAST_SPACE, "there is no room on the disk of `{shown}`: free some, or give another --out");
    ensure!(disk.files() == 0 || disk.files_available() > 0, "the disk of `{shown}` can have no more files");
    Ok(())
}

/// Checks that other programs can be given the path of the output folder.
fn name_for_others(out: &Path, is_image: bool) -> Result<()> {
    let folder = nearest(out)?;
    let folder = folder.canonicalize().unwrap_or(folder);
    let shown = folder.display();
    let Some(text) = folder.to_str() else { bail!("the output folder is in `{shown}`, which {NOT_UTF8}") };
    let is_split = is_image && (text.contains(':') || out.to_string_lossy().contains(':'));
    ensure!(!is_split, "the path of the output folder `{}` has a colon, which Docker cannot mount", out.display());
    Ok(())
}

/// The folder itself, or the nearest one above it that exists.
fn nearest(out: &Path) -> Result<PathBuf> {
    let shown = out.display();
    for folder in out.ancestors() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        match std::fs::metadata(folder) {
            Ok(found) if found.is_dir() => return Ok(folder.to_owned()),
            Ok(_) => bail!("`{}` is a file: give a folder as --out", folder.display()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let is_link = folder.symlink_metadata().is_ok();
                ensure!(!is_link, "`{}` is a link to a folder that is not there", folder.display());
            }
            Err(error) if error.kind() == ErrorKind::NotADirectory => {}
            Err(error) => return Err(error).with_context(|| format!("cannot use `{shown}` as --out")),
        }
    }
    bail!("there is no folder above `{shown}`")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::system::output as write;

    fn program(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        write::write(&path, text.as_bytes()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn a_program_that_cannot_be_started_is_told_before_it_is_started() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let shown = |text: String| text.replace(&root.display().to_string(), "DIR");
        let path = root.join("bin").display().to_string();
        program(root, "venv/bin/vllm", "#!/bin/sh\n");
        program(root, "moved", "#!/no/such/python3.12\n");
        write::write(&root.join("plain"), b"#!/bin/sh\n").unwrap();
        symlink(root.join("gone"), root.join("dangling")).unwrap();
        let error = |name: &str| {
            let program = if name.contains('/') { PathBuf::from(name) } else { root.join(name) };
            shown(format!("{:#}", local(Side::Head, &program, &path).unwrap_err()))
        };
        let mut errors = vec![error("/no/such/vllm"), error("venv"), error("moved"), error("dangling")];
        errors.push(shown(format!("{:#}", local(Side::Base, Path::new("vllm"), &path).unwrap_err())));
        insta::assert_snapshot!(errors.join("\n"), @r"
        --head local:/no/such/vllm: there is no program `/no/such/vllm`: name a vllm executable with --head local:PATH
        --head local:DIR/venv: `DIR/venv` is a folder, not a program; it has `DIR/venv/bin/vllm`: name a vllm executable with --head local:PATH
        --head local:DIR/moved: `DIR/moved` needs `/no/such/python3.12`, which is not there, as after its virtual environment was moved: name a vllm executable with --head local:PATH
        --head local:DIR/dangling: there is no program `DIR/dangling`: name a vllm executable with --head local:PATH
        --base local: there is no program `vllm` on PATH: name a vllm executable with --base local:PATH
        ");
        program(root, "bin/vllm", "\x7fELF");
        executable(Path::new("vllm"), &path).unwrap();
        executable(&root.join("venv/bin/vllm"), "").unwrap();
    }

    #[test]
    fn names_of_the_hub_are_no_paths() {
        for path in ["/models/x", "./x", "../x", "~/x", "models/a/b", "x/"] {
            assert!(is_path(path), "{path}");
        }
        for name in ["m", "org/name", "meta-llama/Llama-3.1-8B", "s3://bucket/a/b", "org/name:Q4_K_M"] {
            assert!(!is_path(name), "{name}");
        }
    }

    #[test]
    fn an_output_folder_that_cannot_be_written_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write::write(&root.join("file"), b"x").unwrap();
        symlink(root.join("gone"), root.join("link")).unwrap();
        for good in ["", "new", "new/deep/er"] {
            output(&root.join(good)).unwrap();
        }
        output(Path::new("vllm-perf-out")).unwrap();
        let error = |out: &Path| format!("{:#}", output(out).unwrap_err()).replace(&root.display().to_string(), "DIR");
        insta::assert_snapshot!(error(&root.join("file")), @"`DIR/file` is a file: give a folder as --out");
        insta::assert_snapshot!(error(&root.join("file/out")), @"`DIR/file` is a file: give a folder as --out");
        insta::assert_snapshot!(error(&root.join("link")), @"`DIR/link` is a link to a folder that is not there");
        assert!(
            error(Path::new("/proc/out")).starts_with("cannot write into `/proc`"),
            "{}",
            error(Path::new("/proc/out"))
        );
    }

    #[test]
    fn a_path_that_other_programs_cannot_be_given_is_told() {
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        let odd = folder.path().join(std::ffi::OsStr::from_bytes(b"o-\xfc"));
        std::fs::create_dir(&odd).unwrap();
        let error = format!("{:#}", name_for_others(&odd.join("out"), false).unwrap_err());
        assert!(error.contains("which is not UTF-8 text"), "{error}");
        let colon = folder.path().join("a:b");
        assert!(name_for_others(&colon, true).unwrap_err().to_string().contains("has a colon"));
        name_for_others(&colon, false).unwrap();
        name_for_others(&folder.path().join("o-\u{fc}"), true).unwrap();
    }
}
