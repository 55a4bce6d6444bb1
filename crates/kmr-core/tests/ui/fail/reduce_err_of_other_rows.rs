//! A `reduce_err` whose reducer does not take dead letters.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => parse,
        reduce => Count::<Order>::new(),
        reduce_err => Count::<Order>::new(), //~ this `reduce_err` does not take `DeadLetter` | Order>`
    })
}
