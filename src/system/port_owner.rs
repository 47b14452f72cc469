//! Which program listens on a loopback port of this machine: a server that was started here, or another program that took
//! the port while it was loading. From `/proc`.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Programs that listen for a container, which is no descendant of the command that started it.
const FORWARDERS: [&str; 6] = ["docker-proxy", "rootlessport", "rootlesskit", "conmon", "slirp4netns", "pasta"];

/// The state of a listening socket.
const LISTEN: &str = "0A";

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listener {
    /// How exactly its address is 127.0.0.1; a connection goes to the most exact one.
    exactness: u8,
    user: u32,
    inode: u64,
}

/// The program other than `root` and its descendants that listens on `port`; `None` where there is none, or that cannot be
/// known: a container's process, for example, has its own process ids.
pub fn other_program(port: u16, root: u32) -> Option<String> {
    let mut listeners = listeners(&read("/proc/net/tcp"), port);
    listeners.extend(self::listeners(&read("/proc/net/tcp6"), port));
    let exactness = listeners.iter().map(|listener| listener.exactness).max()?;
    listeners.retain(|listener| listener.exactness == exactness);
    let ours = sockets(descendants(root));
    let listener = listeners.iter().find(|listener| !ours.contains(&listener.inode))?;
    let holder = processes().into_keys().find(|pid| sockets([*pid]).contains(&listener.inode));
    match holder {
        Some(pid) if is_in_a_container(pid) => None,
        Some(pid) => Some(format!("{} (process {pid})", name(pid))),
        // Whatever root runs may be an engine that listens for a container. The files of a process of this user may be kept
        // from it.
        None if listener.user != 0 && Some(listener.user) != own_user() => {
            Some(format!("a program of the user {}", listener.user))
        }
        None => None,
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The sockets of `/proc/net/tcp` or `tcp6` that take connections to 127.0.0.1:`port`.
fn listeners(table: &str, port: u16) -> Vec<Listener> {
    let listener = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (address, its_port) = words.get(1)?.split_once(':')?;
        if u16::from_str_radix(its_port, 16).ok()? != port || *words.get(3)? != LISTEN {
            return None;
        }
        let (user, inode) = (words.get(7)?.parse().ok()?, words.get(9)?.parse().ok()?);
        Some(Listener { exactness: exactness(address)?, user, inode })
    };
    table.lines().skip(1).filter_map(listener).collect()
}

/// How exactly an address of the table is 127.0.0.1; `None` where it is another one. The kernel prints words of four bytes
/// in the machine's order.
fn exactness(address: &str) -> Option<u8> {
    let words: Vec<u32> = (0..address.len() / 8)
        .map(|at| u32::from_str_radix(address.get(8 * at..8 * at + 8)?, 16).ok())
        .collect::<Option<_>>()?;
    let mapped = u32::from_ne_bytes([0, 0, 0xff, 0xff]);
    match words[..] {
        [v4] | [0, 0, _, v4] if words.len() == 1 || words[2] == mapped => match v4.to_ne_bytes() {
            [127, 0, 0, 1] => Some(2),
            [0, 0, 0, 0] => Some(1),
            _ => None,
        },
        [0, 0, 0, 0] => Some(0),
        _ => None,
    }
}

/// Every process with its parent.
fn processes() -> BTreeMap<u32, u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parent = |pid: u32| {
        let stat = read(&format!("/proc/{pid}/stat"));
        Some((pid, stat.rsplit_once(") ")?.1.split_whitespace().nth(1)?.parse().ok()?))
    };
    pids.filter_map(parent).collect()
}

fn descendants(root: u32) -> BTreeSet<u32> {
    let processes = processes();
    let mut found = BTreeSet::from([root]);
    loop {
        let before = found.len();
        let children = processes.iter().filter(|(_, parent)| found.contains(parent)).map(|(pid, _)| *pid);
        found.extend(children.collect::<Vec<_>>());
        if found.len() == before {
            return found;
        }
    }
}

/// The inodes of the sockets that processes have open, as far as they can be read.
fn sockets(pids: impl IntoIterator<Item = u32>) -> BTreeSet<u64> {
    let files = pids.into_iter().filter_map(|pid| std::fs::read_dir(format!("/proc/{pid}/fd")).ok());
    let links = files.flatten().flatten().filter_map(|file| std::fs::read_link(file.path()).ok());
    links.filter_map(|link| socket(&link)).collect()
}

/// The inode of `socket:[12345]`.
fn socket(link: &Path) -> Option<u64> {
    link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn name(pid: u32) -> String {
    read(&format!("/proc/{pid}/comm")).trim().chars().filter(|letter| !letter.is_control()).collect()
}

/// Whether a process serves a container: it has other process ids than this one, or passes connections on.
fn is_in_a_container(pid: u32) -> bool {
    let ids = |pid: &str| std::fs::metadata(format!("/proc/{pid}/ns/pid")).map(|found| found.ino()).ok();
    let own = ids("self");
    FORWARDERS.contains(&name(pid).as_str()) || own.is_some() && ids(&pid.to_string()) != own
}

/// The user of this process. The owner of its files in `/proc` is root, as they are kept from other processes.
fn own_user() -> Option<u32> {
    let status = read("/proc/self/status");
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_table_names_the_sockets_that_take_a_connection() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
                     0: 0100007F:9C40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 42 1 0 100\n   \
                     1: 00000000:9C40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 43 1 0 100\n   \
                     2: 0200000A:9C40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 44 1 0 100\n   \
                     3: 0100007F:9C40 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 45 1 0 100\n   \
                     4: 0100007F:9C41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 46 1 0 100\n";
        let found = |exactness, user, inode| Listener { exactness, user, inode };
        if cfg!(target_endian = "little") {
            assert_eq!(listeners(table, 40000), [found(2, 1000, 42), found(1, 0, 43)]);
            assert_eq!(exactness("0000000000000000FFFF00000100007F"), Some(2));
        }
        assert_eq!(exactness(&"0".repeat(32)), Some(0));
        assert_eq!(exactness("00000000000000000000000001000000"), None);
        assert_eq!(exactness("nonsense"), None);
    }

    #[test]
    fn a_port_of_this_process_is_its_own_and_no_others() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(other_program(port, std::process::id()), None);
        drop(listener);
        assert_eq!(other_program(port, std::process::id()), None, "nobody listens");
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test needs a process that is not the one that listens")]
    fn a_program_that_is_no_descendant_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut server = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let other = other_program(port, server.id());
        server.kill().unwrap();
        server.wait().unwrap();
        assert_eq!(other, Some(format!("{} (process {})", name(std::process::id()), std::process::id())));
    }
}
