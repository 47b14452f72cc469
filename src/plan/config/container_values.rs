//! What an operator may add to containers: volumes, devices, variables and options of `docker run`. The code under test runs
//! in them, so that what would give it this machine is refused.

use anyhow::{Result, bail, ensure};

use super::scalar::{Scalar, Schema, not};
use crate::plan::suite::variable_names;

/// Folders of the host that are the machine itself, and the sockets by which a container engine is told what to run.
const MACHINE: [&str; 6] = ["/", "/proc", "/sys", "/dev", "/run", "/var/run"];
const SOCKETS: [&str; 4] = ["docker.sock", "containerd.sock", "podman.sock", "crio.sock"];

/// Folders of a container in which this program puts its own files.
const OURS: [&str; 2] = ["/vllm-perf-results", "/vllm-perf-data"];

/// Options of `docker run` that this program sets, and how to get what they would do.
const TAKEN: [(&str, &str); 9] = [
    ("name rm pull detach interactive tty attach cidfile restart label label-file entrypoint workdir sig-proxy", ""),
    ("detach-keys help stop-signal stop-timeout health-cmd log-driver log-opt platform quiet", ""),
    ("volume mount volumes-from tmpfs", "use `container.volumes`"),
    ("device", "use `container.devices`"),
    ("env env-file", "use `container.environment`"),
    ("memory memory-swap shm-size pids-limit", "use `container.memory`, `shm_size` and `pids`"),
    ("publish publish-all expose", "the port of the server is chosen for each run"),
    ("network net", "the server is reached at a published port"),
    ("privileged", "it would give the code under test this machine: name the devices and capabilities that it needs"),
];

/// Options that have no value.
const BARE: [&str; 4] = ["--init", "--no-healthcheck", "--oom-kill-disable", "--read-only"];

/// `HOST:CONTAINER`, read-only, or `HOST:CONTAINER:rw`.
pub(super) const VOLUME: Scalar<String> =
    Scalar::text("a volume such as `/data:/data`", r"^/[^:,]*:/[^:,]+(:(ro|rw))?$", |text| {
        let parts: Vec<&str> = text.split(':').collect();
        let (host, inside, mode) = match parts.as_slice() {
            [host, inside] => (*host, *inside, "ro"),
            [host, inside, mode @ ("ro" | "rw")] => (*host, *inside, *mode),
            _ => return Err(not(text, "a volume: expected `/HOST:/CONTAINER`, read-only, or `/HOST:/CONTAINER:rw`")),
        };
        check_path(text, host)?;
        check_path(text, inside)?;
        let host = host.trim_end_matches('/');
        let is_machine =
            MACHINE.contains(&host) || host.is_empty() || SOCKETS.iter().any(|socket| host.ends_with(socket));
        ensure!(!is_machine, "`{text}` would give the code under test this machine");
        let ours = |folder: &str| inside == folder || inside.starts_with(&format!("{folder}/"));
        ensure!(!OURS.into_iter().any(ours) && inside != "/", "`{text}` hides files that a run needs");
        Ok(format!("{host}:{inside}:{mode}"))
    });

/// A device file, with docker's place and permissions where they are given.
pub(super) const DEVICE_FILE: Scalar<String> =
    Scalar::text("a device such as `/dev/infiniband`", r"^/dev/[^:,]+(:/[^:,]+)?(:[rwm]{1,3})?$", |text| {
        let mut parts = text.split(':');
        let host = parts.next().unwrap_or_default();
        check_path(text, host)?;
        let rest: Vec<&str> = parts.collect();
        let permissions =
            |text: &str| (1..=3).contains(&text.len()) && text.chars().all(|letter| "rwm".contains(letter));
        let is_right = match rest.as_slice() {
            [] => true,
            [one] => one.starts_with("/dev/") || permissions(one),
            [inside, last] => inside.starts_with('/') && permissions(last),
            _ => false,
        };
        let is_device = host.starts_with("/dev/") && host.len() > "/dev/".len();
        ensure!(is_device && is_right, not(text, "a device: expected a file of `/dev`, such as `/dev/infiniband`"));
        let is_disk = ["/dev/mem", "/dev/kmem", "/dev/sd", "/dev/nvme", "/dev/dm-", "/dev/mapper", "/dev/vd"];
        let gives_machine = is_disk.iter().any(|beginning| host.starts_with(beginning));
        ensure!(!gives_machine, "`{text}` would give the code under test this machine");
        Ok(text.to_owned())
    });

/// One option of `docker run`, as one word.
pub(super) const OPTION: Scalar<String> =
    Scalar::text("an option of `docker run` such as `--ulimit=memlock=-1`", r"^--[a-z][a-z0-9-]*(=.*)?$", |text| {
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value)));
        let spelled = name.strip_prefix("--").unwrap_or_default();
        let letters = spelled.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        let is_option = letters && spelled.starts_with(|letter: char| letter.is_ascii_lowercase());
        ensure!(
            is_option && !text.contains(char::is_control),
            not(text, "an option of `docker run`: expected `--NAME=VALUE`")
        );
        let taken = |(names, _): &&(&str, &str)| names.split_whitespace().any(|taken| taken == spelled);
        if let Some((_, instead)) = TAKEN.iter().find(taken) {
            let instead = if instead.is_empty() { "a run sets it" } else { instead };
            bail!("`{name}` cannot be given here: {instead}");
        }
        ensure!(value.is_some() || BARE.contains(&name), "`{text}` has no value: write `{text}=VALUE`, as one word");
        Ok(text.to_owned())
    });

/// The name of a variable of a container.
pub(super) const VARIABLE: Scalar<String> =
    Scalar::text("the name of a variable", "^[A-Za-z_][A-Za-z0-9_]*$", |text| {
        let letters = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let is_name = letters && !text.is_empty() && !text.starts_with(|letter: char| letter.is_ascii_digit());
        ensure!(is_name, not(text, "the name of a variable: expected letters, digits and `_`"));
        Ok(text.to_owned())
    });

/// The value of a variable of a container.
pub(super) const VALUE: Scalar<String> = Scalar {
    expecting: "the value of a variable, a text or a number",
    numbers: true,
    schema: Schema::Other(|| serde_json::json!({"type": ["string", "number"]})),
    read: |text| variable_names::check_value("it", text).map(|()| text.to_owned()),
    show: String::clone,
};

fn check_path(text: &str, path: &str) -> Result<()> {
    let plain = path.starts_with('/') && !path.contains(',') && !path.contains(char::is_control);
    let direct = path.split('/').all(|part| part != ".." && part != ".");
    ensure!(plain && direct, not(text, "made of absolute paths: expected paths that begin with `/`, without `..`"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_read_only_unless_they_say_otherwise() {
        assert_eq!((VOLUME.read)("/data:/data").unwrap(), "/data:/data:ro");
        assert_eq!((VOLUME.read)("/srv/x/:/y:rw").unwrap(), "/srv/x:/y:rw");
        for device in ["/dev/infiniband", "/dev/dri:/dev/dri", "/dev/kfd:rw", "/dev/a:/dev/b:rwm"] {
            assert_eq!((DEVICE_FILE.read)(device).unwrap(), device);
        }
        for option in ["--ulimit=memlock=-1", "--cpuset-cpus=0-3", "--group-add=render", "--init", "--ipc=host"] {
            assert_eq!((OPTION.read)(option).unwrap(), option);
        }
    }

    #[test]
    fn what_would_give_the_machine_or_break_a_run_is_refused_with_the_reason() {
        let mut errors = Vec::new();
        for text in ["/", "/data", "data:/data", "/a:/b:z", "/../etc:/x", "/a,b:/c", "/:/host", "/proc/:/p", "/a:/"] {
            errors.push((VOLUME.read)(text).unwrap_err().to_string());
        }
        for text in ["/var/run/docker.sock:/s", "/a:/vllm-perf-results", "/a:/vllm-perf-data/x"] {
            errors.push((VOLUME.read)(text).unwrap_err().to_string());
        }
        for text in ["/dev", "/dev/", "/etc/passwd", "/dev/../etc", "/dev/sda", "/dev/kfd:x", "/dev/mem"] {
            errors.push((DEVICE_FILE.read)(text).unwrap_err().to_string());
        }
        let options =
            ["-v", "--volume=/:/x", "--privileged", "--network=host", "--name=x", "--cap-add", "--e nv=x", "x"];
        for text in options {
            errors.push((OPTION.read)(text).unwrap_err().to_string());
        }
        for text in ["", "1A", "A B", "A=B"] {
            errors.push((VARIABLE.read)(text).unwrap_err().to_string());
        }
        errors.push((VALUE.read)("a\nb").unwrap_err().to_string());
        insta::assert_snapshot!(errors.join("\n"), @"
        `/` is not a volume: expected `/HOST:/CONTAINER`, read-only, or `/HOST:/CONTAINER:rw`
        `/data` is not a volume: expected `/HOST:/CONTAINER`, read-only, or `/HOST:/CONTAINER:rw`
        `data:/data` is not made of absolute paths: expected paths that begin with `/`, without `..`
        `/a:/b:z` is not a volume: expected `/HOST:/CONTAINER`, read-only, or `/HOST:/CONTAINER:rw`
        `/../etc:/x` is not made of absolute paths: expected paths that begin with `/`, without `..`
        `/a,b:/c` is not made of absolute paths: expected paths that begin with `/`, without `..`
        `/:/host` would give the code under test this machine
        `/proc/:/p` would give the code under test this machine
        `/a:/` hides files that a run needs
        `/var/run/docker.sock:/s` would give the code under test this machine
        `/a:/vllm-perf-results` hides files that a run needs
        `/a:/vllm-perf-data/x` hides files that a run needs
        `/dev` is not a device: expected a file of `/dev`, such as `/dev/infiniband`
        `/dev/` is not a device: expected a file of `/dev`, such as `/dev/infiniband`
        `/etc/passwd` is not a device: expected a file of `/dev`, such as `/dev/infiniband`
        `/dev/../etc` is not made of absolute paths: expected paths that begin with `/`, without `..`
        `/dev/sda` would give the code under test this machine
        `/dev/kfd:x` is not a device: expected a file of `/dev`, such as `/dev/infiniband`
        `/dev/mem` would give the code under test this machine
        `-v` is not an option of `docker run`: expected `--NAME=VALUE`
        `--volume` cannot be given here: use `container.volumes`
        `--privileged` cannot be given here: it would give the code under test this machine: name the devices and capabilities that it needs
        `--network` cannot be given here: the server is reached at a published port
        `--name` cannot be given here: a run sets it
        `--cap-add` has no value: write `--cap-add=VALUE`, as one word
        `--e nv=x` is not an option of `docker run`: expected `--NAME=VALUE`
        `x` is not an option of `docker run`: expected `--NAME=VALUE`
        `` is not the name of a variable: expected letters, digits and `_`
        `1A` is not the name of a variable: expected letters, digits and `_`
        `A B` is not the name of a variable: expected letters, digits and `_`
        `A=B` is not the name of a variable: expected letters, digits and `_`
        the value of `it` has a line break or a NUL character, which a container cannot be given
        ");
    }
}
