//! Simulates strategies of all shapes on the real graph. Mutants show that the invariant checker
//! finds defects.

mod mutants;
mod standard;

use std::time::Duration;

use super::Simulation;

use standard::{exact, folded, folded_exactly_once, standard};

/// Seeds of the normal test run. `cargo xtask sim` sets `KMR_SIM_SEEDS`, or `KMR_SIM_SECONDS` with
/// `KMR_SIM_FIRST`, or `KMR_SIM_SEED` to run others.
const SEEDS: u64 = 2000;

#[test]
fn no_seed_breaks_a_rule() {
    check("simulation", &standard());
}

#[test]
fn no_seed_breaks_a_rule_in_exactly_once_mode() {
    check("simulation, exactly once", &exact());
}

#[test]
fn no_seed_breaks_a_rule_with_a_fold() {
    check("simulation with folds", &folded());
}

#[test]
fn no_seed_breaks_a_rule_with_a_fold_in_exactly_once_mode() {
    check("simulation with folds, exactly once", &folded_exactly_once());
}

fn check(name: &str, simulation: &Simulation) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let result = match (number("KMR_SIM_SEED"), number("KMR_SIM_SECONDS")) {
        (Some(seed), _) => simulation.check([seed]),
        (None, Some(seconds)) => {
            simulation.check_for(number("KMR_SIM_FIRST").unwrap_or(0), Duration::from_secs(seconds))
        }
        (None, None) => simulation.check(0..number("KMR_SIM_SEEDS").unwrap_or(SEEDS)),
    };
    match result {
        Ok(summary) => println!("{name}: {summary}"),
        Err(failure) => panic!("{failure}\nreplay: cargo xtask sim --seed {}", failure.seed),
    }
}
