//! Runs many seeds on all cores, each of them twice. The schedule of the first seed that fails is
//! shortened.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::drive::{Outcome, run};
use super::oracle::Violation;
use super::schedule::Schedule;
use super::{Failure, Simulation, Summary};

/// Maximum number of runs to shorten a schedule.
const MAX_SHRINK_RUNS: usize = 400;

/// Runs seeds until there are no more, until `limit` has passed, or until one fails.
pub(super) fn check(
    simulation: &Simulation,
    seeds: impl Iterator<Item = u64> + Send,
    limit: Option<Duration>,
) -> Result<Summary, Box<Failure>> {
    let started = Instant::now();
    let (seeds, failed) = (Mutex::new(seeds), AtomicBool::new(false));
    let failures: Mutex<Vec<Failure>> = Mutex::default();
    let [runs, records, rebalances, commits, members] = [const { AtomicU64::new(0) }; 5];
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    #[cfg(test)]
    let mutant = crate::util::mutants::switch::active();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                #[cfg(test)]
                crate::util::mutants::switch::set(mutant);
                while !failed.load(Ordering::Relaxed) && limit.is_none_or(|limit| started.elapsed() < limit) {
                    let Some(seed) = seeds.lock().unwrap_or_else(PoisonError::into_inner).next() else {
                        return;
                    };
                    match check_one(simulation, seed) {
                        Ok(outcome) => {
                            runs.fetch_add(1, Ordering::Relaxed);
                            records.fetch_add(outcome.counters.records, Ordering::Relaxed);
                            rebalances.fetch_add(outcome.counters.rebalances, Ordering::Relaxed);
                            commits.fetch_add(outcome.counters.commits, Ordering::Relaxed);
                            members.fetch_add(outcome.counters.members, Ordering::Relaxed);
                        }
                        Err(failure) => {
                            failed.store(true, Ordering::Relaxed);
                            failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
                        }
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    match failures.into_iter().min_by_key(|failure| failure.seed) {
        Some(failure) => Err(Box::new(failure)),
        None => Ok(Summary {
            seeds: runs.into_inner(),
            records: records.into_inner(),
            rebalances: rebalances.into_inner(),
            commits: commits.into_inner(),
            members: members.into_inner(),
            elapsed: started.elapsed(),
        }),
    }
}

/// Runs a seed twice.
fn check_one(simulation: &Simulation, seed: u64) -> Result<Outcome, Failure> {
    let schedule = Schedule::random(seed);
    let schedule = if simulation.exactly_once { schedule.for_exactly_once() } else { schedule };
    let first = run(simulation, &schedule);
    if let Some(violation) = &first.violation {
        return Err(shrink(simulation, schedule, violation.clone(), first.events));
    }
    let second = run(simulation, &schedule);
    if let Some(at) = first.events.iter().zip(&second.events).position(|(a, b)| a != b) {
        let what =
            format!("two runs differ: {:?} and {:?}", first.events[at].trim(), second.events[at].trim());
        let violation = Violation { rule: "same seed, same run", what };
        return Err(failure(&schedule, violation, first.events));
    }
    if first.events.len() != second.events.len() {
        let what = format!("two runs differ in length: {} and {}", first.events.len(), second.events.len());
        return Err(failure(&schedule, Violation { rule: "same seed, same run", what }, first.events));
    }
    Ok(first)
}

/// Removes steps that the failure does not need: halves first, then smaller parts. The same rule
/// must stay broken.
fn shrink(simulation: &Simulation, schedule: Schedule, violation: Violation, events: Vec<String>) -> Failure {
    let (mut best, mut best_violation, mut best_events) = (schedule, violation, events);
    let (mut size, mut left) = (best.steps.len().div_ceil(2), MAX_SHRINK_RUNS);
    while size > 0 && left > 0 {
        let (mut at, mut shrunk) = (0, false);
        while at < best.steps.len() && left > 0 {
            let candidate = best.without(at..(at + size).min(best.steps.len()));
            left -= 1;
            let outcome = run(simulation, &candidate);
            match outcome.violation {
                Some(violation) if violation.rule == best_violation.rule => {
                    (best, best_violation, best_events) = (candidate, violation, outcome.events);
                    shrunk = true;
                }
                _ => at += size,
            }
        }
        if !shrunk || size > best.steps.len() {
            size = if size == 1 { 0 } else { size.div_ceil(2).min(best.steps.len().max(1)) };
        }
    }
    failure(&best, best_violation, best_events)
}

fn failure(schedule: &Schedule, violation: Violation, events: Vec<String>) -> Failure {
    Failure { seed: schedule.seed, violation, schedule: schedule.to_string(), events }
}
