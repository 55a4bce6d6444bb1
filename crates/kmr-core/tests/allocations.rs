//! A record costs no allocation on its way through a map stage and a reduce that drops its rows.

use kmr_core::__parts::{Discard, Handover};
use kmr_core::{BoxError, Error, IntoPipeline, Record, Strategy};

/// Chunks of one run, which together are one batch.
const CHUNKS: usize = 8;

/// A row like those of workload W0 of the benchmark.
struct Seen {
    _place: (i32, i64),
    _bytes: usize,
}

fn strategy(max_rows: usize) -> impl IntoPipeline {
    let seen = |record: &Record<'_>| {
        let text = std::str::from_utf8(record.payload().unwrap_or_default())?;
        Ok::<_, BoxError>(Seen { _place: (record.partition(), record.offset()), _bytes: text.len() })
    };
    Strategy::new().map(seen).reduce(Discard::new(max_rows))
}

/// Allocations of a run of [`CHUNKS`] chunks, after everything that is allocated once was
/// allocated.
fn allocations(records: usize) -> Result<u64, Error> {
    let mut handover = Handover::new(strategy(records * CHUNKS), records)?;
    handover.run(CHUNKS);
    handover.run(CHUNKS);
    Ok(allocation_counter::measure(|| handover.run(CHUNKS)).count_total)
}

#[test]
fn allocations_are_those_of_chunks_and_not_of_records() -> Result<(), Error> {
    let (small, large) = (allocations(125)?, allocations(1_000)?);
    let chunks = CHUNKS as u64;
    assert!(small > 0, "no allocation was counted");
    // With eight times the records, both vectors of a chunk grow three more times.
    assert!(large <= small + chunks * 6, "{small} allocations of small chunks, {large} of large ones");
    assert!(large <= chunks * 48, "{large} allocations of {chunks} chunks");
    Ok(())
}
