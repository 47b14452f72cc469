//! Who uses the processors: our own processes and containers, or others. From `/proc`; the parsers are pure.

use std::collections::HashMap;
use std::fs;

/// The kernel's clock in `/proc`, a constant of its interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// The processors' time so far, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    /// At work for any process, or taken by another virtual machine. Interrupts belong to nobody and do not count.
    busy: u64,
    /// All of it.
    total: u64,
    /// At work for our own processes.
    own: u64,
}

/// A watch over the processors, from its making to its end.
#[derive(Debug)]
pub struct Watch {
    begun: Option<Times>,
    container: Option<f64>,
}

/// What a watch saw, in seconds of processor time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Seen {
    /// Work of others.
    pub outside: f64,
    /// All that the processors could have done.
    pub capacity: f64,
}

impl Watch {
    /// Begins to watch. `container` is the processor time, in seconds, of a container of ours so far, where one works.
    pub fn begin(container: Option<f64>) -> Self {
        Self { begun: times(), container }
    }

    /// What was seen; `None` where the kernel does not tell, or a container worked and does not.
    pub fn end(self, container: Option<f64>) -> Option<Seen> {
        let worked = match (self.container, container) {
            (Some(before), Some(now)) => now - before,
            (None, None) => 0.0,
            _ => return None,
        };
        Some(seen(self.begun?, times()?, worked))
    }
}

fn seen(begun: Times, ended: Times, container: f64) -> Seen {
    let passed = |of: fn(&Times) -> u64| of(&ended).saturating_sub(of(&begun)) as f64 / TICKS_PER_SECOND;
    let outside = passed(|times| times.busy) - passed(|times| times.own) - container;
    Seen { outside: outside.max(0.0), capacity: passed(|times| times.total) }
}

fn times() -> Option<Times> {
    let (busy, total) = processors(&fs::read_to_string("/proc/stat").ok()?)?;
    let processes = fs::read_dir("/proc").ok()?;
    let stats = processes
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit())))
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let stats: Vec<Stat> = stats.filter_map(|stat| process(&stat)).collect();
    Some(Times { busy, total, own: family(&stats, std::process::id()) })
}

/// Busy and all ticks, from the first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
fn processors(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).take(8).collect();
    let [user, nice, system, _, _, _, _, steal] = ticks[..] else { return None };
    Some((user + nice + system + steal, ticks.iter().sum()))
}

/// A process: its id, its parent, and the ticks that it and the children that it has waited for have used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    id: u32,
    parent: u32,
    ticks: u64,
}

/// A line of `/proc/<pid>/stat`; the command's name in it may hold any character, `)` included.
fn process(stat: &str) -> Option<Stat> {
    let (head, rest) = stat.rsplit_once(") ")?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let ticks = words.get(11..15)?.iter().map(|word| word.parse::<u64>().ok()).sum::<Option<u64>>()?;
    Some(Stat { id: head.split_once(' ')?.0.parse().ok()?, parent: words.get(1)?.parse().ok()?, ticks })
}

/// The ticks of a process and all that descend from it.
fn family(stats: &[Stat], root: u32) -> u64 {
    let mut children: HashMap<u32, Vec<&Stat>> = HashMap::new();
    for stat in stats {
        children.entry(stat.parent).or_default().push(stat);
    }
    let mut ticks = stats.iter().find(|stat| stat.id == root).map_or(0, |stat| stat.ticks);
    let mut left = vec![root];
    while let Some(parent) = left.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            ticks += child.ticks;
            left.push(child.id);
        }
    }
    ticks
}

/// Processor time in seconds of a cgroup's `cpu.stat`.
pub fn usage(cpu_stat: &str) -> Option<f64> {
    let microseconds = cpu_stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    Some(microseconds.trim().parse::<f64>().ok()? / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_and_waiting_are_nobodys_work() {
        let stat = "cpu  6143 77 2047 83210 388 5 211 130 0 0\ncpu0 3000 0 1000 41000 0 0 0 0 0 0\n";
        assert_eq!(processors(stat), Some((6143 + 77 + 2047 + 130, 92211)));
        assert_eq!(processors("intr 1"), None);
    }

    #[test]
    fn a_process_counts_with_what_it_started() {
        let line = |id: u32, name: &str, parent: u32, ticks: [u64; 4]| {
            let [user, system, child_user, child_system] = ticks;
            format!(
                "{id} ({name}) S {parent} 1 1 0 -1 4194560 5 0 0 0 {user} {system} {child_user} {child_system} 20 0 1 0"
            )
        };
        let lines = [
            line(10, "vllm-perf", 1, [5, 1, 2, 0]),
            line(11, "guard) (x", 10, [0, 1, 0, 0]),
            line(12, "vllm serve", 11, [100, 20, 3, 4]),
            line(20, "someone else", 1, [900, 0, 0, 0]),
        ];
        let stats: Vec<Stat> = lines.iter().filter_map(|line| process(line)).collect();
        assert_eq!(stats.len(), 4);
        assert_eq!(family(&stats, 10), 8 + 1 + 127);
        assert_eq!(process("12 (short) S 1"), None);
    }

    #[test]
    fn what_neither_we_nor_our_container_did_is_outside() {
        let begun = Times { busy: 1000, total: 10_000, own: 100 };
        let ended = Times { busy: 1700, total: 11_000, own: 400 };
        let seen = seen(begun, ended, 1.5);
        assert!((seen.outside - 2.5).abs() < 1e-9 && (seen.capacity - 10.0).abs() < 1e-9, "{seen:?}");
        assert_eq!(super::seen(begun, ended, 100.0).outside, 0.0);
    }

    #[test]
    fn a_cgroup_tells_its_processor_time_in_microseconds() {
        assert_eq!(usage("usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n"), Some(2.5));
        assert_eq!(usage(""), None);
    }

    #[test]
    fn work_of_this_process_is_not_outside() {
        let watch = Watch::begin(None);
        let begun = std::time::Instant::now();
        let mut sum = 0_u64;
        while begun.elapsed() < std::time::Duration::from_millis(100) {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        let seen = watch.end(None).unwrap();
        assert!(sum > 0 && seen.capacity > 0.0 && seen.outside < seen.capacity, "{seen:?}");
    }
}
