//! The judge over the real graph, on strategies of all shapes; and the judge itself, on defects that are planted.

mod defects;
mod standard;

use standard::standard;

/// Seeds of the normal test run; `KMR_SIM_SEEDS` and `KMR_SIM_SECONDS` ask for more, `KMR_SIM_SEED` for one.
const SEEDS: u64 = 2000;

#[test]
fn no_seed_breaks_a_rule() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let result = match (number("KMR_SIM_SEED"), number("KMR_SIM_SECONDS")) {
        (Some(seed), _) => standard().check([seed]),
        (None, Some(seconds)) => standard().check_for(0, std::time::Duration::from_secs(seconds)),
        (None, None) => standard().check(0..number("KMR_SIM_SEEDS").unwrap_or(SEEDS)),
    };
    match result {
        Ok(summary) => println!("simulation: {summary}"),
        Err(failure) => panic!("{failure}\nreplay: cargo xtask sim --seed {}", failure.seed),
    }
}
