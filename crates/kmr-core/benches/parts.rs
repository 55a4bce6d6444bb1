//! Tracker, due policy and the hand-over of chunks, in memory: time and allocations.
//!
//! ```sh
//! cargo bench -p kmr-core --features testing,metrics --bench parts
//! ```
//!
//! Items are records (hand-over), ranges (tracker) or chunks (due policy): the time of one is the
//! reciprocal of the rate shown.

use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher, black_box};
use kmr_core::__parts::{Discard, Handover, batch, track};
use kmr_core::{BoxError, IntoPipeline, Record, Strategy};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// Chunks of one batch.
const CHUNKS: usize = 32;

fn main() {
    divan::main();
}

#[divan::bench(args = [16, 256, 4_096])]
fn tracker(bencher: Bencher<'_, '_>, ranges: i64) {
    bencher.counter(ItemsCount::new(ranges.unsigned_abs())).bench(|| track(black_box(ranges)));
}

#[divan::bench]
fn due(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(1_024_usize)).bench(|| batch(black_box(1_024), black_box(1_000)));
}

/// A batch of 32 chunks: mapped, reduced, delivered to nowhere, finished.
#[divan::bench(args = [1, 16, 1_024])]
fn hand_over(bencher: Bencher<'_, '_>, records: usize) {
    let Ok(mut handover) = Handover::new(strategy(records * CHUNKS), records) else { return };
    bencher.counter(ItemsCount::new(records * CHUNKS)).bench_local(|| handover.run(CHUNKS));
}

/// The same with metrics.
#[cfg(feature = "metrics")]
#[divan::bench(args = [1, 16, 1_024])]
fn hand_over_with_metrics(bencher: Bencher<'_, '_>, records: usize) {
    let Ok(mut handover) = Handover::with_metrics(strategy(records * CHUNKS), records) else { return };
    bencher.counter(ItemsCount::new(records * CHUNKS)).bench_local(|| handover.run(CHUNKS));
}

/// What the metrics record of one batch of 1,024 records, with another timestamp every so many of
/// them.
#[cfg(feature = "metrics")]
#[divan::bench(args = [1_024, 256, 1])]
fn instruments(bencher: Bencher<'_, '_>, each: usize) {
    let mut instruments = kmr_core::__parts::Instruments::new(1_024, each);
    bencher.bench_local(|| instruments.record());
}

fn strategy(max_rows: usize) -> impl IntoPipeline {
    let seen = |record: &Record<'_>| Ok::<_, BoxError>((record.partition(), record.offset()));
    Strategy::new().map(seen).reduce(Discard::new(max_rows))
}
