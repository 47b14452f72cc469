//! Which environment variables a test file may set. They are settings of the server under test; a variable that decides
//! which code a program runs, where it sends its requests or whose credentials it uses is not.

use anyhow::{bail, ensure};

/// Refused in any case of letters. A name ends a pattern, `*` stands for any text.
const REFUSED: &[(&str, &str)] = &[
    ("which programs run, and where their files are", PROGRAMS),
    ("which code programs load", LOADERS),
    ("where requests and certificates are looked for", NETWORK),
    ("credentials", CREDENTIALS),
    ("CI and vllm-perf itself", CI),
];
const PROGRAMS: &str = "PATH HOME USER LOGNAME SHELL PWD OLDPWD TMP TEMP TMPDIR TEMPDIR XDG_* IFS ENV BASH_* BASHOPTS SHELLOPTS \
    CDPATH GLOBIGNORE PS1 PS2 PS3 PS4 PROMPT_COMMAND ZDOTDIR EDITOR VISUAL PAGER BROWSER GIT_* SSH_* GPG_* GNUPGHOME \
    SUDO_* DBUS_* SYSTEMD_* VIRTUAL_ENV CONDA_* PIP_* UV_* LESSOPEN LESSCLOSE TERMINFO TERMCAP";
const LOADERS: &str = "LD_* DYLD_* GLIBC_* MALLOC_* GCONV_PATH LOCPATH NLSPATH HOSTALIASES RESOLV_* RES_OPTIONS LOCALDOMAIN \
    GETCONF_DIR TZDIR PYTHON* PERL* RUBY* GEM_* BUNDLE_* NODE_* NPM_* JAVA_* _JAVA_OPTIONS JDK_* CLASSPATH LUA_* PHP* \
    RUSTFLAGS RUSTC* CARGO_* MAKEFLAGS OPENSSL_* GCC_* GTK_* QT_* CC CXX CFLAGS CXXFLAGS LDFLAGS CPATH \
    LIBRARY_PATH COMPILER_PATH";
const NETWORK: &str = "*_PROXY SSL_* SSLKEYLOGFILE CURL_* REQUESTS_CA_BUNDLE DOCKER_* CONTAINER_* BUILDAH_* PODMAN_* \
    COMPOSE_* BUILDKIT_* KUBE* HF_ENDPOINT HF_INFERENCE_ENDPOINT";
const CREDENTIALS: &str = "HF_TOKEN HF_TOKEN_PATH HUGGING_FACE_HUB_TOKEN HUGGINGFACE_HUB_TOKEN HF_HOME AWS_* AZURE_* GOOGLE_* \
    GCP_* GCLOUD_* CLOUDSDK_* OPENAI_* NETRC";
const CI: &str = "CI GITHUB_* GH_* ACTIONS_* RUNNER_* BUILDKITE* GITLAB_* CI_* JENKINS_* VLLM_PERF_*";

/// Checks that a test file may set the variable `name`.
///
/// # Errors
/// It cannot be the name of a variable, or it is one of those that programs of this machine obey.
pub fn check(name: &str) -> anyhow::Result<()> {
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let digit_first = name.as_bytes().first().is_none_or(u8::is_ascii_digit);
    ensure!(letters && !digit_first, "`{name}` cannot name an environment variable");
    let upper = name.to_ascii_uppercase();
    let refused = |patterns: &str| patterns.split_whitespace().any(|pattern| matches(pattern, &upper));
    if let Some((what, _)) = REFUSED.iter().find(|(_, patterns)| refused(patterns)) {
        bail!("a test file may not set `{name}`: it decides about {what}, outside of the server under test");
    }
    Ok(())
}

/// Checks that `value` can stand in a line of a file of variables.
///
/// # Errors
/// It has a line break or a NUL character, or is longer than Docker reads.
pub fn check_value(name: &str, value: &str) -> anyhow::Result<()> {
    ensure!(
        !value.contains(['\n', '\r', '\0']),
        "the value of `{name}` has a line break or a NUL character, which a container cannot be given"
    );
    ensure!(
        name.len() + value.len() < LONGEST_LINE,
        "the value of `{name}` has {} bytes: a container is given at most {LONGEST_LINE}",
        value.len()
    );
    Ok(())
}

/// Docker reads lines of at most 64 KiB.
const LONGEST_LINE: usize = 60 << 10;

fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(end), _) => name.ends_with(end),
        (_, Some(beginning)) => name.starts_with(beginning),
        _ => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_programs_of_the_host_obey_is_refused_in_any_case_of_letters() {
        for name in [
            "PATH",
            "Path",
            "HOME",
            "LD_PRELOAD",
            "LD_AUDIT",
            "DYLD_INSERT_LIBRARIES",
            "DOCKER_HOST",
            "https_proxy",
            "ALL_PROXY",
            "SSL_CERT_FILE",
            "PYTHONSTARTUP",
            "BASH_ENV",
            "ENV",
            "HF_TOKEN",
            "HF_ENDPOINT",
            "GIT_SSH_COMMAND",
            "NODE_OPTIONS",
            "PERL5OPT",
            "RUBYOPT",
            "JAVA_TOOL_OPTIONS",
            "GCONV_PATH",
            "GLIBC_TUNABLES",
            "MALLOC_CONF",
            "IFS",
            "PS4",
            "XDG_CONFIG_HOME",
            "TMPDIR",
            "AWS_SECRET_ACCESS_KEY",
            "GITHUB_ENV",
            "BUILDKITE_AGENT_ACCESS_TOKEN",
            "VLLM_PERF_SIM",
        ] {
            let error = check(name).unwrap_err().to_string();
            assert!(error.starts_with(&format!("a test file may not set `{name}`")), "{error}");
        }
    }

    #[test]
    fn settings_of_vllm_and_of_what_it_computes_with_are_allowed() {
        for name in [
            "VLLM_CPU_KVCACHE_SPACE",
            "VLLM_USE_V1",
            "HF_HUB_OFFLINE",
            "HF_HUB_ENABLE_HF_TRANSFER",
            "TRANSFORMERS_OFFLINE",
            "TORCHINDUCTOR_CACHE_DIR",
            "PYTORCH_CUDA_ALLOC_CONF",
            "OMP_NUM_THREADS",
            "PT_HPU_LAZY_MODE",
            "CUDA_VISIBLE_DEVICES",
            "NCCL_P2P_DISABLE",
            "HCCL_OP_EXPANSION_MODE",
            "ONEDNN_VERBOSE",
            "RAY_memory_monitor_refresh_ms",
            "PATHS",
            "A",
        ] {
            check(name).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_a_line_of_a_file_of_variables_is_refused() {
        for name in ["", "1A", "A=B", "A B", "A\nLD_PRELOAD", "#A", "Ä"] {
            assert!(check(name).is_err(), "{name}");
        }
        for value in ["x\nLD_PRELOAD=/x.so", "x\r", "\0", &"x".repeat(64 << 10)] {
            let error = check_value("VLLM_A", value).unwrap_err().to_string();
            assert!(error.starts_with("the value of `VLLM_A` has"), "{error}");
        }
        check_value("VLLM_A", "a b = c").unwrap();
    }
}
