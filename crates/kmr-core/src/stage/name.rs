//! The name of a stage, as errors, dead letters and logs show it.

use std::fmt;
use std::sync::Arc;

/// A stage's name, as in `map 1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage(Arc<str>);

impl Stage {
    /// The `number`th stage of its kind.
    pub fn new(kind: &str, number: usize) -> Self {
        Self(format!("{kind} {number}").into())
    }

    /// The only stage of its kind.
    pub fn named(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
