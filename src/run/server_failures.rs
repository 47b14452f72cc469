//! When servers and cases of a side are given up: after they failed twice in the same way. Failures of a client alone, whose
//! server still runs, are not counted.

use std::collections::HashMap;

/// Failures of one kind before the rest is given up.
const LIMIT: u32 = 2;

/// The failures of one side so far: servers that did not start or that ended, and cases that did not end in time.
#[derive(Debug, Default)]
pub struct ServerFailures {
    /// Failures in a row, without a case that was measured between them.
    in_a_row: Option<Failure>,
    /// By case, over the repetitions.
    of_case: HashMap<String, Failure>,
    has_measured: bool,
}

#[derive(Debug, Clone)]
struct Failure {
    reason: String,
    times: u32,
    /// What failed and where its log is. The reason itself stands where it happened.
    said: String,
}

impl Failure {
    fn count(known: Option<&Self>, reason: &str, said: String) -> Self {
        let times = match known {
            Some(known) if same_way(&known.reason) == same_way(reason) && same_words(&known.reason, reason) => {
                known.times + 1
            }
            _ => 1,
        };
        Self { reason: reason.to_owned(), times, said }
    }
}

impl ServerFailures {
    /// A case was measured: its server works.
    pub fn measured(&mut self, case: &str) {
        self.in_a_row = None;
        self.of_case.remove(case);
        self.has_measured = true;
    }

    /// A server did not start; `log` is its log in the output folder.
    pub fn did_not_start(&mut self, reason: &str, log: &str) {
        let said = format!("the server did not start, for the same reason as the one before (log: {log})");
        self.in_a_row = Some(Failure::count(self.in_a_row.as_ref(), reason, said));
    }

    /// The server of a case ended, or the case did not end in time. `log` is the log in the output folder.
    pub fn failed(&mut self, case: &str, reason: &str, log: &str) {
        let said = format!("{case} failed in the same way as the case before it (log: {log})");
        self.in_a_row = Some(Failure::count(self.in_a_row.as_ref(), reason, said));
        let said = format!("it failed in the same way in {LIMIT} repetitions (log: {log})");
        let of_case = Failure::count(self.of_case.get(case), reason, said);
        self.of_case.insert(case.to_owned(), of_case);
    }

    /// Why nothing more is tried on this side: nothing was ever measured, and the last failures were the same.
    pub fn all_given_up(&self) -> Option<&str> {
        self.repeated().filter(|_| !self.has_measured)
    }

    /// Why the rest of the cases of a server are not tried in this pass: the last failures were the same.
    pub fn repeated(&self) -> Option<&str> {
        said(self.in_a_row.as_ref())
    }

    /// The failure itself because of which a case is given up.
    pub fn cause(&self, case: &str) -> Option<&str> {
        let of_case = self.of_case.get(case).filter(|failure| failure.times >= LIMIT);
        of_case.or(self.in_a_row.as_ref()).map(|failure| failure.reason.as_str())
    }

    /// Why a case is not tried again: it failed in the same way in several repetitions.
    pub fn case_given_up(&self, case: &str) -> Option<&str> {
        said(self.of_case.get(case))
    }
}

fn said(failure: Option<&Failure>) -> Option<&str> {
    failure.filter(|failure| failure.times >= LIMIT).map(|failure| failure.said.as_str())
}

/// Whether the last words in two reasons are the same but for numbers, or one has none.
fn same_words(one: &str, other: &str) -> bool {
    let words = |reason: &str| Some(without_numbers(reason.split_once("last words: ")?.1));
    words(one).zip(words(other)).is_none_or(|(one, other)| one == other)
}

/// A reason without its log, and without its numbers, which are ports, process ids and times. Where the server ended, what its
/// client saw of that does not count.
pub fn same_way(reason: &str) -> String {
    let end = [" (log: ", " (server log: "].iter().filter_map(|log| reason.find(log)).min();
    let reason = &reason[..end.unwrap_or(reason.len())];
    let reason = if reason.starts_with("the server ") { reason.split("; ").next().unwrap_or(reason) } else { reason };
    without_numbers(reason)
}

fn without_numbers(text: &str) -> String {
    let mut way = String::new();
    for letter in text.chars() {
        match letter {
            '0'..='9' if way.ends_with('#') => {}
            '0'..='9' => way.push('#'),
            _ => way.push(letter),
        }
    }
    way
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: &str = "it did not end within 1 h (server log: head/01/server-1.log)";

    #[test]
    fn a_side_that_never_measured_is_given_up_after_two_failures_of_one_kind() {
        let mut failures = ServerFailures::default();
        failures.did_not_start("it ended with exit status: 1 (log: head/00/server-1.log)", "head/00/server-1.log");
        assert_eq!(failures.all_given_up(), None);
        let second = "it ended with exit status: 1 (log: head/01/server-2.log, last words: \"a 7\")";
        failures.did_not_start(second, "head/01/server-2.log");
        assert!(failures.all_given_up().unwrap().contains("head/01/server-2.log"));
        assert_eq!(failures.cause("any"), Some(second));
    }

    #[test]
    fn servers_that_end_with_other_words_do_not_fail_in_the_same_way() {
        let mut failures = ServerFailures::default();
        failures.did_not_start("it ended with exit status: 1 (log: a, last words: \"401: the model is gated\")", "a");
        failures.did_not_start("it ended with exit status: 1 (log: b, last words: \"out of memory: 17 GiB\")", "b");
        assert_eq!(failures.all_given_up(), None);
        failures.did_not_start("it ended with exit status: 1 (log: c, last words: \"out of memory: 19 GiB\")", "c");
        assert!(failures.all_given_up().is_some());
    }

    #[test]
    fn different_failures_and_a_case_between_them_are_not_the_same_failure_twice() {
        let ended = "the server ended with exit status: 137 (128 + 9, SIGKILL)";
        let mut failures = ServerFailures::default();
        failures.failed("a", LATE, "a.log");
        failures.failed("b", ended, "a.log");
        assert_eq!((failures.all_given_up(), failures.repeated()), (None, None));
        failures.measured("c");
        failures.failed("d", ended, "a.log");
        assert_eq!((failures.all_given_up(), failures.repeated()), (None, None));
        failures.failed("e", ended, "a.log");
        assert_eq!(failures.all_given_up(), None, "something was measured");
        assert!(failures.repeated().is_some(), "the rest of this server's cases in this pass");
    }

    #[test]
    fn a_case_is_given_up_after_two_repetitions_and_the_others_are_not() {
        let mut failures = ServerFailures::default();
        for _ in 0..2 {
            failures.measured("a");
            failures.failed("b", LATE, "head/01/server-1.log");
        }
        assert!(failures.case_given_up("b").unwrap().contains("head/01/server-1.log"));
        assert_eq!(failures.case_given_up("a"), None);
        failures.measured("b");
        assert_eq!(failures.case_given_up("b"), None);
    }

    #[test]
    fn ports_process_ids_and_last_words_do_not_make_another_failure() {
        assert_eq!(same_way("port 40123: python3 (process 7)"), same_way("port 8: python3 (process 12345)"));
        assert_eq!(same_way("x (log: a, last words: \"12:03 b\")"), same_way("x (server log: c)"));
        let ended = |seen: &str| same_way(&format!("the server ended with exit status: 137; {seen} (server log: a)"));
        assert_eq!(ended("connection lost: 8"), ended("no connection: 6"));
        assert_ne!(same_way("it ended"), same_way("it did not answer"));
    }
}
