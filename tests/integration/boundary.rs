//! The code of a pull request runs only inside the container: attacks through test files, results, logs, the output folder
//! and `PATH`. The container is a script in place of `docker`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use super::run::{SUITE, program, run, text};

/// A `docker` that writes down its words, its environment and the file of variables of each call. `run` is the simulated
/// vLLM; in `exec`, `CLIENT` runs with the folder and the name of the result.
const DOCKER: &str = r#"#!/bin/sh
state=STATE
echo "CALL $*" >>"$state/calls"; env >>"$state/environments"
files() { while [ $# -gt 0 ]; do [ "$1" != --env-file ] || { stat -c 'mode %a' "$2"; cat "$2"; } >>"$state/variables"; shift; done; }
case "$1 $2" in
"image inspect") echo sha256:1111 ;;
"stop --time") for last; do :; done; kill -TERM "$(cat "$state/$last.pid")" ;;
"run --rm")
  files "$@"
  while [ "$1" != --entrypoint ]; do
    case "$1" in
    --publish) port=${2#*:}; port=${port%:*} ;;
    --name) echo $$ >"$state/$2.pid" ;;
    --volume) echo "${2%%:*}" >"$state/results" ;;
    esac
    shift
  done
  shift 3
  exec BINARY sim-vllm -- "$@" --host 127.0.0.1 --port "$port" ;;
"exec --env-file")
  files "$@"
  for word; do [ "$before" != --result-filename ] || name=$word; before=$word; done
  folder="$(cat "$state/results")"; result="$folder/$name"
  CLIENT
  ;;
"inspect --format") exit 1 ;;
esac
"#;

/// A folder with `docker` in it, and with a suite of one test that `change` changes.
pub(super) fn engine(client: &str, change: fn(&mut serde_json::Value)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    let script = DOCKER.replace("STATE", state).replace("BINARY", env!("CARGO_BIN_EXE_vllm-perf"));
    executable(&folder.path().join("docker"), &script.replace("CLIENT", client));
    suite(folder.path(), change);
    folder
}

pub(super) fn executable(path: &Path, script: &str) {
    fs::write(path, script).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
}

/// The example's suite with one test and one case of it.
fn suite(folder: &Path, change: fn(&mut serde_json::Value)) {
    let text = fs::read_to_string(Path::new(SUITE).join("serving-tests-cpu.json")).unwrap();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-llama");
    let mut tests: serde_json::Value = serde_json::from_str(&text.replace("models/tiny-llama", model)).unwrap();
    let list = tests.get_mut("tests").unwrap();
    *list = list.as_array().unwrap()[..1].into();
    list[0]["max_concurrency_list"] = serde_json::json!([1]);
    change(&mut list[0]);
    fs::write(folder.join("serving-tests-cpu.json"), tests.to_string()).unwrap();
}

pub(super) fn measure(folder: &Path, more: &[&str]) -> Output {
    let out = folder.join("out");
    let path = format!("{}:/usr/bin:/bin", folder.display());
    let mut command = run(&out, "none", "image:local/vllm:head", &["--pairs", "1"]);
    command.env("PATH", path).env("VLLM_PERF_SUITE", folder).env("HF_TOKEN", "hf_canary").current_dir(folder);
    command.args(more).output().unwrap()
}

pub(super) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// What a folder holds that an uploader must not meet: anything but folders and plain files with one name.
fn odd_files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let about = fs::symlink_metadata(entry.path()).unwrap();
        if about.is_dir() {
            found.extend(odd_files(&entry.path()));
        } else if !about.is_file() || about.nlink() != 1 || about.mode() & 0o6000 != 0 {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

#[test]
fn a_test_file_that_sets_a_variable_of_the_host_is_refused_with_file_test_and_key() {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in [
        ("PATH", "/tmp/bin"),
        ("LD_PRELOAD", "/tmp/x.so"),
        ("DOCKER_HOST", "tcp://127.0.0.1:1"),
        ("HTTPS_proxy", "http://127.0.0.1:1"),
        ("GIT_SSH_COMMAND", "sh"),
        ("VLLM_PERF_SIM", "itl=1ms"),
        ("A-B", "1"),
    ] {
        suite(folder.path(), |_| ());
        let path = folder.path().join("serving-tests-cpu.json");
        let mut tests: serde_json::Value = serde_json::from_str(&read(&path)).unwrap();
        tests["tests"][0]["server_environment_variables"] = serde_json::json!({ name: value });
        fs::write(&path, tests.to_string()).unwrap();
        let plan = ["plan", "--provider", "local", "--device", "cpu", "--base", "none", "--head", "sim"];
        let output = program(&plan).env("VLLM_PERF_SUITE", folder.path()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}: {}", text(&output));
        let test = tests["tests"][0]["test_name"].as_str().unwrap();
        for part in ["serving-tests-cpu.json", test, name] {
            assert!(text(&output).contains(part), "{name}: {}", text(&output));
        }
    }
}

#[test]
fn variables_of_a_suite_and_tokens_reach_the_container_in_a_private_file_alone() {
    let folder = engine("exit 1", |test| {
        test["server_environment_variables"] = serde_json::json!({"VLLM_CANARY": "'of the suite'"});
    });
    let output = measure(folder.path(), &["--client", "vllm"]);
    let inside = |name: &str| read(&folder.path().join(name));
    assert!(inside("calls").contains("CALL exec"), "{}", text(&output));
    let variables = inside("variables");
    assert!(variables.contains("VLLM_CANARY=of the suite\n") && variables.contains("HF_TOKEN=hf_canary\n"));
    let mut modes = variables.lines().filter(|line| line.starts_with("mode "));
    assert!(modes.all(|mode| mode == "mode 600"), "{variables}");
    for (what, text) in [("environment", inside("environments")), ("words", inside("calls"))] {
        assert!(!text.contains("CANARY") && !text.contains("canary"), "{what}: {text}");
    }
    let calls = inside("calls");
    let words = calls.split_whitespace().collect::<Vec<_>>();
    let files = words.iter().zip(words.iter().skip(1)).filter(|(option, _)| **option == "--env-file");
    for (_, file) in files {
        assert!(!Path::new(file).exists(), "{file}");
        assert!(!file.starts_with(folder.path().to_str().unwrap()), "{file}");
    }
}

#[test]
fn a_result_that_is_no_plain_file_fails_its_case_in_time_and_nothing_of_it_stays() {
    for planted in [
        "mkfifo \"$result.x\"; mv -f \"$result.x\" \"$result\"",
        "ln -sf /dev/zero \"$result\"",
        "ln -sf /proc/self/environ \"$result\"",
        "rm -f \"$result\"; mkdir -p \"$result/deep\"; chmod 000 \"$result/deep\"",
        "echo '{}' >\"$state/host\"; ln -f \"$state/host\" \"$result\"",
        "truncate -s 1T \"$result\"",
        "ln -sf /etc/passwd \"$folder/more\"; cp /bin/sh \"$folder/sh\"; chmod 6755 \"$folder/sh\"",
    ] {
        let folder = engine(planted, |_| ());
        let begun = Instant::now();
        let output = measure(folder.path(), &["--client", "vllm", "--case-timeout", "20s"]);
        assert!(begun.elapsed() < Duration::from_secs(60), "{planted}");
        assert_eq!(output.status.code(), Some(3), "{planted}: {}", text(&output));
        let shown = text(&output);
        assert!(shown.contains("not measured") && !shown.contains("hf_canary"), "{planted}: {shown}");
        let out = folder.path().join("out");
        assert_eq!(odd_files(&out), Vec::<String>::new(), "{planted}");
        assert!(!out.join(".exchange").exists(), "{planted}");
        assert!(!out.join("head/01/more").exists() && !out.join("head/01/sh").exists(), "{planted}");
    }
}

#[test]
fn a_local_client_that_leaves_a_pipe_a_device_or_a_link_fails_only_its_case() {
    for planted in ["mkfifo \"$result\"", "ln -s /dev/zero \"$result\"", "ln -s /etc/hostname \"$result\""] {
        let folder = tempfile::tempdir().unwrap();
        suite(folder.path(), |_| ());
        let binary = env!("CARGO_BIN_EXE_vllm-perf");
        let script = format!(
            "#!/bin/sh\n[ \"$1\" = bench ] || exec {binary} sim-vllm -- \"$@\"\n\
             for word; do [ \"$before\" != --result-dir ] || folder=$word; [ \"$before\" != --result-filename ] || name=$word; \
             before=$word; done\nresult=\"$folder/$name\"; {planted}\n"
        );
        executable(&folder.path().join("vllm"), &script);
        let out = folder.path().join("out");
        let target = format!("local:{}", folder.path().join("vllm").display());
        let mut command = run(&out, "none", &target, &["--pairs", "1", "--client", "vllm"]);
        let begun = Instant::now();
        let output = command.env("VLLM_PERF_SUITE", folder.path()).output().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(60), "{planted}");
        assert_eq!(output.status.code(), Some(3), "{planted}: {}", text(&output));
        assert!(text(&output).contains("it is not a regular file"), "{planted}: {}", text(&output));
        assert_eq!(odd_files(&out), Vec::<String>::new(), "{planted}");
    }
}

#[test]
fn a_planted_output_folder_leads_nothing_to_another_place() {
    type Plant = fn(&Path, &Path);
    let plant: [(&str, Plant); 4] = [
        ("a link in place of a side", |out, host| symlink(host, out.join("head")).unwrap()),
        ("a link in place of the journal", |out, host| symlink(host.join("new"), out.join("journal.jsonl")).unwrap()),
        ("a pipe in place of the journal", |out, _| {
            nix::unistd::mkfifo(&out.join("journal.jsonl"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        }),
        ("a log that is a link", |out, host| {
            fs::create_dir_all(out.join("head/01")).unwrap();
            symlink(host.join("profile"), out.join("head/01/server-1.log")).unwrap();
        }),
    ];
    for (what, plant) in plant {
        let folder = engine("exit 1", |_| ());
        let (out, host) = (folder.path().join("out"), folder.path().join("host"));
        fs::create_dir(&out).unwrap();
        fs::create_dir(&host).unwrap();
        fs::write(host.join("profile"), "export KEEP=1\n").unwrap();
        plant(&out, &host);
        let begun = Instant::now();
        let output = measure(folder.path(), &[]);
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        assert!(output.status.code().is_some(), "{what}");
        assert_eq!(read(&host.join("profile")), "export KEEP=1\n", "{what}");
        assert_eq!(fs::read_dir(&host).unwrap().count(), 1, "{what}: {}", text(&output));
    }
}

#[test]
fn an_id_in_the_output_folder_names_no_container() {
    let folder = engine("exit 1", |_| ());
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join(".run"), "0123456789ab").unwrap();
    measure(folder.path(), &[]);
    let calls = read(&folder.path().join("calls"));
    assert!(calls.contains("CALL run") && !calls.contains("0123456789ab"), "{calls}");
    let asked = format!(":{}", out.canonicalize().unwrap().display());
    let is_of_this_folder = |line: &str| line.contains("label=vllm-perf.folder=") && line.trim_end().ends_with(&asked);
    assert!(calls.lines().any(is_of_this_folder), "{calls}");
}

#[test]
fn programs_are_not_looked_for_in_the_current_folder() {
    let folder = engine("exit 1", |_| ());
    let checkout = folder.path().join("checkout");
    fs::create_dir_all(checkout.join("bin")).unwrap();
    for name in ["docker", "git", "nvidia-smi", "bin/docker", "bin/git"] {
        executable(&checkout.join(name), &format!("#!/bin/sh\ntouch {}/ran\n", folder.path().display()));
    }
    for before in [".", "", "bin", "./bin", "../checkout"] {
        let path = format!("{before}:{}:/usr/bin:/bin", folder.path().display());
        let mut command = run(&folder.path().join("out"), "none", "image:local/vllm:head", &["--pairs", "1"]);
        command.env("PATH", path).env("VLLM_PERF_SUITE", folder.path()).current_dir(&checkout);
        let output = command.output().unwrap();
        assert!(!folder.path().join("ran").exists(), "{before}: {}", text(&output));
        assert!(read(&folder.path().join("calls")).contains("CALL run"), "{before}: {}", text(&output));
    }
    let environments = read(&folder.path().join("environments"));
    let paths = environments.lines().filter(|line| line.starts_with("PATH="));
    let expected = format!("PATH={}:/usr/bin:/bin", folder.path().display());
    assert!(paths.into_iter().all(|path| path == expected), "{environments}");
}

#[test]
fn the_measuring_process_leaves_no_core_file_and_its_memory_to_no_other_process() {
    let folder = tempfile::tempdir().unwrap();
    // The guard is the parent; the measuring process is its parent.
    let script = format!(
        "#!/bin/sh\nrun=$(sed 's/.*) //' /proc/$PPID/stat | cut -d' ' -f2)\ngrep core /proc/$run/limits >{0}/limits\n\
         stat -c %u /proc/$run/environ >{0}/owner\nexit 1\n",
        folder.path().display()
    );
    suite(folder.path(), |_| ());
    executable(&folder.path().join("vllm"), &script);
    let target = format!("local:{}", folder.path().join("vllm").display());
    let mut command = run(&folder.path().join("out"), "none", &target, &["--pairs", "1"]);
    command.env("VLLM_PERF_SUITE", folder.path()).output().unwrap();
    let limits = read(&folder.path().join("limits"));
    assert_eq!(limits.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{limits}");
    assert_eq!(read(&folder.path().join("owner")).trim(), "0", "the process is readable for its user");
}
