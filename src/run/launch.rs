//! From upstream's command to the command that is started: by target, port and result folder.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use vllm_verdict::v1::DeviceName;

use super::child_environment;
use super::container_options::{self, ContainerLimits};
use crate::environment::Environment;
use crate::plan::serve_flags::needed_metrics;
use crate::plan::suite::data_set_file::DataSetFiles;
use crate::plan::suite::{self, Command};
use crate::plan::target::Target;
use crate::system::docker::{FOLDER_LABEL, LABEL};
use crate::system::host_variables;
use crate::system::private_files::FileOption;
use crate::system::process::Invocation;
use crate::system::program_path;

/// The folder of results inside a container.
const RESULTS: &str = "/vllm-perf-results";
/// The port of a server inside its container.
const CONTAINER_PORT: u16 = 8000;

/// How the commands of one side are started in one run.
#[derive(Debug, Clone)]
pub struct Launch {
    pub target: Target,
    /// Path of this binary, for the simulated target.
    pub program: PathBuf,
    /// The whole environment; children get a part of it.
    pub environment: Environment,
    /// For the options of a container.
    pub device: DeviceName,
    /// Upstream's name of the device type, for `<case>.commands`.
    pub gpu_type: String,
    /// Id of the run, for labels.
    pub run: String,
    /// The output folder, for labels.
    pub labelled_folder: String,
    pub limits: ContainerLimits,
    /// What was fetched, where the target is an image or a wheel.
    pub build: Option<FetchedBuild>,
    /// Options that bring the data sets into its containers.
    pub mounts: Vec<String>,
    pub data_sets: DataSetFiles,
}

/// An image or a wheel on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FetchedBuild {
    /// The image by the digest that the registry named, or else by the engine's id: as it was when it was checked.
    Image { pinned: String },
    /// The `vllm` of an environment, and the folder with a package of vLLM that comes before the environment's.
    Wheel { program: PathBuf, over: Option<PathBuf> },
}

/// What a container is started with, besides its options.
struct Container<'a> {
    name: &'a str,
    results: &'a Path,
    /// `--publish` and its value, of a server.
    publish: &'a [String],
    model: Option<&'a str>,
}

impl Launch {
    /// The server of a case on loopback port `port`. Clients inside its container write their results to `results`.
    pub fn server(
        &self,
        command: &Command,
        server_args: &[String],
        port: u16,
        results: &Path,
        name: &str,
    ) -> Invocation {
        let mut argv = command.argv.clone();
        argv.extend_from_slice(server_args);
        let (host, inside) = match self.target {
            Target::Image(_) => ("0.0.0.0", CONTAINER_PORT),
            _ => ("127.0.0.1", port),
        };
        argv.extend(["--host".to_owned(), host.to_owned(), "--port".to_owned(), inside.to_string()]);
        let publish = ["--publish".to_owned(), format!("127.0.0.1:{port}:{CONTAINER_PORT}")];
        let model = command.argv.get(2).map(String::as_str);
        self.invocation(&argv, &command.env, &Container { name, results, publish: &publish, model })
    }

    /// A benchmark without a server, e.g. `vllm bench latency`. It writes its results to `results`.
    pub fn benchmark(&self, command: &Command, results: &Path, name: &str) -> Invocation {
        let argv = suite::placed(&command.argv, &self.results(results));
        let model = argv.iter().position(|word| word == "--model").and_then(|at| argv.get(at + 1)).map(String::as_str);
        self.invocation(&argv, &command.env, &Container { name, results, publish: &[], model })
    }

    /// `vllm bench serve` against the server at `url`; inside the server's container where it is in one.
    pub fn client(&self, command: &Command, results: &Path, url: &str, server_container: Option<&str>) -> Invocation {
        let mut argv = suite::placed(&command.argv, &self.results(results));
        let inside = format!("http://127.0.0.1:{CONTAINER_PORT}");
        let url = if server_container.is_some() { &inside } else { url };
        argv.extend(["--base-url".to_owned(), url.to_owned()]);
        argv.extend(needed_metrics::words(&argv));
        match server_container {
            Some(container) => {
                let mut words: Vec<String> = vec![self.docker(), "exec".into(), container.to_owned()];
                words.extend(argv);
                let files = vec![FileOption::Variables(self.inside(&command.env))];
                Invocation {
                    argv: words,
                    env: host_variables::of_docker(&self.environment),
                    container: None,
                    files,
                    files_at: 2,
                    remove: Vec::new(),
                }
            }
            None => {
                let container = Container { name: "", results, publish: &[], model: None };
                self.invocation(&argv, &command.env, &container)
            }
        }
    }

    fn results(&self, results: &Path) -> String {
        match self.target {
            Target::Image(_) => RESULTS.to_owned(),
            _ => results.display().to_string(),
        }
    }

    fn invocation(&self, argv: &[String], env: &IndexMap<String, String>, container: &Container<'_>) -> Invocation {
        let arguments = argv.get(1..).unwrap_or_default();
        match &self.target {
            Target::Wheel(_) => {
                let (program, over) = match &self.build {
                    Some(FetchedBuild::Wheel { program, over }) => (program.display().to_string(), over.as_ref()),
                    _ => ("vllm".to_owned(), None),
                };
                let mut words = vec![program];
                words.extend_from_slice(arguments);
                let mut invocation = self.on_host(words, env);
                invocation.env.extend(over.map(|folder| ("PYTHONPATH".to_owned(), folder.display().to_string())));
                invocation
            }
            Target::Local(path) => {
                let program = path.to_str().map(|name| self.program_of_path(name));
                let mut words = vec![program.unwrap_or_else(|| path.display().to_string())];
                words.extend_from_slice(arguments);
                self.on_host(words, env)
            }
            // Only clients run against a remote server, with the vllm of this machine.
            Target::Remote(_) => {
                let mut words = vec![self.program_of_path(argv.first().map_or("vllm", String::as_str))];
                words.extend_from_slice(arguments);
                self.on_host(words, env)
            }
            Target::Sim(pace) => {
                let mut words = vec![self.program.display().to_string(), "sim-vllm".to_owned(), "--".to_owned()];
                words.extend_from_slice(arguments);
                let mut invocation = self.on_host(words, env);
                invocation.env.insert("VLLM_PERF_SIM".to_owned(), pace.clone());
                invocation
            }
            Target::Image(reference) => self.in_container(reference, arguments, env, container),
        }
    }

    /// A program on this machine. The suite may set none of the variables that it obeys (`suite/variable_names.rs`).
    fn on_host(&self, argv: Vec<String>, env: &IndexMap<String, String>) -> Invocation {
        let argv = self.data_sets.placed(&argv);
        let env = child_environment::with_defaults(&self.environment, env);
        let env = child_environment::on_host(&self.environment, &env);
        Invocation { argv, env, container: None, files: Vec::new(), files_at: 0, remove: Vec::new() }
    }

    /// A `docker run`. The suite's variables go to the container in a file, and not to `docker`.
    fn in_container(
        &self,
        reference: &str,
        arguments: &[String],
        env: &IndexMap<String, String>,
        container: &Container<'_>,
    ) -> Invocation {
        let mut argv = vec![self.docker()];
        argv.extend(["run", "--rm", "--pull", "never", "--name", container.name].map(str::to_owned));
        argv.extend(["--label".to_owned(), format!("{LABEL}={}", self.run)]);
        argv.extend(["--label".to_owned(), format!("{FOLDER_LABEL}={}", self.labelled_folder)]);
        argv.extend(["--volume".to_owned(), format!("{}:{RESULTS}", container.results.display())]);
        argv.extend(container_options::options(self.device, &self.limits));
        argv.extend(container_options::hub_volumes(container.model, &self.environment));
        argv.extend_from_slice(&self.mounts);
        argv.extend_from_slice(container.publish);
        let image = match &self.build {
            Some(FetchedBuild::Image { pinned }) => pinned,
            _ => reference,
        };
        argv.extend(["--entrypoint", "vllm", image].map(str::to_owned));
        argv.extend_from_slice(arguments);
        let mut files = vec![FileOption::Variables(self.inside(env))];
        if container_options::has_own_seccomp(self.device) {
            files.push(FileOption::Seccomp(container_options::SECCOMP));
        }
        let env = host_variables::of_docker(&self.environment);
        Invocation { argv, env, container: Some(container.name.to_owned()), files, files_at: 3, remove: Vec::new() }
    }

    fn docker(&self) -> String {
        self.program_of_path("docker")
    }

    fn program_of_path(&self, name: &str) -> String {
        program_path::found(name, self.environment.get("PATH"))
    }

    /// The environment of a container.
    fn inside(&self, env: &IndexMap<String, String>) -> IndexMap<String, String> {
        child_environment::in_container(&self.environment, &self.limits.environment, self.device, env)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::config::ContainerConfig;

    fn launch(target: &str) -> Launch {
        Launch {
            target: target.parse().unwrap(),
            program: PathBuf::from("/bin/vllm-perf"),
            environment: [
                ("PATH", "/nowhere"),
                ("HOME", "/home/u"),
                ("HF_TOKEN", "hf_secret"),
                ("GITHUB_TOKEN", "ghs_secret"),
                ("VLLM_API_KEY", "secret"),
                ("VLLM_PERF_BASE", "none"),
                ("ACTIONS_RUNTIME_TOKEN", "secret"),
                ("VLLM_HOST_IP", "10.0.0.1"),
            ]
            .into_iter()
            .collect(),
            device: DeviceName::Cpu,
            gpu_type: "cpu".to_owned(),
            run: "r1".to_owned(),
            labelled_folder: "host:/o".to_owned(),
            limits: ContainerLimits::of(&ContainerConfig::default(), Some(64.0)),
            build: None,
            mounts: Vec::new(),
            data_sets: DataSetFiles::default(),
        }
    }

    fn command(words: &str) -> Command {
        Command {
            argv: words.split(' ').map(str::to_owned).collect(),
            env: [("VLLM_CPU_KVCACHE_SPACE".to_owned(), "2".to_owned())].into_iter().collect(),
        }
    }

    #[test]
    fn a_local_server_listens_on_loopback_and_gets_no_token_but_the_hubs() {
        let invocation = launch("local:/opt/vllm").server(
            &command("vllm serve m"),
            &["--max-num-seqs".into(), "1".into()],
            8123,
            Path::new("/o"),
            "",
        );
        assert_eq!(invocation.argv.join(" "), "/opt/vllm serve m --max-num-seqs 1 --host 127.0.0.1 --port 8123");
        assert_eq!(
            invocation.env.keys().collect::<Vec<_>>(),
            [
                "HF_TOKEN",
                "HOME",
                "PATH",
                "VLLM_HOST_IP",
                "VLLM_LOGGING_LEVEL",
                "SAVE_TO_PYTORCH_BENCHMARK_FORMAT",
                "VLLM_CPU_KVCACHE_SPACE"
            ]
        );
    }

    #[test]
    fn a_container_is_labelled_limited_published_on_loopback_and_pinned() {
        let mut launch = launch("image:reg/vllm:abc-cpu");
        launch.build = Some(FetchedBuild::Image { pinned: "reg/vllm@sha256:12".to_owned() });
        let invocation = launch.server(&command("vllm serve m"), &[], 8123, Path::new("/o/x"), "n1");
        assert_eq!(
            invocation.argv.join(" "),
            "docker run --rm --pull never --name n1 --label vllm-perf.run=r1 --label vllm-perf.folder=host:/o \
             --volume /o/x:/vllm-perf-results --ipc private --log-driver none --shm-size 16g --pids-limit 16384 \
             --memory 58982m --cap-drop ALL --security-opt no-new-privileges --cap-add SYS_NICE \
             --publish 127.0.0.1:8123:8000 --entrypoint vllm reg/vllm@sha256:12 serve m --host 0.0.0.0 --port 8000"
        );
        assert_eq!(invocation.container.as_deref(), Some("n1"));
    }

    #[test]
    fn the_variables_of_a_suite_reach_the_container_and_not_the_docker_command() {
        let launch = launch("image:reg/vllm:abc-cpu");
        let server = launch.server(&command("vllm serve m"), &[], 8123, Path::new("/o/x"), "n1");
        let benchmark = launch.benchmark(&command("vllm bench latency --model m"), Path::new("/o/x"), "n2");
        let client = launch.client(&command("vllm bench serve"), Path::new("/o/x"), "http://127.0.0.1:1", Some("n1"));
        assert_eq!(client.argv.join(" "), "docker exec n1 vllm bench serve --base-url http://127.0.0.1:8000");
        for invocation in [server, benchmark, client] {
            assert_eq!(invocation.env.keys().collect::<Vec<_>>(), ["HOME", "PATH"]);
            assert!(!invocation.argv.join(" ").contains("secret") && !invocation.argv.join(" ").contains("KVCACHE"));
            let FileOption::Variables(inside) = &invocation.files[0] else { panic!("{invocation:?}") };
            let names: Vec<&str> = inside.keys().map(String::as_str).collect();
            let expected = "HF_TOKEN VLLM_HOST_IP ON_CPU VLLM_LOGGING_LEVEL SAVE_TO_PYTORCH_BENCHMARK_FORMAT \
                            VLLM_CPU_KVCACHE_SPACE";
            assert_eq!(names.join(" "), expected);
        }
    }

    #[test]
    fn the_client_is_asked_for_what_verdicts_need_and_containers_get_their_data_sets() {
        let command = command("vllm bench serve --percentile-metrics ttft,e2el --metric-percentiles 50");
        let client = launch("local:/opt/vllm").client(&command, Path::new("/o"), "http://127.0.0.1:1", None);
        let asked = "--base-url http://127.0.0.1:1 --percentile-metrics=ttft,e2el,tpot --metric-percentiles=50,99";
        assert!(client.argv.join(" ").ends_with(asked), "{:?}", client.argv);
        let mut launch = launch("image:reg/vllm:abc-cpu");
        launch.mounts = ["--volume", "/d/a.json:/vllm-perf-data/a.json:ro"].map(str::to_owned).to_vec();
        let server = launch.server(&command, &[], 8123, Path::new("/o/x"), "n1");
        assert!(server.argv.windows(2).any(|words| words == launch.mounts), "{:?}", server.argv);
    }

    #[test]
    fn the_simulated_target_is_this_binary_at_its_pace() {
        let invocation = launch("sim:itl=10ms").benchmark(
            &command("vllm bench latency --output-json results/x.json"),
            Path::new("/o/head/02"),
            "",
        );
        assert_eq!(
            invocation.argv.join(" "),
            "/bin/vllm-perf sim-vllm -- bench latency --output-json /o/head/02/x.json"
        );
        assert_eq!(invocation.env["VLLM_PERF_SIM"], "itl=10ms");
    }
}
