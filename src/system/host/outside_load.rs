//! Processor time of vllm-perf's own processes and containers, and of all other programs. From `/proc`.

use std::collections::HashMap;
use std::fs;

/// The kernel's clock in `/proc`, a constant of its interface.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor time since the machine started, in ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    /// Used by any process, or by another virtual machine. Interrupts belong to no process and do not count.
    busy: u64,
    total: u64,
    /// Used by this process and its descendants.
    own: u64,
}

/// A measurement of processor time that has begun.
#[derive(Debug)]
pub struct Watch {
    begun: Option<Ticks>,
    container: Option<f64>,
}

/// Use of the processors during a watch, in seconds of processor time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ProcessorUse {
    /// Used by other programs.
    pub outside: f64,
    /// Available in all.
    pub capacity: f64,
}

impl Watch {
    /// Begins to measure. `container` is the processor time so far, in seconds, of the container of the server, if it has one.
    pub fn begin(container: Option<f64>) -> Self {
        Self { begun: ticks(), container }
    }

    /// The use since the beginning; `None` where the kernel or the container gives no times.
    pub fn end(self, container: Option<f64>) -> Option<ProcessorUse> {
        let used = match (self.container, container) {
            (Some(before), Some(now)) => now - before,
            (None, None) => 0.0,
            _ => return None,
        };
        Some(between(self.begun?, ticks()?, used))
    }
}

fn between(begun: Ticks, ended: Ticks, container: f64) -> ProcessorUse {
    let passed = |of: fn(&Ticks) -> u64| of(&ended).saturating_sub(of(&begun)) as f64 / TICKS_PER_SECOND;
    let outside = passed(|ticks| ticks.busy) - passed(|ticks| ticks.own) - container;
    ProcessorUse { outside: outside.max(0.0), capacity: passed(|ticks| ticks.total) }
}

fn ticks() -> Option<Ticks> {
    let (busy, total) = processors(&fs::read_to_string("/proc/stat").ok()?)?;
    let processes = fs::read_dir("/proc").ok()?;
    let stats = processes
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit())))
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    let stats: Vec<Stat> = stats.filter_map(|stat| process(&stat)).collect();
    Some(Ticks { busy, total, own: family(&stats, std::process::id()) })
}

/// Busy and total ticks, from the first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
fn processors(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|word| word.parse().ok()).take(8).collect();
    let [user, nice, system, _, _, _, _, steal] = ticks[..] else { return None };
    Some((user + nice + system + steal, ticks.iter().sum()))
}

/// A process; `ticks` includes the children that it has waited for.
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

/// The ticks of a process and of all its descendants.
fn family(stats: &[Stat], root: u32) -> u64 {
    let mut children: HashMap<u32, Vec<&Stat>> = HashMap::new();
    for stat in stats {
        children.entry(stat.parent).or_default().push(stat);
    }
    let mut ticks = stats.iter().find(|stat| stat.id == root).map_or(0, |stat| stat.ticks);
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            ticks += child.ticks;
            parents.push(child.id);
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
    fn interrupts_and_waiting_do_not_count_as_busy() {
        let stat = "cpu  6143 77 2047 83210 388 5 211 130 0 0\ncpu0 3000 0 1000 41000 0 0 0 0 0 0\n";
        assert_eq!(processors(stat), Some((6143 + 77 + 2047 + 130, 92211)));
        assert_eq!(processors("intr 1"), None);
    }

    #[test]
    fn a_process_counts_with_its_descendants() {
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
    fn time_of_neither_own_processes_nor_the_container_is_outside() {
        let begun = Ticks { busy: 1000, total: 10_000, own: 100 };
        let ended = Ticks { busy: 1700, total: 11_000, own: 400 };
        let used = between(begun, ended, 1.5);
        assert!((used.outside - 2.5).abs() < 1e-9 && (used.capacity - 10.0).abs() < 1e-9, "{used:?}");
        assert_eq!(between(begun, ended, 100.0).outside, 0.0);
    }

    #[test]
    fn the_processor_time_of_a_cgroup_is_in_microseconds() {
        assert_eq!(usage("usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n"), Some(2.5));
        assert_eq!(usage(""), None);
    }

    #[test]
    fn processor_time_of_this_process_is_not_outside() {
        let watch = Watch::begin(None);
        let begun = std::time::Instant::now();
        let mut sum = 0_u64;
        while begun.elapsed() < std::time::Duration::from_millis(100) {
            sum = sum.wrapping_add(std::hint::black_box(1));
        }
        let used = watch.end(None).unwrap();
        assert!(sum > 0 && used.capacity > 0.0 && used.outside < used.capacity, "{used:?}");
    }
}
