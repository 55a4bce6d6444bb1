//! A mapper that does not return a Result.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

fn text(_: &Record<'_>) -> String {
    String::new()
}

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => text, //~ a map stage returns `Result<T, E>` or a future of one, not `String`
        reduce => Count::<String>::new(),
    })
}
