//! The number of slices: how often the cases of a server are measured during its life. It is chosen once for each server, from
//! the measured costs of a restart and of one slice, and holds for every repetition of both sides.

use vllm_verdict::strategy::{Pass, Phase};
use vllm_verdict::v1::ServerSlices;

use super::journal::Journal;
use crate::plan::Plan;
use crate::plan::estimate::by_server;
use crate::plan::suite::Case;
use crate::plan::target::Target;

/// Repetitions that come before slices: with fewer pairs, more restarts tell more than more slices.
const RESTARTS_FIRST: u32 = 5;

/// Share of a budget that slices leave to repetitions that take longer than the first one.
const SPARE: f64 = 0.1;

/// How many slices pay, from the costs in seconds: 2 where a restart takes longer than two slices, 4 where it takes longer
/// than five.
pub fn worth(restart: f64, slice: f64) -> u32 {
    if restart > 5.0 * slice {
        4
    } else if restart > 2.0 * slice {
        2
    } else {
        1
    }
}

/// The number of slices of a server: those that pay, or so many fewer that the first five pairs fit in the budget. `room` is
/// the time that each of these pairs has left for further slices of one side; none without a budget.
pub fn chosen(restart: f64, slice: f64, room: Option<f64>) -> u32 {
    let fits = |slices: u32| room.is_none_or(|room| f64::from(slices - 1) * slice <= room);
    [4, 2].into_iter().find(|slices| *slices <= worth(restart, slice) && fits(*slices)).unwrap_or(1)
}

/// The seconds that each of the first five pairs has for further slices of one side, where `left` seconds of the budget are
/// left before `pair`, and a pair without them takes `seconds` on so many sides.
pub fn room(left: f64, pair: u32, seconds: f64, sides: usize) -> f64 {
    let pairs = (RESTARTS_FIRST + 1).saturating_sub(pair).max(1);
    (left * (1.0 - SPARE) / f64::from(pairs) - seconds) / sides as f64
}

/// Whether a run chooses the number of slices by costs. A remote server is never restarted.
pub fn is_by_cost(plan: &Plan, case: &Case) -> bool {
    let is_remote = plan.sides.present().any(|(_, side)| matches!(side.target, Target::Remote(_)));
    plan.pairs >= RESTARTS_FIRST && case.server.is_some() && case.slices.is_none() && !is_remote
}

/// Whether the number of slices of a case is still to be chosen in this pass.
pub fn is_open(plan: &Plan, journal: &Journal, pass: Pass, case: &Case) -> bool {
    has_slices(pass, case) && is_by_cost(plan, case) && journal.choice(server(plan, case)).is_none()
}

/// The slices of a case in a pass: as the plan sets them, or as chosen for its server; 1 until then.
pub fn of_case(plan: &Plan, journal: &Journal, pass: Pass, case: &Case) -> u32 {
    match case.slices {
        _ if !has_slices(pass, case) => 1,
        Some(slices) => slices.max(1),
        None => journal.choice(server(plan, case)).map_or(1, |choice| choice.slices),
    }
}

/// A warm-up and a screen measure every case once, and so do benchmarks without a server.
fn has_slices(pass: Pass, case: &Case) -> bool {
    matches!(pass.phase, Phase::Pairs | Phase::MorePairs) && case.server.is_some()
}

/// The number of a case's server in the plan.
fn server(plan: &Plan, case: &Case) -> usize {
    let groups = by_server(&plan.cases);
    groups.iter().position(|(server, _)| server.is_some() && *server == case.server.as_ref()).map_or(0, |at| at + 1)
}

/// The slices of a repetition by server, for the report.
pub fn of_servers(plan: &Plan, journal: &Journal) -> Vec<ServerSlices> {
    let mut all = Vec::new();
    for (number, (_, cases)) in (1..).zip(by_server(&plan.cases)) {
        let count = |slices: Option<u32>| cases.iter().filter(|case| case.slices == slices).count();
        let mut fixed: Vec<u32> = cases.iter().filter_map(|case| case.slices).collect();
        fixed.sort_unstable();
        fixed.dedup();
        all.extend(fixed.into_iter().map(|slices| ServerSlices {
            cases: count(Some(slices)),
            slices,
            restart_seconds: None,
            slice_seconds: None,
        }));
        all.extend(journal.choice(number).map(|choice| ServerSlices {
            cases: count(None),
            slices: choice.slices,
            restart_seconds: Some(choice.restart_seconds),
            slice_seconds: Some(choice.slice_seconds),
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::suite::Command;
    use crate::run::journal::Choice;

    #[test]
    fn a_restart_that_takes_long_pays_more_slices() {
        let slices = [1.0, 2.0, 2.1, 3.0, 5.0, 5.1, 6.0].map(|restart| worth(restart * 20.0, 20.0));
        assert_eq!(slices, [1, 1, 2, 2, 2, 4, 4]);
        assert_eq!(worth(0.0, 0.0), 1, "a server that was running before");
    }

    #[test]
    fn slices_that_leave_no_room_for_five_restarts_are_not_taken() {
        let with = |room| chosen(60.0, 10.0, room);
        assert_eq!([None, Some(30.0), Some(29.0), Some(10.0), Some(9.0), Some(-5.0)].map(with), [4, 4, 2, 2, 1, 1]);
        assert_eq!(chosen(30.0, 10.0, Some(100.0)), 2, "a budget with much room does not make more pay");
    }

    fn plan(pairs: u32) -> Plan {
        let server = |words: &str| Some(Command::sample(words));
        let case = |server: Option<Command>, slices| Case { server, slices, ..Case::sample("vllm bench serve") };
        let cases = vec![
            case(None, Some(3)),
            case(server("vllm serve a"), None),
            case(server("vllm serve b"), None),
            case(server("vllm serve b"), Some(3)),
        ];
        Plan { cases, pairs, ..Plan::sample() }
    }

    #[test]
    fn the_plan_or_the_choice_for_its_server_says_how_often_a_case_is_measured() {
        let (plan, mut journal) = (plan(5), Journal::in_memory());
        let pass = |phase| Pass { phase, pair: 1 };
        let of = |journal: &Journal, phase| {
            let slices = plan.cases.iter().map(|case| of_case(&plan, journal, pass(phase), case));
            slices.collect::<Vec<u32>>()
        };
        let open = |journal: &Journal, phase| {
            plan.cases.iter().map(|case| is_open(&plan, journal, pass(phase), case)).collect::<Vec<bool>>()
        };
        assert_eq!(of(&journal, Phase::Pairs), [1, 1, 1, 3]);
        assert_eq!(open(&journal, Phase::Pairs), [false, true, true, false]);
        journal.choose(Choice { server: 3, slices: 2, restart_seconds: 3.0, slice_seconds: 1.0 }).unwrap();
        assert_eq!(of(&journal, Phase::MorePairs), [1, 1, 2, 3]);
        assert_eq!(open(&journal, Phase::Pairs), [false, true, false, false]);
        for phase in [Phase::WarmUp, Phase::Screen] {
            assert_eq!((of(&journal, phase), open(&journal, phase)), (vec![1; 4], vec![false; 4]));
        }
    }

    #[test]
    fn a_run_of_fewer_than_five_pairs_chooses_nothing() {
        let (plan, journal) = (plan(4), Journal::in_memory());
        let pass = Pass { phase: Phase::Pairs, pair: 1 };
        assert!(plan.cases.iter().all(|case| !is_open(&plan, &journal, pass, case)));
        assert_eq!(of_case(&plan, &journal, pass, &plan.cases[3]), 3, "set slices are taken all the same");
    }

    #[test]
    fn a_server_that_is_never_restarted_has_no_further_slices() {
        let mut plan = plan(5);
        plan.sides.head.as_mut().unwrap().target = "remote:http://127.0.0.1:8000".parse().unwrap();
        assert!(plan.cases.iter().all(|case| !is_by_cost(&plan, case)));
    }

    #[test]
    fn a_budget_holds_the_rest_of_the_first_five_pairs_before_slices() {
        // 1000 s are 900 s without the spare tenth: 180 s for each of five pairs, of which 100 s are taken.
        let room = |pair| room(1000.0, pair, 100.0, 2).round();
        assert_eq!([1, 3, 5, 6].map(room), [40.0, 100.0, 400.0, 400.0]);
    }
}
