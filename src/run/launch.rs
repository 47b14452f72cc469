//! From upstream's command to the command that is started: by target, port and result folder.

use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use vllm_verdict::v1::DeviceName;

use super::child_environment;
use crate::environment::Environment;
use crate::plan::suite::{self, Command};
use crate::plan::target::Target;
use crate::system::docker::LABEL;
use crate::system::process::Invocation;

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
        self.invocation(&argv, &command.env, results, name, &publish)
    }

    /// A benchmark without a server, e.g. `vllm bench latency`. It writes its results to `results`.
    pub fn benchmark(&self, command: &Command, results: &Path, name: &str) -> Invocation {
        let argv = suite::placed(&command.argv, &self.results(results));
        self.invocation(&argv, &command.env, results, name, &[])
    }

    /// `vllm bench serve` against the server at `url`; inside the server's container where it is in one.
    pub fn client(&self, command: &Command, results: &Path, url: &str, server_container: Option<&str>) -> Invocation {
        let mut argv = suite::placed(&command.argv, &self.results(results));
        let inside = format!("http://127.0.0.1:{CONTAINER_PORT}");
        let url = if server_container.is_some() { &inside } else { url };
        argv.extend(["--base-url".to_owned(), url.to_owned()]);
        match server_container {
            Some(container) => {
                let mut words: Vec<String> = vec!["docker".into(), "exec".into()];
                for name in self.inside(&command.env).keys() {
                    words.extend(["--env".to_owned(), name.clone()]);
                }
                words.push(container.to_owned());
                words.extend(argv);
                Invocation { argv: words, env: self.outside(&self.inside(&command.env)), container: None }
            }
            None => self.invocation(&argv, &command.env, results, "", &[]),
        }
    }

    fn results(&self, results: &Path) -> String {
        match self.target {
            Target::Image(_) => RESULTS.to_owned(),
            _ => results.display().to_string(),
        }
    }

    fn invocation(
        &self,
        argv: &[String],
        env: &IndexMap<String, String>,
        results: &Path,
        name: &str,
        publish: &[String],
    ) -> Invocation {
        let arguments = argv.get(1..).unwrap_or_default();
        match &self.target {
            Target::Local(path) => {
                let mut words = vec![path.display().to_string()];
                words.extend_from_slice(arguments);
                Invocation { argv: words, env: self.outside(&self.with_defaults(env)), container: None }
            }
            // Only clients run against a remote server, with the vllm of this machine.
            Target::Remote(_) => {
                Invocation { argv: argv.to_vec(), env: self.outside(&self.with_defaults(env)), container: None }
            }
            Target::Sim(pace) => {
                let mut words = vec![self.program.display().to_string(), "sim-vllm".to_owned(), "--".to_owned()];
                words.extend_from_slice(arguments);
                let mut env = self.outside(&self.with_defaults(env));
                env.insert("VLLM_PERF_SIM".to_owned(), pace.clone());
                Invocation { argv: words, env, container: None }
            }
            Target::Image(reference) => {
                let inside = self.inside(env);
                let mut words: Vec<String> = ["docker", "run", "--rm", "--pull", "never"].map(String::from).to_vec();
                words.extend([
                    "--name".to_owned(),
                    name.to_owned(),
                    "--label".to_owned(),
                    format!("{LABEL}={}", self.run),
                ]);
                words.extend(["--volume".to_owned(), format!("{}:{RESULTS}", results.display())]);
                words.extend(container_options(self.device, &self.environment));
                words.extend_from_slice(publish);
                for name in inside.keys() {
                    // Docker takes the value from its environment: it must not be visible in the list of processes.
                    words.extend(["--env".to_owned(), name.clone()]);
                }
                words.extend(["--entrypoint".to_owned(), "vllm".to_owned(), reference.clone()]);
                words.extend_from_slice(arguments);
                Invocation { argv: words, env: self.outside(&inside), container: Some(name.to_owned()) }
            }
        }
    }

    /// The environment of a program on this machine.
    fn outside(&self, env: &IndexMap<String, String>) -> IndexMap<String, String> {
        child_environment::on_host(&self.environment, env)
    }

    /// The environment of a container.
    fn inside(&self, env: &IndexMap<String, String>) -> IndexMap<String, String> {
        child_environment::in_container(&self.environment, self.device, env)
    }

    fn with_defaults(&self, env: &IndexMap<String, String>) -> IndexMap<String, String> {
        child_environment::with_defaults(&self.environment, env)
    }
}

/// Options of `docker run` by device. The code of a pull request gets only the capabilities that it needs.
fn container_options(device: DeviceName, environment: &Environment) -> Vec<String> {
    // DAC_OVERRIDE: the folders of results and of models may belong to a user other than the container's.
    let mut words: Vec<&str> =
        vec!["--ipc", "host", "--cap-drop", "ALL", "--cap-add", "DAC_OVERRIDE", "--security-opt", "no-new-privileges"];
    words.extend_from_slice(match device {
        DeviceName::Cuda => &["--gpus", "all"],
        DeviceName::Rocm => {
            &["--device", "/dev/kfd", "--device", "/dev/dri", "--group-add", "video", "--cap-add", "SYS_PTRACE"]
        }
        DeviceName::Hpu => &["--runtime", "habana", "--env", "HABANA_VISIBLE_DEVICES=all", "--cap-add", "SYS_NICE"],
        DeviceName::Xpu => &["--device", "/dev/dri"],
        // vLLM binds its threads to NUMA nodes and moves their memory there.
        DeviceName::Cpu | DeviceName::Arm64Cpu => &["--cap-add", "SYS_NICE"],
    });
    let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    if let Some(cache) = hub_cache(environment) {
        words.extend(["--volume".to_owned(), format!("{}:/root/.cache/huggingface", cache.display())]);
    }
    words
}

/// The Hugging Face cache of this machine, which containers use.
fn hub_cache(environment: &Environment) -> Option<PathBuf> {
    environment
        .get("HF_HOME")
        .map(PathBuf::from)
        .or_else(|| environment.get("HOME").map(|home| PathBuf::from(home).join(".cache/huggingface")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(target: &str) -> Launch {
        Launch {
            target: target.parse().unwrap(),
            program: PathBuf::from("/bin/vllm-perf"),
            environment: [
                ("PATH", "/bin"),
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
    fn a_container_is_labelled_published_on_loopback_and_takes_values_by_name() {
        let invocation =
            launch("image:reg/vllm:abc-cpu").server(&command("vllm serve m"), &[], 8123, Path::new("/o/base/01"), "n1");
        assert_eq!(
            invocation.argv.join(" "),
            "docker run --rm --pull never --name n1 --label vllm-perf.run=r1 --volume /o/base/01:/vllm-perf-results --ipc host --cap-drop ALL --cap-add DAC_OVERRIDE \
             --security-opt no-new-privileges --cap-add SYS_NICE --volume /home/u/.cache/huggingface:/root/.cache/huggingface \
             --publish 127.0.0.1:8123:8000 --env HF_TOKEN --env VLLM_HOST_IP --env ON_CPU --env VLLM_LOGGING_LEVEL \
             --env SAVE_TO_PYTORCH_BENCHMARK_FORMAT --env VLLM_CPU_KVCACHE_SPACE --entrypoint vllm reg/vllm:abc-cpu \
             serve m --host 0.0.0.0 --port 8000"
        );
        assert_eq!(invocation.container.as_deref(), Some("n1"));
        assert!(!invocation.argv.join(" ").contains("secret"));
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
