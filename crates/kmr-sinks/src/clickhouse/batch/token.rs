//! Deduplication tokens: unique names for batches and sessions.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::SystemTime;

/// The tokens of one writer. No other batch of any process has the same ones.
pub(crate) struct Tokens {
    run: String,
    next: u64,
}

impl Tokens {
    pub(crate) fn new() -> Self {
        Self { run: unique_name(), next: 0 }
    }

    pub(crate) fn next(&mut self) -> String {
        self.next += 1;
        format!("{}-{}", self.run, self.next)
    }
}

/// A name that no other process uses.
pub(crate) fn unique_name() -> String {
    // Each RandomState has its own keys, seeded by the operating system.
    let random = || RandomState::new().hash_one((std::process::id(), SystemTime::now()));
    format!("kmr-{:016x}{:016x}", random(), random())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_within_and_between_runs() {
        let (mut one, mut other) = (Tokens::new(), Tokens::new());
        let tokens = [one.next(), one.next(), other.next(), other.next()];
        for (at, token) in tokens.iter().enumerate() {
            assert!(!tokens[at + 1..].contains(token), "{tokens:?}");
        }
    }
}
