//! Sides without a container: wheels from an index on loopback, installed by a stand-in for `uv`, and the simulated vLLM as what
//! they hold.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use vllm_perf::plan::{Fallback, Plan};

use super::base::git;
use super::run::{SUITE, TWO_CASES, comparison, program, text, wait_until};
use super::secrets::{assert_clean, files, with_canaries};

const BINARY: &str = env!("CARGO_BIN_EXE_vllm-perf");
const BASE: &str = "1111111111111111111111111111111111111111";
const HEAD: &str = "2222222222222222222222222222222222222222";
const ARCHITECTURE: &str = std::env::consts::ARCH;

/// An index, its requests so far, and the folder of a test.
struct World {
    folder: tempfile::TempDir,
    files: Arc<Mutex<BTreeMap<String, String>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

/// The name of the wheel of a version for this machine.
fn wheel(version: &str) -> String {
    format!("vllm-{version}+cpu-cp38-abi3-manylinux_2_28_{ARCHITECTURE}.whl")
}

impl World {
    /// An index with the wheels of two commits, and a `uv` that runs `script` before it installs.
    fn new(script: &str) -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap(), files: Arc::default(), asked: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let index = format!("http://{}", listener.local_addr().unwrap());
        let (files, asked) = (world.files.clone(), world.asked.clone());
        thread::spawn(move || listener.incoming().flatten().for_each(|stream| answer(stream, &files, &asked)));
        world.publish(BASE, &wheel("0.31.0"), "itl=4ms");
        world.publish(HEAD, &wheel("0.32.0"), "itl=5ms");
        let busy = "environment: {max_outside_load: 99%, max_distortion: 99.9%}";
        world.write("vllm-perf.yml", &format!("{busy}\nwheels: {{index: '{index}'}}\n"));
        // A wheel of these tests is the pace of a simulated vLLM.
        world.program(
            "uv",
            &format!(
                r#"echo "$@" >>{root}/uv.log; env >>{root}/uv.env; pwd >{root}/uv.folder
{script}
for last; do :; done
if [ "$1" = venv ]; then mkdir -p "$last/bin"; exit; fi
env="$(dirname "$(dirname "$5")")"
mkdir -p "$env/lib/python3.12/site-packages/vllm/sub"
for file in __init__.py kept.py sub/gone.py _C.so; do echo "wheel $file" >"$env/lib/python3.12/site-packages/vllm/$file"; done
printf '#!/bin/sh\nenv >>{root}/vllm.env\nVLLM_PERF_SIM="%s" exec {BINARY} sim-vllm -- "$@"\n' "$(cat "$last")" >"$env/bin/vllm"
chmod +x "$env/bin/vllm""#,
                root = world.root().display()
            ),
        );
        world
    }

    fn root(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.write(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn serve(&self, path: &str, content: &str) {
        self.files.lock().unwrap().insert(path.to_owned(), content.to_owned());
    }

    /// A wheel as vLLM's index has it: the file beside the variants, which link to it.
    fn publish(&self, commit: &str, file: &str, content: &str) {
        let quoted = file.replace('+', "%2B");
        self.serve(&format!("/{commit}/{file}"), content);
        self.serve(&format!("/{commit}/cpu/"), r#"<a href="vllm/">vllm/</a><br/>"#);
        self.serve(&format!("/{commit}/cpu/vllm/"), &format!(r#"<a href="../../{quoted}">{file}</a><br/>"#));
        let metadata = format!(r#"[{{"package_name": "vllm", "filename": "{file}", "path": "../../{quoted}"}}]"#);
        self.serve(&format!("/{commit}/cpu/vllm/metadata.json"), &metadata);
    }

    /// The program on this machine without a container engine, with a cache of its own.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(arguments);
        let path = format!("{}:/usr/bin:/bin", self.root().join("bin").display());
        // No container engine answers, whether or not there is one.
        command.env("PATH", path).env("DOCKER_HOST", "tcp://127.0.0.1:9").env_remove("VLLM_PERF_SIDES");
        command.env("VLLM_PERF_CACHE", self.root().join("cache")).env("VLLM_PERF_SUITE", SUITE);
        command.env("VLLM_PERF_CONFIG", self.root().join("vllm-perf.yml")).current_dir(self.root());
        command
    }

    fn run(&self, out: &str, base: &str, head: &str, more: &[&str]) -> Command {
        let mut command = self.command(&["run", "--device", "cpu", "--base", base, "--head", head, "--out", out]);
        command.args(["--pairs", "1", "--only", TWO_CASES, "--wait", "0s"]).args(more);
        command
    }

    fn installations(&self) -> usize {
        let log = fs::read_to_string(self.root().join("uv.log")).unwrap_or_default();
        log.lines().filter(|line| line.starts_with("pip install")).count()
    }
}

/// Answers one request: a file of the index, or 404.
fn answer(mut stream: std::net::TcpStream, files: &Mutex<BTreeMap<String, String>>, asked: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let path = first.split(' ').nth(1).unwrap_or_default().replace("%2B", "+");
    asked.lock().unwrap().push(first.clone());
    let found = files.lock().unwrap().get(&path).cloned();
    let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
    let body = found.unwrap_or_default();
    let shown = if first.starts_with("HEAD ") { "" } else { body.as_str() };
    let length = body.len();
    let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{shown}");
}

fn failed(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", text(output));
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
}

#[test]
fn two_wheels_are_installed_once_and_measured_in_pairs() {
    let world = World::new("");
    let (base, head) = (format!("wheel:{BASE}"), format!("wheel:{HEAD}"));
    let first = world.run("one", &base, &head, &[]).output().unwrap();
    assert_eq!(first.status.code(), Some(0), "{}", text(&first));
    let compared = comparison(&world.root().join("one"));
    let tpot = compared.rows.iter().find(|row| row.metric == "median_tpot_ms").unwrap();
    let value =
        |values: &[Option<vllm_verdict::v1::RepetitionValue>]| values[0].as_ref().unwrap().values().next().unwrap();
    assert!(value(&tpot.head) > value(&tpot.base), "head's wheel is the slower vLLM: {tpot:?}");
    let subject = &compared.subject;
    let digest = |side: &Option<vllm_verdict::v1::SideFacts>| side.clone().unwrap().image_digest.unwrap();
    assert_eq!(digest(&subject.base).raw(), "sha256:5b342ae8b6c8d37bd631625ce4dcb3bc8e8b12ebe95be2c018ce2f9d7cc754f5");
    assert_eq!(digest(&subject.head).raw(), "sha256:546e419458646382e82e7bfdea742014632dfc47fd4caea4df3d686b60284263");
    assert_eq!(subject.head.clone().unwrap().commit.unwrap().raw(), HEAD);
    assert_eq!(world.installations(), 2);
    // A pull request could put settings of uv into the folder of the run.
    assert_eq!(fs::read_to_string(world.root().join("uv.folder")).unwrap(), "/\n");

    world.asked.lock().unwrap().clear();
    let again = world.run("two", &base, &head, &[]).output().unwrap();
    assert_eq!(again.status.code(), Some(0), "{}", text(&again));
    assert_eq!(world.installations(), 2, "they are in the cache");
    assert_eq!(*world.asked.lock().unwrap(), Vec::<String>::new(), "the wheel of a commit never changes");
}

#[test]
fn commits_are_wheels_where_no_container_engine_answers_and_the_plan_says_why() {
    let world = World::new("");
    let plan = |more: &[&str]| {
        let arguments = ["plan", "--device", "cpu", "--only", TWO_CASES, "--base", BASE, "--head", HEAD];
        let output = world.command(&[&arguments, more].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let automatic = plan(&["--check-images"]);
    assert!(automatic.contains(&format!("base      wheel:{BASE}\nhead      wheel:{HEAD}\n")), "{automatic}");
    assert!(automatic.contains("wheels, because no container engine answers ("), "{automatic}");
    assert!(automatic.contains(&format!("wheel     {HEAD}: available")), "{automatic}");
    let named = plan(&["--sides", "image"]);
    assert!(
        named.contains(&format!("head      image:public.ecr.aws/q9t5s3a7/vllm-ci-postmerge-repo:{HEAD}-cpu\n")),
        "{named}"
    );
    assert!(named.contains("images, because --sides says so"), "{named}");
}

#[test]
fn a_wheel_that_cannot_be_had_is_told_in_one_line_and_nothing_starts() {
    let world = World::new("");
    let unknown = "3333333333333333333333333333333333333333";
    let run = |head: &str| world.run("out", "none", &format!("wheel:{head}"), &[]).output().unwrap();
    let missing = |commit: &str, why: &str| {
        let line = failed(&run(commit), 4);
        assert!(
            line.contains(&format!("wheel missing: wheel:{commit} ({why}")) && line.contains("look at the wheel build"),
            "{line}"
        );
    };
    missing(unknown, "the index does not have it");
    let other = format!(
        "vllm-0.32.0-cp38-abi3-manylinux_2_28_{}.whl",
        if ARCHITECTURE == "x86_64" { "aarch64" } else { "x86_64" }
    );
    world.publish(unknown, &other, "x");
    missing(unknown, "the index has it for manylinux_2_28_");
    world.publish(unknown, &wheel("0.33.0"), "x");
    world.serve(&format!("/{unknown}/cpu/vllm/metadata.json"), r#"[{"filename": "vllm-"#);
    missing(unknown, "its metadata.json is not complete");
    world.publish(unknown, &wheel("0.33.0"), "x");
    world.files.lock().unwrap().remove(&format!("/{unknown}/{}", wheel("0.33.0")));
    missing(unknown, "the index names vllm-0.33.0+cpu-");
    let metadata = format!("/{unknown}/cpu/vllm/metadata.json");
    world.files.lock().unwrap().remove(&metadata);
    world.serve(&format!("/{unknown}/{}", wheel("0.33.0")), "x");
    let listed = format!(r#"<a href="../../{0}#sha256={1}">{0}</a>"#, wheel("0.33.0"), "a".repeat(64));
    world.serve(&format!("/{unknown}/cpu/vllm/"), &listed);
    let line = failed(&run(unknown), 4);
    assert!(
        line.contains("is not the file that its index names: its SHA-256 is 2d711642b726b04401627ca9fbac32f5"),
        "{line}"
    );
    let variants = "4444444444444444444444444444444444444444";
    world.serve(&format!("/{variants}/cpu/"), r#"<a href="avx2/">avx2/</a><a href="avx512/">avx512/</a>"#);
    missing(variants, "the index has it as avx2, avx512: name one after a `/`");
    assert_eq!(world.installations(), 0);
    let left: Vec<PathBuf> =
        fs::read_dir(world.root().join("cache")).unwrap().flatten().map(|entry| entry.path()).collect();
    assert!(!left.iter().any(|path| path.ends_with("environments") || path.ends_with("known")), "{left:?}");
}

#[test]
fn a_wheel_of_this_machine_that_does_not_fit_is_the_users_mistake() {
    let world = World::new("");
    let run = |head: &str| failed(&world.run("out", "none", head, &[]).output().unwrap(), 2);
    assert!(run("wheel:gone.whl").ends_with("there is no file `gone.whl`"));
    world.write("vllm-0.32.0-cp38-abi3-macosx_11_0_arm64.whl", "x");
    let other = run("wheel:vllm-0.32.0-cp38-abi3-macosx_11_0_arm64.whl");
    assert!(other.contains("the wheel is for macosx_11_0_arm64, and this machine is Linux on"), "{other}");
    world.write("not-a-wheel.whl", "x");
    assert!(run("wheel:not-a-wheel.whl").contains("`not-a-wheel.whl` is not the name of a wheel"));
    assert_eq!(world.installations(), 0);
    let file = world.write(&wheel("0.32.0"), "itl=2ms");
    let output = world.run("out", "none", &format!("wheel:{}", file.display()), &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(*world.asked.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn an_installation_that_fails_or_is_killed_leaves_nothing_that_is_used() {
    let full =
        "case \"$1\" in pip) echo 'error: failed to write: No space left on device (os error 28)' >&2; exit 2;; esac";
    let world = World::new(full);
    let head = format!("wheel:{HEAD}");
    let line = failed(&world.run("out", "none", &head, &[]).output().unwrap(), 4);
    assert!(
        line.contains("No space left on device") && line.contains("set VLLM_PERF_CACHE to a folder on another disk"),
        "{line}"
    );

    let slow = World::new("[ \"$1\" = venv ] || while [ ! -e \"$(dirname \"$0\")/../go\" ]; do sleep 0.1; done");
    let mut killed = slow.run("out", "none", &head, &[]).stderr(Stdio::null()).spawn().unwrap();
    wait_until("an installation", || slow.installations() == 1);
    killed.kill().unwrap();
    killed.wait().unwrap();
    slow.write("go", "");
    let output = slow.run("out", "none", &head, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(slow.installations(), 2, "the first one is not trusted");
}

#[test]
fn two_runs_at_once_install_a_wheel_once() {
    let world = World::new("[ \"$1\" = venv ] || sleep 1");
    let head = format!("wheel:{HEAD}");
    let start = |out| world.run(out, "none", &head, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    for mut run in ["one", "two"].map(start) {
        assert!(run.wait().unwrap().success());
    }
    assert_eq!(world.installations(), 1);
    let fetched =
        world.asked.lock().unwrap().iter().filter(|line| line.starts_with("GET ") && line.contains(".whl ")).count();
    assert_eq!(fetched, 1);
}

#[test]
fn without_uv_and_without_a_way_to_it_the_error_says_how_to_get_it() {
    let world = World::new("");
    fs::remove_file(world.root().join("bin/uv")).unwrap();
    let mut command = world.run("out", "none", &format!("wheel:{HEAD}"), &[]);
    let line = failed(&command.env("PATH", world.root().join("bin")).output().unwrap(), 4);
    assert!(
        line.contains("there is neither `uv` nor `python3` on PATH: install uv (https://docs.astral.sh/uv)"),
        "{line}"
    );
    world.program("python3", "echo 'No module named ensurepip' >&2; exit 1");
    let mut command = world.run("out", "none", &format!("wheel:{HEAD}"), &[]);
    let line = failed(&command.env("PATH", world.root().join("bin")).output().unwrap(), 4);
    assert!(line.contains("it cannot be installed from PyPI") && line.contains("No module named ensurepip"), "{line}");
}

/// A checkout of vLLM whose first commit is that of the wheel, and changes to it.
fn checkout(world: &World) -> (PathBuf, String) {
    let files =
        [("vllm/__init__.py", "base"), ("vllm/kept.py", "base"), ("vllm/sub/gone.py", "base"), ("csrc/a.cu", "1")];
    files.iter().for_each(|(name, content)| drop(world.write(&format!("checkout/{name}"), content)));
    let folder = world.root().join("checkout");
    git(&folder, &["init", "--quiet"]);
    git(&folder, &["add", "."]);
    git(&folder, &["commit", "--quiet", "--message", "base"]);
    let base = git(&folder, &["rev-parse", "HEAD"]);
    world.publish(&base, &wheel("0.31.0"), "itl=4ms");
    fs::remove_file(folder.join("vllm/sub/gone.py")).unwrap();
    world.write("checkout/vllm/__init__.py", "head");
    world.write("checkout/vllm/new.py", "head");
    (folder, base)
}

#[test]
fn the_python_files_of_a_checkout_replace_those_of_the_wheel_and_compiled_code_may_not_change() {
    let world = World::new("");
    let (folder, base) = checkout(&world);
    let head = format!("wheel:{base}+{}", folder.display());
    let output = world.run("out", &format!("wheel:{base}"), &head, &[]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(world.installations(), 1, "both sides share the environment");
    let variables = fs::read_to_string(world.root().join("vllm.env")).unwrap();
    let over: BTreeMap<&str, ()> =
        variables.lines().filter_map(|line| Some((line.strip_prefix("PYTHONPATH=")?, ()))).collect();
    let [over] = over.into_keys().collect::<Vec<_>>()[..] else {
        panic!("one side has a folder of its own: {variables}")
    };
    let read = |name: &str| fs::read_to_string(Path::new(over).join("vllm").join(name)).ok();
    let found = ["__init__.py", "new.py", "kept.py", "_C.so", "sub/gone.py"].map(read);
    let expected = [Some("head"), Some("head"), Some("wheel kept.py\n"), Some("wheel _C.so\n"), None];
    assert_eq!(found, expected.map(|text| text.map(str::to_owned)));
    let wheel_file = world.root().join("cache/environments");
    let kept = fs::read_dir(wheel_file).unwrap().flatten().find(|entry| entry.path().is_dir()).unwrap().path();
    let of_wheel = fs::read_to_string(kept.join("lib/python3.12/site-packages/vllm/__init__.py")).unwrap();
    assert_eq!(of_wheel, "wheel __init__.py\n", "the environment is base's");

    world.write("checkout/csrc/a.cu", "2");
    let line = failed(&world.run("out2", "none", &head, &[]).output().unwrap(), 2);
    assert!(line.ends_with("it changes `csrc/a.cu`, which is compiled: build a wheel or an image of it"), "{line}");
    let elsewhere = format!("wheel:{BASE}+{}", folder.display());
    let line = failed(&world.run("out2", "none", &elsewhere, &[]).output().unwrap(), 2);
    assert!(line.contains(&format!("git does not know {BASE} there: fetch it")), "{line}");
    let line = failed(&world.run("out2", "none", &format!("wheel:{BASE}+bin"), &[]).output().unwrap(), 2);
    assert!(line.contains("it is no checkout of vLLM"), "{line}");
}

#[test]
fn a_pull_request_runs_without_a_container_only_where_it_is_asked_for_as_python_files_over_the_wheel_of_the_merge_base()
{
    let world = World::new("");
    let (folder, base) = checkout(&world);
    git(&folder, &["add", "--all"]);
    git(&folder, &["commit", "--quiet", "--message", "head"]);
    let head = git(&folder, &["rev-parse", "HEAD"]);
    let event = format!(
        r#"{{"action": "labeled", "number": 7, "pull_request": {{"number": 7, "labels": [{{"name": "perf-benchmarks"}}, {{"name": "ready"}}],
            "head": {{"sha": "{head}", "ref": "faster", "repo": {{"full_name": "o/r", "fork": false}}}},
            "base": {{"sha": "{base}", "ref": "main", "repo": {{"full_name": "o/r", "fork": false}}}}}}, "repository": {{"full_name": "o/r"}}}}"#
    );
    let event = world.write("event.json", &event);
    let plan = |sides: &str| {
        let mut command = world.command(&["plan", "--device", "cpu", "--format", "json", "--only", TWO_CASES]);
        command.current_dir(&folder).env("GITHUB_ACTIONS", "true").env("GITHUB_EVENT_NAME", "pull_request");
        command.env("GITHUB_REPOSITORY", "o/r").env("GITHUB_EVENT_PATH", &event).env("GITHUB_RUN_ID", "1");
        command.env("VLLM_PERF_SIDES", sides);
        command.output().unwrap()
    };
    let plan = |sides: &str| -> Plan {
        let output = plan(sides);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let automatic = plan("auto").sides.head.unwrap().target.to_string();
    assert_eq!(automatic, format!("image:public.ecr.aws/q9t5s3a7/vllm-ci-test-repo:{head}-cpu"));
    let plan = plan("wheel");
    assert!(plan.trigger.run, "{}", plan.trigger.reason);
    let shown =
        |side: Option<vllm_perf::plan::SidePlan>| side.map(|side| (side.target.to_string(), side.commit)).unwrap();
    assert_eq!(shown(plan.sides.head), (format!("wheel:{base}+."), Some(head)));
    assert_eq!(shown(plan.sides.base), (format!("wheel:{base}"), Some(base)));
}

#[test]
fn a_missing_wheel_of_base_falls_back_to_an_earlier_commit() {
    let world = World::new("");
    let (main, _) = super::base::checkout(world.root());
    world.publish(&main[1], &wheel("0.31.0"), "itl=4ms");
    world.publish(&main[3], &wheel("0.31.0"), "itl=4ms");
    world.files.lock().unwrap().retain(|path, _| !path.starts_with(&format!("/{}", main[3])));
    let run = |most: &str| {
        world.run("out", &format!("wheel:{}", main[3]), "sim", &["--base-fallback", most]).output().unwrap()
    };
    let short = failed(&run("1"), 4);
    assert!(
        short.contains(&format!("wheel missing: wheel:{}, and those of the 1 commits before it", main[3])),
        "{short}"
    );
    let output = run("2");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let plan: Plan = serde_json::from_str(&fs::read_to_string(world.root().join("out/plan.json")).unwrap()).unwrap();
    assert_eq!(plan.fallback, Some(Fallback { wanted: main[3].clone(), used: main[1].clone(), behind: 2 }));
}

#[test]
fn an_interrupt_during_an_installation_ends_it() {
    let world = World::new("[ \"$1\" = venv ] || { echo $$ >\"$(dirname \"$0\")/../pid\"; sleep 300; }");
    let run = world.run("out", "none", &format!("wheel:{HEAD}"), &[]).stderr(Stdio::null()).spawn().unwrap();
    wait_until("an installation", || fs::read_to_string(world.root().join("pid")).is_ok_and(|pid| pid.ends_with('\n')));
    let id = nix::unistd::Pid::from_raw(i32::try_from(run.id()).unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let uv = fs::read_to_string(world.root().join("pid")).unwrap();
    let stat = PathBuf::from(format!("/proc/{}/stat", uv.trim()));
    wait_until("the end of uv", || fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z ")));
}

#[test]
fn of_all_secrets_a_wheel_gets_the_hubs_token_alone_and_uv_none() {
    let world = World::new("");
    let (base, head) = (format!("wheel:{BASE}"), format!("wheel:{HEAD}"));
    let output = with_canaries(&mut world.run("out", &base, &head, &[])).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let failed = World::new("case \"$1\" in pip) env >&2; exit 1;; esac");
    let failure = with_canaries(&mut failed.run("out", "none", &head, &[])).output().unwrap();
    assert_eq!(failure.status.code(), Some(4), "{}", text(&failure));
    assert_clean("the log", &text(&output));
    assert_clean("the log of a failure", &text(&failure));
    let mut written = Vec::new();
    files(world.root(), &mut written);
    for path in &written {
        let content = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        let allowed = path.ends_with("vllm.env");
        assert_eq!(content.contains("HF_TOKEN=hf_canary0models"), allowed, "{}", path.display());
        assert_clean(&path.display().to_string(), &content.replace("hf_canary0models", ""));
    }
}

#[test]
fn a_wheel_that_crashes_leaves_no_secret_no_core_file_and_no_way_into_the_measuring_process() {
    let world = World::new(
        r#"if [ "$1" = pip ]; then
env="$(dirname "$(dirname "$5")")"
mkdir -p "$env/lib/python3.12/site-packages/vllm"
printf '#!/bin/sh\nexec ./crash\n' >"$env/bin/vllm"
chmod +x "$env/bin/vllm"
exit
fi"#,
    );
    // The guard is the parent; the measuring process is its parent.
    let crash = world.write(
        "crash",
        "#!/bin/sh\nenv >>vllm.env\nrun=$(sed 's/.*) //' /proc/$PPID/stat | cut -d' ' -f2)\n\
         grep core /proc/$run/limits >limits\nstat -c %u /proc/$run/environ >owner\nkill -SEGV $$\n",
    );
    fs::set_permissions(crash, fs::Permissions::from_mode(0o755)).unwrap();
    let output = with_canaries(&mut world.run("out", "none", &format!("wheel:{HEAD}"), &[])).output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("SIGSEGV"), "{}", text(&output));
    assert_clean("the log", &text(&output));
    let limits = fs::read_to_string(world.root().join("limits")).unwrap();
    assert_eq!(limits.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{limits}");
    assert_eq!(fs::read_to_string(world.root().join("owner")).unwrap().trim(), "0");
    let mut written = Vec::new();
    files(world.root(), &mut written);
    let written: Vec<&PathBuf> = written.iter().filter(|path| !path.ends_with("vllm.env")).collect();
    assert!(written.iter().any(|path| path.ends_with("server-1.log")), "{written:?}");
    for path in written {
        assert_clean(&path.display().to_string(), &String::from_utf8_lossy(&fs::read(path).unwrap()));
    }
}
