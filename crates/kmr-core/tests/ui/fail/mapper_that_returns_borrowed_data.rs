//! A mapper whose result borrows from the record.

#[path = "../support.rs"]
mod support;

use kmr_core::*;
use support::*;

fn text<'r>(record: &'r Record<'_>) -> Result<&'r str, std::str::Utf8Error> {
    std::str::from_utf8(record.payload().unwrap_or_default())
}

pub fn strategy() -> impl IntoPipeline {
    processing_strategy!({
        map => text, //~ is not a map stage on Kafka records | its result must own its data: return `String` or `Vec<u8>`
        reduce => Count::<String>::new(),
    })
}
